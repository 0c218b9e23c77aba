"""Fusion: one ranking of several, or of a ranking and the first stage's scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, TypeVar, get_args

from rerank_core._call.request import checked_selection
from rerank_core._support.checks import checked_count
from rerank_core.errors import ConfigurationError
from rerank_core.selection import Selection
from rerank_core.types import Attempt, RankedDocument, Ranking
from rerank_core.usage import Usage

__all__ = ["FusionMethod", "fuse"]

D = TypeVar("D")
FusionMethod = Literal["rrf", "weighted"]
"""``rrf``: by ranks, whatever the scores' scales; ``weighted``: by scores, each list stretched to [0, 1]."""


def fuse(
    ranking: Ranking[D],
    *others: Ranking[Any] | Sequence[float | None],
    method: FusionMethod = "rrf",
    weights: Sequence[float] | None = None,
    k: int = 60,
    selection: Selection = Selection(),  # noqa: B008 - frozen
) -> Ranking[D]:
    """Combine lists that score the same documents.

    ``"rrf"`` is reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), divided by what a document that
    is first in every list gets: a document's score is Σ wᵢ · (k + 1) / (k + rankᵢ) / Σ wᵢ, over the lists i. Equal
    scores share the best of their ranks. ``"weighted"`` is Σ wᵢ · (sᵢ − minᵢ) / (maxᵢ − minᵢ) / Σ wᵢ; where all
    scores of a list are equal, each counts as 1. Either way, a document that a list does not score gets nothing
    from it, a list without any score does not count, and scores are in [0, 1]. Raising one score never lowers
    the document's rank.

    Args:
        ranking: a ranking; the result's documents are those that survived in it, or in another one.
        others: rankings of the same documents, or scores in the order of the same input, on any scale, higher is
            better; None for a document that a list lacks. A passthrough has no score at all, and does not count.
        method: see :data:`FusionMethod`.
        weights: one number a list, the ranking's first, at least 0 and not all 0; by default equal.
        k: how little the first ranks count more than the rest, at least 1; 60 is the paper's.
        selection: which documents of the result survive.

    Raises:
        ConfigurationError: an option is out of its range, or the lists are not of the same documents.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> ranking = Reranker(FakeScorer()).rerank("leak", ["a leak", "tea", "a leak in the roof"])
    >>> fused = fuse(ranking, [11.0, 2.0, 7.5])
    >>> [(ranked.document, round(ranked.score, 3)) for ranked in fused]
    [('a leak', 0.992), ('a leak in the roof', 0.992), ('tea', 0.968)]
    """
    if method not in get_args(FusionMethod):
        raise ConfigurationError(f"method is {method!r}: give one of {', '.join(get_args(FusionMethod))}")
    checked_count("k", k, least=1)
    checked_selection(selection)
    if not others:
        raise ConfigurationError("there is nothing to fuse the ranking with: give scores or other rankings too")
    rankings = [ranking, *(other for other in others if isinstance(other, Ranking))]
    lists = [_checked_list(ranking, position, entry) for position, entry in enumerate([ranking, *others])]
    documents = _documents(rankings)
    parts = [
        (weight, _by_rank(scores, k) if method == "rrf" else _stretched(scores))
        for weight, scores in zip(_checked_weights(weights, len(lists)), lists, strict=True)
        if weight and any(score is not None for score in scores)
    ]
    total = sum(weight for weight, _ in parts)
    scores: list[float | None] = [None] * len(ranking.scores)
    if parts:
        # fsum rounds once, so that the order of the lists changes no digit.
        sums = [math.fsum(weight * part[index] for weight, part in parts) for index in range(len(scores))]
        scores = [min(1.0, value / total) for value in sums]
    order = _order(scores, documents, selection)
    attempts: list[Attempt] = [attempt for each in rankings for attempt in each.attempts]
    return Ranking(
        ranking.query,
        f"{method}({', '.join(_name(entry) for entry in [ranking, *others])})",
        tuple(
            RankedDocument(found.document, found.text, index, rank, scores[index], found.passage)
            for rank, index in enumerate(order, start=1)
            for found in [documents[index]]
        ),
        tuple(scores),
        sum((each.usage for each in rankings), Usage()),
        None if parts else ranking.error,
        tuple(attempts),
    )


def _by_rank(scores: Sequence[float | None], k: int) -> list[float]:
    """Return (k + 1) / (k + rank) of each, where rank is 1 + how many are better; 0 where there is no score."""
    ranks: dict[float, int] = {}
    for rank, score in enumerate(sorted((score for score in scores if score is not None), reverse=True), start=1):
        ranks.setdefault(score, rank)
    return [0.0 if score is None else (k + 1) / (k + ranks[score]) for score in scores]


def _stretched(scores: Sequence[float | None]) -> list[float]:
    known = [score for score in scores if score is not None]
    low, high = min(known), max(known)
    # By halves: the difference of two floats may be beyond all floats.
    span = high / 2 - low / 2
    return [0.0 if s is None else (s / 2 - low / 2) / span if span > 0.0 else 1.0 for s in scores]


def _order(
    scores: Sequence[float | None], documents: dict[int, RankedDocument[Any]], selection: Selection
) -> list[int]:
    candidates = sorted(documents)
    known = [scores[index] for index in candidates]
    if any(score is None for score in known):
        return candidates[: selection.top_n]
    return [candidates[slot] for slot in selection.select([score or 0.0 for score in known])]


def _documents(rankings: Sequence[Ranking[Any]]) -> dict[int, RankedDocument[Any]]:
    """Return what survived in any of the rankings, by index; the first ranking's, or the first with a passage."""
    documents: dict[int, RankedDocument[Any]] = {}
    for ranking in rankings:
        for ranked in ranking:
            known = documents.setdefault(ranked.index, ranked)
            if known.text != ranked.text:
                raise ConfigurationError(
                    f"the rankings have different documents at index {ranked.index}: "
                    "fuse rankings of the same documents in the same order"
                )
            if known.passage is None and ranked.passage is not None:
                documents[ranked.index] = ranked
    return documents


def _checked_list(ranking: Ranking[Any], position: int, entry: object) -> list[float | None]:
    if isinstance(entry, Ranking):
        if entry.query != ranking.query:
            raise ConfigurationError("the rankings are of different queries: fuse rankings of one query")
        entry = entry.scores
    if isinstance(entry, (str, bytes)) or not hasattr(entry, "__iter__"):
        raise ConfigurationError(f"list {position} is a {type(entry).__name__}: give a Ranking or scores")
    scores = list(entry)
    if len(scores) != len(ranking.scores):
        raise ConfigurationError(
            f"list {position} has {len(scores)} scores for {len(ranking.scores)} documents: give one each, or None"
        )
    return [None if score is None else _checked_number(f"a score of list {position}", score) for score in scores]


def _checked_weights(weights: object, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if isinstance(weights, (str, bytes)) or not hasattr(weights, "__iter__"):
        raise ConfigurationError(f"weights is {weights!r}: give one number a list")
    numbers = [_checked_number("a weight", weight) for weight in weights]
    if len(numbers) != count:
        raise ConfigurationError(f"{len(numbers)} weights for {count} lists: give one each, the ranking's first")
    if min(numbers) < 0.0 or not 0.0 < sum(numbers) < math.inf:
        raise ConfigurationError(f"weights is {numbers}: none may be below 0, nor all be 0")
    return numbers


def _checked_number(name: str, value: object) -> float:
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not math.isfinite(number):
        raise ConfigurationError(f"{name} is {value!r}: give a finite number")
    return number


def _name(entry: object) -> str:
    return entry.model if isinstance(entry, Ranking) else "scores"
