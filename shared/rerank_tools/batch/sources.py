"""Input files, Parquet and JSON lines: the rows of a part, and the same rows with their results."""

from __future__ import annotations

import codecs
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, chain, groupby
from pathlib import Path
from typing import Any

from rerank_core._support.extras import check_installed, require
from rerank_core._support.files import digest_file
from rerank_core.errors import ConfigurationError
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.rows import (
    Outcome,
    Row,
    add_columns,
    check_columns,
    check_row,
    describe_clash,
    read_table,
    usage_to_dict,
)
from rerank_tools.records import parse_json_object

_ROWS_AT_ONCE = 1024


def open_source(path: Path, options: BatchOptions) -> Source:
    """Open an input file by its extension, and look through it."""
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".ndjson"):
            return JsonLinesSource(path, options)
        if suffix == ".parquet":
            check_installed("pyarrow", extra="ray", purpose=f"reading {path.name}")
            return ParquetSource(path, options)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read ({exc.strerror or exc}): give a file of rows") from None
    raise ConfigurationError(f"{path} is neither .parquet nor .jsonl: convert it to one of them")


class Source(ABC):
    """An input file, read part by part; can be pickled, because it opens the file for each use.

    ``suffix`` is the extension of output files. A file that changes after this object was made is refused.
    """

    path: Path
    suffix: str
    rows: int

    def __init__(self, path: Path, options: BatchOptions) -> None:
        self.path = path
        self.columns = options.columns
        self.rows_per_part = options.rows_per_part
        self._stamp = _read_stamp(path)
        self.digest = digest_file(path)
        try:
            self.rows = self.index_rows()
        finally:
            self._check_unchanged()

    def read(self, part: range) -> tuple[list[Row], Any]:
        """Return the rows of a part, and the same rows as the file holds them, for :meth:`render`."""
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
        """Check the whole file, where that finds more than reading its parts one by one."""

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


