"""Input files: the rows of a part, and the same rows with their results."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_core._support.files import digest_file
from rerank_core.errors import ConfigurationError
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.rows import Outcome, Row

__all__ = ["Source", "describe_clash"]


class Source(ABC):
    """An input file, read part by part; can be pickled, because it opens the file for each use.

    Args:
        path: the file.
        options: of the job.

    Attributes:
        path: the file.
        suffix: the extension of output files.
        rows: how many rows the file has.
        digest: of the file's content.

    Raises:
        ConfigurationError: the file does not hold what it should, or was changed while it was looked through.
        OSError: the file cannot be read.
    """

    path: Path
    suffix: str
    rows: int

    def __init__(self, path: Path, options: BatchOptions) -> None:
        self.path = path
        self.query_column = options.query_column
        self.documents_column = options.documents_column
        self.added_columns = options.added_columns
        self.rows_per_part = options.rows_per_part
        self._stamp = _read_stamp(path)
        self.digest = digest_file(path)
        try:
            self.rows = self.index_rows()
        finally:
            self._check_unchanged()

    def read(self, part: range) -> tuple[list[Row], Any]:
        """Return the rows of a part, and the same rows as the file holds them, for :meth:`render`.

        Raises:
            ConfigurationError: the file was changed since this object was made, or cannot be read.
        """
        try:
            return self.read_rows(part)
        finally:  # what a changed file leads to is explained by the change
            self._check_unchanged()

    @abstractmethod
    def index_rows(self) -> int:
        """Look through the file, remember where its parts are, and return the number of rows."""

    @abstractmethod
    def read_rows(self, part: range) -> tuple[list[Row], Any]:
        """Return what :meth:`read` returns, from a file that is expected to be unchanged."""

    @abstractmethod
    def render(self, held: Any, part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return an output file: the rows of a part that have a result, with three more columns."""

    def check_readable(self) -> None:  # noqa: B027 - optional
        """Check the whole file, where that finds more than reading its parts one by one.

        Raises:
            ConfigurationError: a part cannot be read.
        """

    def _check_unchanged(self) -> None:
        """Compare the file with what it was; a new date is looked into, because a copy has one, too."""
        try:
            stamp = _read_stamp(self.path)
            if stamp == self._stamp:
                return
            found = digest_file(self.path)
        except FileNotFoundError:
            raise ConfigurationError(
                f"{self.path} was removed while the batch ran: put it back and run again to go on"
            ) from None
        if found == self.digest:
            self._stamp = stamp
            return
        (now, *_), (before, *_) = stamp, self._stamp
        what = f"it has {now:,} bytes instead of {before:,}" if now != before else "its content differs"
        raise ConfigurationError(
            f"{self.path} was changed while the batch ran ({what}): put the old file back and run again to go on, "
            "or begin a new output folder for the new one"
        )


def describe_clash(names: Sequence[str], added: Sequence[str]) -> str | None:
    """Return what is wrong where the input has a column of the same name as one that is added, else None."""
    taken = [name for name in added if name in names]
    return f"there is a column {taken[0]!r} already: give prefix=" if taken else None


def _read_stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content: its size, its times of change and its inode."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
