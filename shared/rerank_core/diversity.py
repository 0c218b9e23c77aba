"""Diversity: the best documents that do not repeat each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import mul
from typing import Any, TypeVar

from rerank_core._support.checks import check_count, check_finite, check_fraction
from rerank_core.errors import ConfigurationError
from rerank_core.types import RankedDocument, Ranking

__all__ = ["Similarity", "diversify", "similarity_of_vectors", "similarity_of_words"]

D = TypeVar("D")
Similarity = Callable[[RankedDocument[Any], RankedDocument[Any]], float]
"""How alike two documents are: 1.0 for the same, 0.0 for nothing in common; cosines may be negative."""


def diversify(
    ranking: Ranking[D],
    *,
    weight: float = 0.7,
    top_n: int | None = None,
    similarity: Similarity | None = None,
) -> Ranking[D]:
    """Reorder a ranking by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Repeatedly takes the document with the highest weight × score − (1 − weight) × similarity, where the similarity
    is that to the most similar document taken before, and the score is what the ranks follow:
    ``ranking.mixed_scores`` where there are any. Scores are not changed, so they no longer fall from rank to
    rank. Ties go to the document that ranked higher. A ranking without scores (passthrough) keeps its order.

    Args:
        ranking: the candidates; give the Reranker no ``top_n``, or a generous one.
        weight: λ, the weight of relevance against novelty, from 0.0 to 1.0; 1.0 keeps the ranking as it is.
        top_n: how many documents to keep, at least 1; None for all. At most ``len(ranking) × top_n`` similarities
            are computed.
        similarity: by default of the words in the passages; see :func:`similarity_of_vectors` for embeddings.

    Raises:
        ConfigurationError: a similarity is no finite number.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> texts = ["a leak in the roof", "a leak in the roof!", "leak detection for Python"]
    >>> ranking = Reranker(FakeScorer(lambda query, text: 0.9 if "roof" in text else 0.8)).rerank("leak", texts)
    >>> [ranked.document for ranked in diversify(ranking, top_n=2)]
    ['a leak in the roof', 'leak detection for Python']
    """
    share = check_fraction("weight", weight)
    if top_n is not None:
        check_count("top_n", top_n)
    count = len(ranking) if top_n is None else min(top_n, len(ranking))
    if share == 1.0 or any(ranked.score is None for ranked in ranking):
        taken = list(ranking.documents[:count])
    else:
        taken = _take(ranking, count, share, similarity or similarity_of_words(ranking))
    documents = tuple(replace(ranked, rank=rank) for rank, ranked in enumerate(taken, start=1))
    return replace(ranking, documents=documents)


def similarity_of_vectors(vectors: Sequence[Sequence[float]]) -> Similarity:
    """Return the cosine of the documents' vectors, such as the embeddings that a vector store has already.

    Args:
        vectors: one for each document of the caller's input, in its order (not the ranking's), all of one length.

    Raises:
        ConfigurationError: the vectors differ in length; by the similarity, where a document has no vector.
    """
    rows = [[float(number) for number in vector] for vector in vectors]
    if any(len(left) != len(right) for left, right in pairwise(rows)):
        raise ConfigurationError("the vectors differ in length: give embeddings of one model")
    unit = [_normalise(row) for row in rows]

    def similarity(left: RankedDocument[Any], right: RankedDocument[Any]) -> float:
        if max(left.index, right.index) >= len(unit):
            raise ConfigurationError(
                f"there are {len(unit)} vectors, and a document with index {max(left.index, right.index)}: "
                "give one vector for each document of the input"
            )
        return math.fsum(map(mul, unit[left.index], unit[right.index]))

    return similarity


def similarity_of_words(ranking: Ranking[Any]) -> Similarity:
    """Return the share of words and pairs of neighbouring words that two passages have in common (Jaccard)."""
    shingles = {ranked.index: _find_shingles(ranked.passage_text) for ranked in ranking}

    def similarity(left: RankedDocument[Any], right: RankedDocument[Any]) -> float:
        one, other = shingles[left.index], shingles[right.index]
        common = len(one & other)
        return common / ((len(one) + len(other) - common) or 1)

    return similarity


def _take(ranking: Ranking[D], count: int, weight: float, similarity: Similarity) -> list[RankedDocument[D]]:
    documents, values = ranking.documents, ranking.mixed_scores or ranking.scores
    scores = [values[each.index] or 0.0 for each in documents]
    left = dict(enumerate(documents))
    nearest = dict.fromkeys(left, -math.inf)  # similarity to the most similar one that was taken
    taken: list[RankedDocument[D]] = []

    def value(slot: int) -> float:
        return weight * scores[slot] - (1.0 - weight) * (nearest[slot] if taken else 0.0)

    while len(taken) < count:
        best = left.pop(max(left, key=value))  # the first of the best, and ``left`` is in the ranking's order
        if len(taken) + 1 < count:
            for slot, ranked in left.items():
                alike = check_finite("the similarity of two documents", similarity(best, ranked))
                nearest[slot] = max(nearest[slot], alike)
        taken.append(best)
    return taken


def _normalise(row: Sequence[float]) -> list[float]:
    length = math.hypot(*row)
    return [number / length for number in row] if length else list(row)


def _find_shingles(text: str) -> frozenset[str | tuple[str, str]]:
    words = "".join(char if char.isalnum() else " " for char in text.casefold()).split()
    return frozenset([*words, *pairwise(words)])
