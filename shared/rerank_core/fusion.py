"""Fusion: one ranking from several, or from a ranking and the first stage's scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

from rerank_core._call.scores import find_ranks, read_scores, stretch
from rerank_core._support.checks import check_choice, check_count, check_finite
from rerank_core.errors import ConfigurationError
from rerank_core.selection import Selection, check_selection
from rerank_core.types import RankedDocument, Ranking
from rerank_core.usage import Usage

__all__ = ["FusionMethod", "fuse", "fuse_ranks"]

D = TypeVar("D")
K = TypeVar("K", bound=Hashable)
FusionMethod = Literal["rrf", "weighted"]
"""``rrf``: by ranks, whatever the scores' scales; ``weighted``: by scores, each list stretched to [0, 1]."""


def fuse(
    ranking: Ranking[D],
    *others: Ranking[Any] | Sequence[float | None],
    method: FusionMethod = "rrf",
    weights: Sequence[float] | None = None,
    rank_constant: int = 60,
    selection: Selection = Selection(),  # noqa: B008 - frozen
) -> Ranking[D]:
    """Combine lists that score the same documents.

    ``"rrf"`` is reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), divided by the score of a
    document that is first in every list: Σ wᵢ · (c + 1) / (c + rankᵢ) / Σ wᵢ over the lists i, where c is the rank
    constant. Equal scores share the best of their ranks. ``"weighted"`` is
    Σ wᵢ · (sᵢ − minᵢ) / (maxᵢ − minᵢ) / Σ wᵢ; if all scores of a list are equal, each counts as 1. With both,
    a document gets nothing from a list that does not score it, a list without any score does not count, and scores
    are in [0, 1]. Raising one score never lowers the document's rank.

    Args:
        ranking: a ranking; the result has the documents that survived in it or in another ranking.
        others: rankings of the same documents, or scores in the order of the same input, on any scale, higher is
            better; None for a document that a list lacks. A passthrough has no scores, so it does not count.
        method: see :data:`FusionMethod`.
        weights: one number per list, the ranking's first, at least 0 and not all 0; equal by default.
        rank_constant: flattens the difference between the first ranks; at least 1; 60 is the paper's.
        selection: which documents of the result survive.

    Raises:
        ConfigurationError: the lists are not of the same documents.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> ranking = Reranker(FakeScorer()).rerank("leak", ["a leak", "tea", "a leak in the roof"])
    >>> fused = fuse(ranking, [11.0, 2.0, 7.5])
    >>> [(ranked.document, round(ranked.score, 3)) for ranked in fused]
    [('a leak', 0.992), ('a leak in the roof', 0.992), ('tea', 0.968)]
    """
    check_choice("method", method, get_args(FusionMethod))
    check_count("rank_constant", rank_constant)
    check_selection(selection)
    if not others:
        raise ConfigurationError("there is nothing to fuse the ranking with: give scores or other rankings too")
    rankings = [ranking, *(other for other in others if isinstance(other, Ranking))]
    lists = [_read_list(ranking, position, entry) for position, entry in enumerate([ranking, *others])]
    documents = _collect_documents(rankings)
    constant = rank_constant if method == "rrf" else None
    fused = _combine([_scale(scores, constant) for scores in lists], _check_weights(weights, len(lists)))
    scores = [fused.get(index, 0.0) if fused else None for index in range(len(ranking.scores))]
    order = sorted(documents)[: None if fused else selection.top_n]
    if fused:
        order = [order[slot] for slot in selection.select([fused.get(index, 0.0) for index in order])]
    names = [entry.model if isinstance(entry, Ranking) else "scores" for entry in (ranking, *others)]
    return Ranking(
        ranking.query,
        f"{method}({', '.join(names)})",
        tuple(
            replace(documents[index], rank=rank, score=scores[index]) for rank, index in enumerate(order, start=1)
        ),
        tuple(scores),
        usage=sum((each.usage for each in rankings), Usage()),
        error=None if fused else ranking.error,
        attempts=tuple(attempt for each in rankings for attempt in each.attempts),
    )


def fuse_ranks(
    lists: Sequence[Sequence[K]], *, weights: Sequence[float] | None = None, rank_constant: int = 60
) -> dict[K, float]:
    """Combine ranked lists of keys by reciprocal rank fusion, as :func:`fuse` combines rankings.

    Args:
        lists: keys, best first; a key that a list repeats counts at its best rank.
        weights: as for :func:`fuse`.
        rank_constant: as for :func:`fuse`.

    Returns:
        The score of each key, in [0, 1], best first; of equal scores, the key that was found first.

    Raises:
        ConfigurationError: an option is out of its range.

    >>> fuse_ranks([["a", "b"], ["b", "c"]])
    {'b': 0.9919354838709677, 'a': 0.5, 'c': 0.49193548387096775}
    """
    check_count("rank_constant", rank_constant)
    parts = [
        {key: (rank_constant + 1) / (rank_constant + rank) for key, rank in find_ranks(keys).items()}
        for keys in lists
    ]
    fused = _combine(parts, _check_weights(weights, len(lists)))
    found = dict.fromkeys(key for keys in lists for key in keys)
    return {key: fused.get(key, 0.0) for key in sorted(found, key=lambda key: -fused.get(key, 0.0))}


def _combine(lists: Sequence[Mapping[K, float]], weights: Sequence[float]) -> dict[K, float]:
    """Return the weighted mean of each key's values, in [0, 1]; a key without a value in a list gets 0 from it."""
    parts = [(weight, values) for weight, values in zip(weights, lists, strict=True) if weight and values]
    total = sum(weight for weight, _ in parts)
    # fsum rounds once, so the order of the lists changes no digit.
    return {
        key: min(1.0, math.fsum(weight * values.get(key, 0.0) for weight, values in parts) / total)
        for key in {key: None for values in lists for key in values if parts}
    }


def _scale(scores: Sequence[float | None], constant: int | None) -> dict[int, float]:
    """Return the scores in [0, 1], by index: (c + 1) / (c + rank), without a constant c stretched."""
    known = {index: score for index, score in enumerate(scores) if score is not None}
    if constant is None:
        return dict(zip(known, stretch(list(known.values())), strict=True))
    ranks = find_ranks(sorted(known.values(), reverse=True))
    return {index: (constant + 1) / (constant + ranks[score]) for index, score in known.items()}


def _collect_documents(rankings: Sequence[Ranking[Any]]) -> dict[int, RankedDocument[Any]]:
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


def _read_list(ranking: Ranking[Any], position: int, entry: object) -> list[float | None]:
    if isinstance(entry, Ranking):
        if entry.query != ranking.query:
            raise ConfigurationError("the rankings are of different queries: fuse rankings of one query")
        entry = entry.scores
    return read_scores(f"others[{position - 1}]", entry, len(ranking.scores))


def _check_weights(weights: object, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if isinstance(weights, (str, bytes)) or not hasattr(weights, "__iter__"):
        raise ConfigurationError(f"weights is {weights!r}: give one number per list")
    numbers = [check_finite("a weight", weight) for weight in weights]
    if len(numbers) != count:
        raise ConfigurationError(f"{len(numbers)} weights for {count} lists: give one per list")
    if min(numbers) < 0.0 or not 0.0 < sum(numbers) < math.inf:
        raise ConfigurationError(f"weights is {numbers}: none may be below 0, nor all be 0")
    return numbers
