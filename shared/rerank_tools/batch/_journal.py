"""The rows of a part that are finished, a line each, before the part is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rerank_core.usage import Usage
from rerank_tools.batch._atomic import lock
from rerank_tools.batch._rows import Outcome

__all__ = ["Journal", "read_journal"]

_PATIENCE_SECONDS = 10.0
"""Workers outlive a driver that was killed for about a second."""


class Journal:
    """Appends outcomes; each is the operating system's before the next row begins, so no kill loses it.

    Attributes:
        outcomes: the last outcome of each row, by its number; that of a row which failed is from this run.
        before: what earlier runs consumed, their failed rows too.
        usage: what this run consumed.
    """

    def __init__(self, file: IO[bytes], found: list[Outcome]) -> None:
        self._file = file
        self.outcomes = {outcome.number: outcome for outcome in found if outcome.error is None}
        self.before = sum((outcome.usage for outcome in found), Usage())
        self.usage = Usage()

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Journal]:
        """Open a part's journal, or begin one.

        Raises:
            ConfigurationError: another process writes it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            lock(file, str(path), patience=_PATIENCE_SECONDS)
            found = read_journal(path)
            if _torn(file):
                file.write(b"\n")
            try:
                yield cls(file, found)
            finally:
                if path.exists():  # else the part is written
                    os.fsync(file.fileno())

    def add(self, outcome: Outcome) -> None:
        """Write down what became of a row."""
        self._file.write(outcome.line().encode() + b"\n")
        self.outcomes[outcome.number] = outcome
        self.usage += outcome.usage


def read_journal(path: Path) -> list[Outcome]:
    """Return what a journal holds, none where there is none; a torn line counts as not written."""
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").split("\n")
    return [outcome for outcome in map(Outcome.from_line, lines) if outcome is not None]


def _torn(file: IO[bytes]) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
