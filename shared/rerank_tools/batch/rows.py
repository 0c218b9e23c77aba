"""Rows of the input, and the outcome of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerank_core._call.request import check_query, read_texts
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.types import Ranking
from rerank_core.usage import Usage

__all__ = ["Outcome", "Row", "check_row", "describe_clash", "subtract_usage", "usage_to_dict"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input: a query with its candidates.

    Attributes:
        number: position in the input, from 0.
        query: the query.
        documents: the candidates.
        error: why the row cannot be reranked; None where it can.
    """

    number: int
    query: str = ""
    documents: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row: a result, or a failure.

    Attributes:
        number: the row's position in the input, from 0.
        indices: positions of the surviving candidates, best first.
        scores: their relevance scores in [0, 1].
        usage: what the row consumed.
        error: the name of the exception's class where the row failed, else None.
        reason: the exception's message.
    """

    number: int
    indices: Sequence[int] = ()
    scores: Sequence[float] = ()
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    reason: str | None = None

    @classmethod
    def from_ranking(cls, number: int, ranking: Ranking[Any]) -> Outcome:
        """Return the outcome of a row that was scored."""
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
    """Return a row; where the values are not a query and its candidates, its ``error`` says why.

    Args:
        number: position in the input, from 0.
        query: should be a string that is not blank.
        documents: should be a list of strings.
        place: begins the error, such as ``"input.jsonl, line 8"``.
    """
    try:
        if not isinstance(documents, list):
            raise ConfigurationError(f"the documents are a {type(documents).__name__}: give a list of strings")
        texts = read_texts(documents, None)
        return Row(number, check_query(query) if texts else "", texts)
    except ConfigurationError as exc:
        return Row(number, error=f"{place}: {exc}")


def describe_clash(names: Collection[str], added: Sequence[str]) -> str | None:
    """Return what is wrong where the input has a column of the same name as one that is added, else None."""
    taken = [name for name in added if name in names]
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
