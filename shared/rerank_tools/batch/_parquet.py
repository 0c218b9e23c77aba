"""Parquet files, and nothing but the row groups that hold what is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_tools.batch._arrow import check_columns, with_columns
from rerank_tools.batch._rows import Outcome, Row, checked_row
from rerank_tools.batch._source import Source, clash, digest
from rerank_tools.batch.options import BatchOptions

__all__ = ["ParquetSource"]


class ParquetSource(Source):
    """A Parquet file; the output keeps its columns and their types."""

    suffix = ".parquet"

    def __init__(self, path: Path, options: BatchOptions) -> None:
        self.path = path
        self._query = options.query_column
        self._documents = options.documents_column
        self._columns = options.columns
        self._stream: Iterator[Any] = iter(())
        self._left: Any = None
        self._at = 0
        self.sha256 = digest(path)
        with self._opened() as file:
            self._ends = list(
                accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
            )
            self.rows = file.metadata.num_rows
            schema = file.schema_arrow
        try:
            check_columns(schema, self._query, self._documents)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{path.name}: {exc}") from None
        if (taken := clash(schema.names, self._columns)) is not None:
            raise ConfigurationError(f"{path.name}: {taken}")

    def _opened(self) -> Any:
        arrow = require("pyarrow", extra="ray", purpose=f"reading {self.path.name}")
        parquet = require("pyarrow.parquet", extra="ray", purpose=f"reading {self.path.name}")
        try:
            return parquet.ParquetFile(self.path)
        except arrow.ArrowInvalid as exc:
            raise ConfigurationError(f"{self.path} is not Parquet: {str(exc).partition('.')[0]}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None, "_left": None, "_at": self.rows + 1}

    def read(self, part: range) -> tuple[list[Row], Any]:
        """Return the rows of a part, and their table; cheap where parts follow each other."""
        table = self._table(part)
        queries = table.column(self._query).to_pylist()
        lists = table.column(self._documents).to_pylist()
        rows = [
            checked_row(number, query, documents, f"{self.path.name}, row {number + 1}")
            for number, query, documents in zip(part, queries, lists, strict=True)
        ]
        return rows, table

    def rendered(self, held: Any, part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return a Parquet file of the rows that have a result."""
        arrow = require("pyarrow", extra="ray", purpose="writing Parquet")
        parquet = require("pyarrow.parquet", extra="ray", purpose="writing Parquet")
        done = [number for number in part if outcomes[number].error is None]
        table = held.take(arrow.array([number - part.start for number in done], arrow.int64()))
        table = with_columns(table, self._columns, [outcomes[number] for number in done])
        sink = arrow.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd")
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def _table(self, part: range) -> Any:
        arrow = require("pyarrow", extra="ray", purpose=f"reading {self.path.name}")
        if not self._reachable(part.start):
            self._seek(part.start)
        pieces: list[Any] = []
        while self._at < part.stop:
            if self._left is None or self._left.num_rows == 0:
                self._left = next(self._stream)
            wanted = part.start - self._at
            if wanted > 0:
                skipped = min(wanted, self._left.num_rows)
                self._left = self._left.slice(skipped)
                self._at += skipped
                continue
            piece = self._left.slice(0, part.stop - self._at)
            self._left = self._left.slice(piece.num_rows)
            self._at += piece.num_rows
            pieces.append(piece)
        return arrow.Table.from_batches(pieces)

    def _reachable(self, row: int) -> bool:
        """Tell whether reading on is the way to a row: it lies ahead, in this row group or at its end."""
        return self._at <= row and self._group(row) <= self._group(self._at) + 1 and self._at > 0

    def _group(self, row: int) -> int:
        return sum(end <= row for end in self._ends)

    def _seek(self, row: int) -> None:
        group = self._group(row)
        file = self._opened()
        self._at = self._ends[group - 1] if group else 0
        self._left = None
        self._stream = file.iter_batches(batch_size=1024, row_groups=list(range(group, len(self._ends))))
