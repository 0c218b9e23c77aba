"""Maximal marginal relevance over a reranked list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scorers import Answers

from rerank_core import ConfigurationError, RankedDocument, Ranking, Reranker, ScorerError
from rerank_core.diversity import diversify, similarity_of_vectors, similarity_of_words
from rerank_core.testing import FakeScorer

fractions = st.floats(0.0, 1.0)


def ranked(scores: Sequence[float], texts: Sequence[str] = ()) -> Ranking[str]:
    """Return a ranking with these scores."""
    return Reranker(Answers(list(scores))).rerank("query", texts or [f"text {n}" for n in range(len(scores))])


@given(st.lists(fractions, max_size=8), st.one_of(st.none(), st.integers(1, 10)))
def test_a_weight_of_1_is_the_plain_ranking(scores: list[float], top_n: int | None) -> None:
    """Without asking for a similarity."""
    ranking = ranked(scores) if scores else Reranker(FakeScorer()).rerank("query", [])
    assert diversify(ranking, weight=1.0, top_n=top_n).documents == ranking.documents[:top_n]


@given(st.lists(st.tuples(fractions, fractions, fractions), min_size=1, max_size=7), fractions)
def test_it_takes_the_most_marginally_relevant_each_time(
    rows: list[tuple[float, float, float]], weight: float
) -> None:
    """As the definition says, checked against a plain reading of it."""
    ranking = ranked([score for score, _, _ in rows])

    def similarity(left: RankedDocument[Any], right: RankedDocument[Any]) -> float:
        return sum(rows[left.index][axis] * rows[right.index][axis] for axis in (1, 2))

    left, expected = list(ranking), []
    while left:
        values = [
            weight * (found.score or 0.0)
            - (1.0 - weight) * max((similarity(taken, found) for taken in expected), default=0.0)
            for found in left
        ]
        expected.append(left.pop(values.index(max(values))))
    diverse = diversify(ranking, weight=weight, similarity=similarity)
    assert [found.index for found in diverse] == [found.index for found in expected]
    assert [found.rank for found in diverse] == list(range(1, len(rows) + 1))
    assert {found.index: found.score for found in diverse} == dict(enumerate(ranking.scores))


def test_no_more_similarities_than_needed() -> None:
    """For k of n, fewer than n × k."""
    asked = []

    def similarity(left: RankedDocument[Any], right: RankedDocument[Any]) -> float:
        asked.append((left.index, right.index))
        return 0.0

    diversify(ranked([0.5] * 10), top_n=3, similarity=similarity)
    assert len(asked) == 9 + 8


def test_words_in_common() -> None:
    """Letters' case and punctuation do not count, the order of words a little."""
    ranking = ranked([0.9, 0.8, 0.7, 0.6], ["A leak, here!", "a leak here", "here a leak", "…"])
    similarity = similarity_of_words(ranking)
    assert similarity(ranking[0], ranking[1]) == 1.0
    assert similarity(ranking[0], ranking[2]) == pytest.approx(4 / 6)
    assert similarity(ranking[0], ranking[3]) == similarity(ranking[3], ranking[3]) == 0.0


def test_vectors_of_the_vector_store() -> None:
    """Cosines, by the position in the caller's input; a vector of zeros is like nothing."""
    vectors = [[3.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    ranking = ranked([0.1, 0.2, 0.3, 0.4])
    similarity = similarity_of_vectors(vectors)
    by_index = {found.index: found for found in ranking}
    assert similarity(by_index[0], by_index[1]) == 1.0
    assert similarity(by_index[0], by_index[2]) == pytest.approx(math.sqrt(0.5))
    assert similarity(by_index[0], by_index[3]) == 0.0
    duplicates = diversify(ranked([0.9, 0.9, 0.8, 0.0]), similarity=similarity, weight=0.5, top_n=2)
    assert [found.index for found in duplicates] == [0, 2]


def test_numpy_vectors_are_vectors() -> None:
    """An array of embeddings can be given as it is."""
    numpy = pytest.importorskip("numpy")
    ranking = ranked([0.9, 0.8])
    assert similarity_of_vectors(numpy.eye(2, dtype="float32"))(ranking[0], ranking[1]) == 0.0


def test_a_passthrough_keeps_its_order() -> None:
    """What has no scores is only cut."""
    broken = Reranker(FakeScorer(error=ScorerError("down")), on_error="passthrough").rerank(
        "query", ["a", "a", "b"]
    )
    assert [found.index for found in diversify(broken, top_n=2)] == [0, 1]


@pytest.mark.parametrize("options", [{"weight": 1.5}, {"weight": True}, {"weight": "1"}, {"top_n": 0}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    """Each message names the option."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        diversify(ranked([0.5]), **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, "much", None])
def test_a_similarity_must_be_a_number(value: Any) -> None:
    """The message shows what came instead."""
    with pytest.raises(ConfigurationError, match="give a finite number"):
        diversify(ranked([0.5, 0.4]), similarity=lambda left, right: value)


def test_vectors_must_fit() -> None:
    """As many as documents, and all of one length."""
    with pytest.raises(ConfigurationError, match="differ in length"):
        similarity_of_vectors([[1.0], [1.0, 2.0]])
    with pytest.raises(ConfigurationError, match="there are 1 vectors, and a document with index 1"):
        diversify(ranked([0.5, 0.4]), similarity=similarity_of_vectors([[1.0]]))
