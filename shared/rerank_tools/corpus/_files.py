"""The files of a corpus: which there are, whether they changed, and the chunks in them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rerank_core.errors import ConfigurationError
from rerank_tools.corpus.chunks import SUFFIXES, Chunk, chunk_file
from rerank_tools.records import FORMATS, decode, parse_records

__all__ = ["Corpus", "Source", "Stamp"]

_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_RECORD_SUFFIXES = frozenset(suffix for suffix, name in FORMATS.items() if name in ("jsonl", "csv", "tsv"))
_MOST_BYTES = 4 * 2**20


class Stamp(NamedTuple):
    """What tells whether a file has changed: bytes, time of change in nanoseconds, digest of its content."""

    size: int
    changed: int
    digest: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a corpus, as it was read; no chunks where it is not text in UTF-8."""

    stamp: Stamp
    chunks: list[Chunk]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder, or a file of records.

    Raises:
        ConfigurationError: there is no such folder or file, or the file's name ends otherwise.
    """

    path: Path
    text_field: str = "text"

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise ConfigurationError(f"{self.path} does not exist: give a folder, or a JSONL or CSV file")
        if self.path.is_file() and self.path.suffix.lower() not in {*_RECORD_SUFFIXES, *SUFFIXES}:
            raise ConfigurationError(
                f"{self.path} is of no known kind: give a folder, a file of text or code, or a file that ends in "
                f"{', '.join(sorted(_RECORD_SUFFIXES))}"
            )

    @property
    def is_file(self) -> bool:
        """Whether it is one file."""
        return self.path.is_file()

    def files(self) -> dict[str, os.stat_result]:
        """Return the files to index by their path from the folder, with slashes, in order.

        Hidden files and folders, dependencies, symbolic links and files over 4 MiB are passed over.
        """
        if self.is_file:
            return {self.path.name: self.path.stat()}
        return dict(sorted(_walk(self.path, "")))

    def read(self, name: str) -> Source:
        """Read a file of :meth:`files`.

        Raises:
            ConfigurationError: a file of records is malformed, or cannot be read.
        """
        path = self.path if self.is_file else self.path / name
        size, changed = -1, 0
        try:
            status = path.stat()
            size, changed = status.st_size, status.st_mtime_ns
            data = path.read_bytes()
        except OSError as exc:
            if self.is_file:
                raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}") from None
            return Source(Stamp(size, changed, ""), [])
        stamp = Stamp(size, changed, _digest(data))
        if self.is_file and path.suffix.lower() in _RECORD_SUFFIXES:
            form = FORMATS[path.suffix.lower()]
            records = parse_records(data, source=str(path), format=form, text_field=self.text_field)
            lines = [(record.line or 1, record.text) for record in records]
            return Source(stamp, [Chunk(name, line, line, "", text) for line, text in lines if text.strip()])
        try:
            content = decode(data, source=str(path))
        except ConfigurationError:
            if self.is_file:
                raise
            return Source(stamp, [])
        return Source(stamp, chunk_file(name, content.replace("\r\n", "\n")))

    def is_changed(self, name: str, status: os.stat_result, stamp: Stamp, read_at: int) -> bool:
        """Tell whether a file is another one than when it was read, at ``read_at`` nanoseconds.

        One that was changed after that, by its date, may have changed twice within the clock's resolution: its
        content decides.
        """
        if status.st_size != stamp.size:
            return True
        if status.st_mtime_ns == stamp.changed and stamp.changed < read_at:
            return False
        try:
            return _digest((self.path if self.is_file else self.path / name).read_bytes()) != stamp.digest
        except OSError:
            return True


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # a folder that may not be read
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _PASSED_OVER or not entry.name.isprintable():
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False) and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            with contextlib.suppress(FileNotFoundError):  # it went away meanwhile
                status = entry.stat()
                if status.st_size <= _MOST_BYTES:
                    yield prefix + entry.name, status
