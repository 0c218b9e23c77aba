"""Parquet files, and the columns that are added to Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage
from rerank_tools.batch.rows import Outcome, Row, check_row, usage_to_dict
from rerank_tools.batch.sources.base import Source, describe_clash

__all__ = ["ParquetSource", "add_columns", "check_columns", "read_table"]

_ROWS_AT_ONCE = 1024


class ParquetSource(Source):
    """A Parquet file; the output keeps its columns and their types. Reads only the row groups it needs."""

    suffix = ".parquet"

    def index_rows(self) -> int:
        """Check the columns, and find where each row group ends."""
        file = self._open()
        groups = range(file.num_row_groups)
        self._group_ends = list(accumulate(file.metadata.row_group(group).num_rows for group in groups))
        self._batches: Iterator[Any] = iter(())
        self._rest: Any = None
        self._next_row = file.metadata.num_rows + 1
        try:
            check_columns(file.schema_arrow, self.query_column, self.documents_column)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{self.path.name}: {exc}") from None
        clash = describe_clash(file.schema_arrow.names, self.added_columns)
        if clash is not None:
            raise ConfigurationError(f"{self.path.name}: {clash}")
        rows: int = file.metadata.num_rows
        return rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": iter(()), "_rest": None, "_next_row": self.rows + 1}

    def check_readable(self) -> None:
        """Decode every row group once, so that a damaged one costs nothing but this.

        Raises:
            ConfigurationError: a row group cannot be read.
        """
        read = 0
        batches = self._open().iter_batches(batch_size=_ROWS_AT_ONCE)
        while read < self.rows:
            with self._explain_damage(f"after row {read}"):
                batch = next(batches, None)
                if batch is None:
                    raise OSError("fewer rows than the file says")
                for column in (self.query_column, self.documents_column):
                    batch.column(column).validate(full=True)
            read += batch.num_rows

    def read_rows(self, part: range) -> tuple[list[Row], Any]:
        """Return the rows of a part, and their table; cheap where parts follow each other."""
        with self._explain_damage(f"rows {part.start + 1} to {part.stop}"):
            table = self._read_part(part)
            queries, documents = read_table(table, self.query_column, self.documents_column)
        rows = [
            check_row(number, query, texts, f"{self.path.name}, row {number + 1}")
            for number, query, texts in zip(part, queries, documents, strict=True)
        ]
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
        parquet.write_table(add_columns(table, self.added_columns, finished), sink, compression="zstd")
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
            if self._rest is None or self._rest.num_rows == 0:
                self._rest = next(self._batches, None)
                if self._rest is None:
                    raise OSError("fewer rows than the file says")
            skipped = min(max(part.start - self._next_row, 0), self._rest.num_rows)
            piece = self._rest.slice(skipped, part.stop - self._next_row - skipped)
            self._rest = self._rest.slice(skipped + piece.num_rows)
            self._next_row += skipped + piece.num_rows
            if piece.num_rows:
                pieces.append(piece)
        return arrow.Table.from_batches(pieces)

    def _group_of(self, row: int) -> int:
        return sum(end <= row for end in self._group_ends)

    def _seek(self, row: int) -> None:
        group = self._group_of(row)
        self._next_row = self._group_ends[group - 1] if group else 0
        self._rest = None
        self._batches = self._open().iter_batches(
            batch_size=_ROWS_AT_ONCE, row_groups=list(range(group, len(self._group_ends)))
        )


def check_columns(schema: Any, query_column: str, documents_column: str) -> None:
    """Check that a table has one column of strings and one of lists of strings.

    Raises:
        ConfigurationError: one is missing, occurs twice, or has another type; names the columns that there are.
    """
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    for column, wanted in ((query_column, "strings"), (documents_column, "lists of strings")):
        found = schema.names.count(column)
        if found == 0:
            raise ConfigurationError(f"no column {column!r}: there is {', '.join(schema.names) or 'none'}")
        if found > 1:
            raise ConfigurationError(f"there are {found} columns {column!r}: rename all but one")
        kind = schema.field(column).type
        text = kind.value_type if wanted != "strings" and _is_list(arrow.types, kind) else kind
        if (wanted != "strings") == (text is kind) or not _is_string(arrow.types, text):
            raise ConfigurationError(f"the column {column!r} is of {kind}: give {wanted}")


def read_table(table: Any, query_column: str, documents_column: str) -> tuple[list[Any], list[Any]]:
    """Return the values of the two columns."""
    return table.column(query_column).to_pylist(), table.column(documents_column).to_pylist()


def add_columns(table: Any, names: Sequence[str], outcomes: Sequence[Outcome]) -> Any:
    """Return an Arrow table with the columns of one outcome per row; nulls for a row that failed."""
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    kinds = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64()}
    usage_kind = arrow.struct([(name, kinds[type(value)]) for name, value in usage_to_dict(Usage()).items()])
    columns = (
        (arrow.list_(arrow.int64()), [None if row.error is not None else list(row.indices) for row in outcomes]),
        (arrow.list_(arrow.float64()), [None if row.error is not None else list(row.scores) for row in outcomes]),
        (usage_kind, [usage_to_dict(row.usage) for row in outcomes]),
    )
    for name, (kind, values) in zip(names, columns, strict=True):
        table = table.append_column(name, arrow.array(values, kind))
    return table


def _is_list(types: Any, kind: Any) -> bool:
    checks = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(types, check)(kind) for check in checks if hasattr(types, check))


def _is_string(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = ("is_string", "is_large_string", "is_string_view", "is_null")
    return any(getattr(types, check)(kind) for check in checks if hasattr(types, check))
