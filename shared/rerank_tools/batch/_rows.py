"""A row of the input, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerank_core._call.request import check_query, read_texts
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.types import Ranking
from rerank_core.usage import Usage

__all__ = ["COUNTED", "Outcome", "Row", "checked_row", "usage_of", "usage_row"]

COUNTED = (
    "requests",
    "documents",
    "tokens",
    "retries",
    "search_units",
    "truncated",
    "cached",
    "cost",
    "estimated",
)
"""Fields of the usage that a row keeps: without the time, which rows that are scored together share."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the input.

    Attributes:
        number: position in the input, from 0.
        query: the query.
        documents: the candidates.
        error: why it cannot be reranked, None where it can.
    """

    number: int
    query: str = ""
    documents: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        number: the row.
        indices: positions of the surviving candidates, best first.
        scores: their relevance scores in [0, 1].
        usage: what it consumed.
        error: name of the exception's class, where it failed.
        reason: the exception's message.
    """

    number: int
    indices: Sequence[int] = ()
    scores: Sequence[float] = ()
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, number: int, ranking: Ranking[Any]) -> Outcome:
        """Return the outcome of a row that was scored."""
        scores = [document.score for document in ranking if document.score is not None]
        return cls(number, [document.index for document in ranking], scores, ranking.usage)

    @classmethod
    def failed(cls, number: int, error: Exception) -> Outcome:
        """Return the outcome of a row that was not."""
        usage = error.usage if isinstance(error, ScorerError) else None
        return cls(number, usage=usage or Usage(), error=type(error).__name__, reason=str(error))

    def line(self) -> str:
        """Return the outcome as a line of JSON; numbers come back exactly."""
        what: dict[str, Any] = {"row": self.number, "usage": usage_row(self.usage)}
        if self.error is None:
            what |= {"indices": list(self.indices), "scores": list(self.scores)}
        else:
            what |= {"error": self.error, "reason": self.reason}
        return json.dumps(what)

    @classmethod
    def from_line(cls, line: str) -> Outcome | None:
        """Return the outcome that a line holds, None where it was torn."""
        try:
            what = json.loads(line)
            usage = usage_of(what["usage"])
            if "error" in what:
                return cls(what["row"], usage=usage, error=what["error"], reason=what["reason"])
            return cls(what["row"], what["indices"], what["scores"], usage)
        except (ValueError, TypeError, KeyError):
            return None


def checked_row(number: int, query: object, documents: object, where: str) -> Row:
    """Return a row, with the reason in it where its values are no query and candidates.

    Args:
        number: position in the input, from 0.
        query: should be a string that is not blank.
        documents: should be a list of strings.
        where: what the reason calls the row, such as ``"input.jsonl, line 8"``.
    """
    try:
        if not isinstance(documents, list):
            raise ConfigurationError(f"the documents are a {type(documents).__name__}: give a list of strings")
        texts = read_texts(documents, None)
        return Row(number, check_query(query) if texts else "", texts)
    except ConfigurationError as exc:
        return Row(number, error=f"{where}: {exc}")


def usage_row(usage: Usage) -> dict[str, Any]:
    """Return a usage as the columns hold it."""
    return {name: getattr(usage, name) for name in COUNTED}


def usage_of(row: Mapping[str, Any]) -> Usage:
    """Return the usage that :func:`usage_row` wrote."""
    return Usage(**{name: row[name] for name in COUNTED})