class JsonLinesSource(Source):
    """A file of JSON lines. Blank lines are skipped; a line that is not an object is a row that fails."""

    suffix = ".jsonl"

    def index_rows(self) -> int:
        """Find where each part begins, in bytes and in lines."""
        self._starts: list[tuple[int, int]] = []
        rows = offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    if rows % self.rows_per_part == 0:
                        self._starts.append((offset, number))
                    rows += 1
                offset += len(line)
        return rows

    def read_rows(self, part: range) -> tuple[list[Row], list[bytes]]:
        """Return the rows of a part, and the line of each."""
        rows: list[Row] = []
        lines: list[bytes] = []
        offset, first_line = self._starts[part.start // self.rows_per_part]
        with self.path.open("rb") as file:
            file.seek(offset)
            for number, line in enumerate(file, start=first_line):
                if len(rows) == len(part):
                    break
                if not line.isspace():
                    rows.append(self._parse_row(part.start + len(rows), line, number))
                    lines.append(line)
        return rows, lines

    def _parse_row(self, number: int, line: bytes, line_number: int) -> Row:
        place = f"{self.path.name}, line {line_number}"
        try:
            item = parse_json_object(line, place)
        except ConfigurationError as exc:
            return Row(number, error=str(exc))
        for column in (self.columns.query, self.columns.documents):
            if column not in item:
                return Row(number, error=f"{place}: no column {column!r}: add it, or name another one")
        clash = describe_clash(item, self.columns)
        if clash is not None:
            return Row(number, error=f"{place}: {clash}")
        return check_row(number, item[self.columns.query], item[self.columns.documents], place)

    def render(self, held: list[bytes], part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return the lines that have a result as they are, each with three more fields."""
        lines = []
        for number, line in zip(part, held, strict=True):
            outcome = outcomes[number]
            if outcome.error is None:
                values = (list(outcome.indices), list(outcome.scores), usage_to_dict(outcome.usage))
                added = json.dumps(dict(zip(self.columns.added, values, strict=True))).encode()
                given = line.removeprefix(codecs.BOM_UTF8).strip()
                lines.append(given.removesuffix(b"}") + b", " + added.removeprefix(b"{") + b"\n")
        return b"".join(lines)


class ParquetSource(Source):
    """A Parquet file; the output keeps its columns and their types. Reads only the row groups it needs."""

    suffix = ".parquet"

    def index_rows(self) -> int:
        """Check the columns, and find where each row group ends."""
        file = self._open()
        groups = range(file.num_row_groups)
        self._group_ends = list(accumulate(file.metadata.row_group(group).num_rows for group in groups))
        self._batches: Iterator[Any] = iter(())
        self._next_row = file.metadata.num_rows + 1
        try:
            check_columns(file.schema_arrow, self.columns)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{self.path.name}: {exc}") from None
        rows: int = file.metadata.num_rows
        return rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": iter(()), "_next_row": self.rows + 1}

    def check_readable(self) -> None:
        """Decode every row group once, so that a damaged one costs nothing but this."""
        read = 0
        batches = self._open().iter_batches(batch_size=_ROWS_AT_ONCE)
        while read < self.rows:
            with self._explain_damage(f"after row {read}"):
                batch = next(batches, None)
                if batch is None:
                    raise OSError("fewer rows than the file says")
                for column in (self.columns.query, self.columns.documents):
                    batch.column(column).validate(full=True)
            read += batch.num_rows

    def read_rows(self, part: range) -> tuple[list[Row], Any]:
        """Return the rows of a part, and their table; cheap where parts follow each other."""
        with self._explain_damage(f"rows {part.start + 1} to {part.stop}"):
            table = self._read_part(part)
            name = self.path.name
            rows = read_table(table, self.columns, lambda row: f"{name}, row {row + 1}", first=part.start)
        return rows, table

    def render(self, held: Any, part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return a Parquet file of the rows that have a result."""
        arrow = require("pyarrow", extra="ray", purpose="writing Parquet")
        parquet = require("pyarrow.parquet", extra="ray", purpose="writing Parquet")
        kept: list[Any] = []
        # By slices, not by take(), which has no kernel for view types.
        for is_finished, numbers in groupby(part, key=lambda number: outcomes[number].error is None):
            rows = list(numbers)
            if is_finished:
                kept.append(held.slice(rows[0] - part.start, len(rows)))
        table = arrow.concat_tables(kept) if kept else held.slice(0, 0)
        finished = [outcome for number in part if (outcome := outcomes[number]).error is None]
        sink = arrow.BufferOutputStream()
        parquet.write_table(add_columns(table, self.columns, finished), sink, compression="zstd")
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def _open(self) -> Any:
        parquet = require("pyarrow.parquet", extra="ray", purpose=f"reading {self.path.name}")
        with self._explain_damage("its metadata"):
            return parquet.ParquetFile(self.path, page_checksum_verification=True)

    @contextmanager
    def _explain_damage(self, place: str) -> Iterator[None]:
        arrow = require("pyarrow", extra="ray", purpose=f"reading {self.path.name}")
        try:
            yield
        except (arrow.ArrowException, OSError, UnicodeDecodeError) as exc:
            reason = str(exc).partition("\n")[0].partition(". ")[0]
            raise ConfigurationError(
                f"{self.path}, {place}: damaged, or not Parquet that pyarrow reads ({reason}): write it again"
            ) from None

    def _read_part(self, part: range) -> Any:
        arrow = require("pyarrow", extra="ray", purpose=f"reading {self.path.name}")
        # Within a row group, reading on is cheaper than beginning anew.
        if part.start < self._next_row or self._group_of(part.start) != self._group_of(self._next_row):
            self._seek(part.start)
        pieces: list[Any] = []
        while self._next_row < part.stop:
            batch = next(self._batches, None)
            if batch is None:
                raise OSError("fewer rows than the file says")
            begin, end = max(part.start - self._next_row, 0), part.stop - self._next_row
            pieces.append(batch[begin:end])
            if end < batch.num_rows:
                self._batches = chain([batch[end:]], self._batches)
            self._next_row += min(end, batch.num_rows)
        return arrow.Table.from_batches(pieces)

    def _group_of(self, row: int) -> int:
        return sum(end <= row for end in self._group_ends)

    def _seek(self, row: int) -> None:
        group = self._group_of(row)
        self._next_row = self._group_ends[group - 1] if group else 0
        self._batches = self._open().iter_batches(
            batch_size=_ROWS_AT_ONCE, row_groups=list(range(group, len(self._group_ends)))
        )


def _read_stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content: its size, its times of change and its inode."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
