"""Rows of the input, the outcome of each, and both as columns of Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rerank_core._call.request import check_query, read_texts
from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.types import Ranking
from rerank_core.usage import Usage

_STRINGS = ("string", "large_string", "string_view", "null")
"""Arrow's types of texts, and of a column without any."""


class Columns(NamedTuple):
    """Names of columns: those that are read, and those that are added, for indices, scores and usage."""

    query: str
    documents: str
    added: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input, by its position from 0; ``error`` says why it cannot be reranked, else None."""

    number: int
    query: str = ""
    documents: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row: positions and scores of the surviving candidates, best first; or why it failed.

    Then ``error`` is the name of the exception's class, and ``reason`` its message.
    """

    number: int
    indices: Sequence[int] = ()
    scores: Sequence[float] = ()
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    reason: str | None = None

    @classmethod
    def from_ranking(cls, number: int, ranking: Ranking[Any]) -> Outcome:
        """Return what came of scoring a row."""
        scores = [document.score for document in ranking if document.score is not None]
        return cls(number, [document.index for document in ranking], scores, ranking.usage)

    @classmethod
    def from_error(cls, number: int, error: Exception) -> Outcome:
        """Return the outcome of a row that failed."""
        usage = error.usage if isinstance(error, ScorerError) else None
        return cls(number, usage=usage or Usage(), error=type(error).__name__, reason=str(error))

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON takes it."""
        entry: dict[str, Any] = {"row": self.number, "usage": usage_to_dict(self.usage)}
        if self.error is None:
            return {**entry, "indices": list(self.indices), "scores": list(self.scores)}
        return {**entry, "error": self.error, "reason": self.reason}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Outcome:
        """Return the outcome that :meth:`to_dict` described."""
        fields = {name: value for name, value in entry.items() if name not in ("row", "usage")}
        return cls(entry["row"], usage=Usage(**entry["usage"]), **fields)


def check_row(number: int, query: object, documents: object, place: str) -> Row:
    """Return a row; where the values are no query and no list of strings, its error says so, and the place."""
    try:
        if not isinstance(documents, list):
            raise ConfigurationError(f"the documents are a {type(documents).__name__}: give a list of strings")
        texts = read_texts(documents, None)
        return Row(number, check_query(query) if texts else "", texts)
    except ConfigurationError as exc:
        return Row(number, error=f"{place}: {exc}")


def describe_clash(names: Collection[str], columns: Columns) -> str | None:
    """Return what is wrong where the input has a column of the same name as one that is added, else None."""
    taken = [name for name in columns.added if name in names]
    return f"there is a column {taken[0]!r} already: give prefix=" if taken else None


def usage_to_dict(usage: Usage) -> dict[str, Any]:
    """Return a usage as the ``usage`` column holds it: without the time, which rows scored together share."""
    return {name: value for name, value in usage.to_dict().items() if name != "seconds"}


def subtract_usage(usage: Usage, earlier: Usage) -> Usage:
    """Return what was consumed since."""
    before = earlier.to_dict()
    difference: dict[str, Any] = {
        name: None if value is None or before[name] is None else value - before[name]
        for name, value in usage.to_dict().items()
    }
    return Usage(**{**difference, "estimated": usage.estimated})


def check_columns(schema: Any, columns: Columns) -> None:
    """Check that a table has a column of strings and one of lists of strings, and none of those that are added."""
    types = require("pyarrow", extra="ray", purpose="Arrow tables").types
    for column, wanted in ((columns.query, "strings"), (columns.documents, "lists of strings")):
        found = schema.names.count(column)
        if found == 0:
            raise ConfigurationError(f"no column {column!r}: there is {', '.join(schema.names) or 'none'}")
        if found > 1:
            raise ConfigurationError(f"there are {found} columns {column!r}: rename all but one")
        kind = schema.field(column).type
        is_list = types.is_nested(kind) and hasattr(kind, "value_type") and not types.is_run_end_encoded(kind)
        text = kind.value_type if is_list else kind
        text = text.value_type if types.is_dictionary(text) else text
        if is_list != (wanted == "lists of strings") or str(text) not in _STRINGS:
            raise ConfigurationError(f"the column {column!r} is of {kind}: give {wanted}")
    clash = describe_clash(schema.names, columns)
    if clash is not None:
        raise ConfigurationError(clash)


def read_table(table: Any, columns: Columns, place: Callable[[int], str], *, first: int = 0) -> list[Row]:
    """Return the rows of an Arrow table; the first one's number is ``first``, and ``place`` names one."""
    queries, documents = (table.column(name).to_pylist() for name in (columns.query, columns.documents))
    pairs = enumerate(zip(queries, documents, strict=True), first)
    return [check_row(number, query, texts, place(number)) for number, (query, texts) in pairs]


def add_columns(table: Any, columns: Columns, outcomes: Sequence[Outcome]) -> Any:
    """Return an Arrow table with the columns of one outcome per row; nulls for a row that failed."""
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    kinds = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64()}
    usage_kind = arrow.struct([(name, kinds[type(value)]) for name, value in usage_to_dict(Usage()).items()])
    added = (
        (arrow.list_(arrow.int64()), [None if row.error is not None else list(row.indices) for row in outcomes]),
        (arrow.list_(arrow.float64()), [None if row.error is not None else list(row.scores) for row in outcomes]),
        (usage_kind, [usage_to_dict(row.usage) for row in outcomes]),
    )
    for name, (kind, values) in zip(columns.added, added, strict=True):
        table = table.append_column(name, arrow.array(values, kind))
    return table
