"""JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from rerank_tools.batch._rows import Outcome, Row, checked_row, usage_row
from rerank_tools.batch._source import Source, clash
from rerank_tools.batch.options import BatchOptions

__all__ = ["JsonlSource"]


class JsonlSource(Source):
    """A file of JSON lines; blank lines are passed over, and a line that is no object is a row that fails."""

    suffix = ".jsonl"

    def __init__(self, path: Path, options: BatchOptions) -> None:
        self.path = path
        self._query = options.query_column
        self._documents = options.documents_column
        self._columns = options.columns
        self._step = options.rows_per_part
        # Where each part begins: offset in bytes, and lines before it.
        self._starts: list[tuple[int, int]] = []
        self._index()

    def _index(self) -> None:
        hashed = sha256()
        rows = offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                hashed.update(line)
                if not line.isspace():
                    if rows % self._step == 0:
                        self._starts.append((offset, number))
                    rows += 1
                offset += len(line)
        self.rows = rows
        self.sha256 = hashed.hexdigest()

    def read(self, part: range) -> tuple[list[Row], list[Any]]:
        """Return the rows of a part, and the object of each."""
        rows: list[Row] = []
        held: list[Any] = []
        offset, before = self._starts[part.start // self._step]
        with self.path.open("rb") as file:
            file.seek(offset)
            for line_number, line in enumerate(file, before + 1):
                if len(rows) == len(part):
                    break
                if not line.isspace():
                    row, item = self._row(part.start + len(rows), line, f"{self.path.name}, line {line_number}")
                    rows.append(row)
                    held.append(item)
        return rows, held

    def _row(self, number: int, line: bytes, where: str) -> tuple[Row, Any]:
        try:
            item = json.loads(line)
        except RecursionError:
            return Row(number, error=f"{where}: JSON that is nested too deeply: flatten it"), None
        except ValueError as exc:  # no JSON, no UTF-8, or a number of thousands of digits
            what = exc.msg if isinstance(exc, json.JSONDecodeError) else type(exc).__name__
            return Row(number, error=f"{where}: not JSON ({what}): mend the line"), None
        if not isinstance(item, dict):
            return Row(number, error=f"{where}: a {type(item).__name__}: give an object"), None
        for column in (self._query, self._documents):
            if column not in item:
                return Row(number, error=f"{where}: no column {column!r}: mend the line, or name another"), item
        taken = clash(list(item), self._columns)
        if taken is not None:
            return Row(number, error=f"{where}: {taken}"), item
        return checked_row(number, item[self._query], item[self._documents], where), item

    def rendered(self, held: list[Any], part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return the objects that have a result, with three more fields, a line each."""
        indices, scores, usage = self._columns
        lines = []
        for number, item in zip(part, held, strict=True):
            outcome = outcomes[number]
            if outcome.error is None:
                added = {
                    indices: list(outcome.indices),
                    scores: list(outcome.scores),
                    usage: usage_row(outcome.usage),
                }
                lines.append(_encoded({**item, **added}))
        return b"".join(lines)


def _encoded(item: Any) -> bytes:
    try:
        return json.dumps(item, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(item).encode() + b"\n"
