"""Journals: files to which results are appended one by one, so that an interrupted job can go on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rerank_core._support.files import digest, write_atomically

_CHECKSUM = "checksum"


class Journal:
    """An open journal, one JSON object per line; use it as a context manager.

    An entry is handed to the operating system before :meth:`append` returns, so killing the process loses none. A
    last line that was cut off is ended first and ignored when reading, as is every line that was changed or
    belongs to another job.

    Args:
        path: the file; it and its folder are made where they are missing.
        key: identifies the job; entries of jobs with other keys are ignored.
        sync: bring each entry to the disk, so that a power cut loses none either; takes milliseconds.

    Attributes:
        entries: what the file held when it was opened.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, key: str, *, sync: bool = False) -> None:
        self.path = path
        self._key = key
        self._sync = sync
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = read_journal(path, key)
        self._file = path.open("a+b", buffering=0)
        self._is_torn = False
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry.

        Raises:
            OSError: the file cannot be written.
        """
        line = (b"\n" if self._is_torn else b"") + _render_entry(entry, self._key)
        self._is_torn = True
        if self._file.write(line) < len(line):  # a disk that is nearly full takes a part of it without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._is_torn = False
        if self._sync:
            os.fsync(self._file.fileno())

    def replace(self, entry: Mapping[str, Any]) -> None:
        """Close the journal, and put one entry in the place of all.

        Raises:
            OSError: the file cannot be written.
        """
        self._file.close()
        with write_atomically(self.path) as file:
            file.write(_render_entry(entry, self._key))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def read_journal(path: Path, key: str) -> list[dict[str, Any]]:
    """Return the entries of a journal, in order; none where there is no such file.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").split("\n")
    return [entry for entry in (_parse_entry(line, key) for line in lines) if entry is not None]


def _render_entry(entry: Mapping[str, Any], key: str) -> bytes:
    """Return an entry, which must not be empty, as a line of JSON with a checksum over it and the job's key."""
    content = json.dumps(entry)
    return f'{content[:-1]}, "{_CHECKSUM}": "{digest(key, content)}"}}\n'.encode()


def _parse_entry(line: str, key: str) -> dict[str, Any] | None:
    """Return the entry that was written with the same key; None for any other line."""
    try:
        entry = json.loads(line)
        checksum = entry.pop(_CHECKSUM)
        return entry if checksum == digest(key, json.dumps(entry)) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
