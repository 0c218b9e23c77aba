"""JSON lines: one object per line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rerank_core.errors import ConfigurationError
from rerank_tools.batch.rows import Outcome, Row, check_row, usage_to_dict
from rerank_tools.batch.sources.base import Source, describe_clash
from rerank_tools.records import parse_json_object

__all__ = ["JsonLinesSource"]


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

    def read_rows(self, part: range) -> tuple[list[Row], list[dict[str, Any]]]:
        """Return the rows of a part, and the object of each."""
        rows: list[Row] = []
        items: list[dict[str, Any]] = []
        offset, first_line = self._starts[part.start // self.rows_per_part]
        with self.path.open("rb") as file:
            file.seek(offset)
            for number, line in enumerate(file, start=first_line):
                if len(rows) == len(part):
                    break
                if not line.isspace():
                    row, item = self._parse_row(part.start + len(rows), line, number)
                    rows.append(row)
                    items.append(item)
        return rows, items

    def _parse_row(self, number: int, line: bytes, line_number: int) -> tuple[Row, dict[str, Any]]:
        try:
            item = parse_json_object(line, source=self.path.name, line=line_number)
        except ConfigurationError as exc:
            return Row(number, error=str(exc)), {}
        place = f"{self.path.name}, line {line_number}"
        for column in (self.query_column, self.documents_column):
            if column not in item:
                return Row(number, error=f"{place}: no column {column!r}: add it, or name another one"), item
        clash = describe_clash(list(item), self.added_columns)
        if clash is not None:
            return Row(number, error=f"{place}: {clash}"), item
        return check_row(number, item[self.query_column], item[self.documents_column], place), item

    def render(self, held: list[dict[str, Any]], part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return the objects that have a result, with three more fields, one per line."""
        indices, scores, usage = self.added_columns
        lines = []
        for number, item in zip(part, held, strict=True):
            outcome = outcomes[number]
            if outcome.error is None:
                added = {
                    indices: list(outcome.indices),
                    scores: list(outcome.scores),
                    usage: usage_to_dict(outcome.usage),
                }
                lines.append(_encode({**item, **added}))
        return b"".join(lines)


def _encode(item: dict[str, Any]) -> bytes:
    try:
        return json.dumps(item, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(item).encode() + b"\n"
