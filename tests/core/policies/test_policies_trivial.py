"""Policies with nothing to do, one around the other, are the scorer that they are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import Ranking, Reranker, Scorer, Selection
from rerank_core.policies import Cascade, Fallback, Hedged, Windowed
from rerank_core.testing import FakeScorer

QUERY = "memory leak"
WRAPS: dict[str, Callable[[Scorer], Scorer]] = {
    "cascade": lambda scorer: Cascade([scorer, scorer], keep=[1000]),
    "fallback": lambda scorer: Fallback([scorer, FakeScorer(lambda query, text: 0.5)]),
    "hedged": lambda scorer: Hedged(scorer, delay=60.0),
    "windowed": Windowed,
}
TEXTS = st.lists(st.sampled_from(["memory", "a leak", "", " ", "memory leak"]) | st.text(max_size=20), max_size=12)


def outcome(ranking: Ranking[str]) -> list[tuple[int, float | None, object]]:
    """Return what a ranking says of each document."""
    return [(ranked.index, ranked.score, ranked.passage) for ranked in ranking]


@given(
    texts=TEXTS,
    order=st.lists(st.sampled_from(sorted(WRAPS)), min_size=1, max_size=4),
    top_n=st.none() | st.integers(1, 5),
    threshold=st.none() | st.floats(0.0, 1.0),
)
def test_policies_with_nothing_to_do(
    texts: list[str], order: list[str], top_n: int | None, threshold: float | None
) -> None:
    """Give what the bare scorer gives, whatever the order in which they are nested."""
    bare = FakeScorer(scale="logit")
    policy: Scorer = bare
    for name in order:
        policy = WRAPS[name](policy)
    selection = Selection(top_n=top_n, score_threshold=threshold)
    expected = Reranker(bare, selection=selection).rerank(QUERY, texts)
    ranking = Reranker(policy, selection=selection).rerank(QUERY, texts)
    assert outcome(ranking) == outcome(expected)
    assert ranking.scores == expected.scores
    assert ranking.attempts == ()


@pytest.mark.parametrize("name", WRAPS)
def test_many_queries_are_a_loop_of_single_ones(name: str) -> None:
    """By both doors."""
    reranker = Reranker(WRAPS[name](FakeScorer(latency=0.001)))
    queries = [f"memory leak {number}" for number in range(12)]
    documents = [[f"leak {number}", f"memory {number}", "tea", ""][: number % 5] for number in range(12)]
    expected = [outcome(reranker.rerank(query, texts)) for query, texts in zip(queries, documents, strict=True)]
    assert [outcome(ranking) for ranking in reranker.rerank_many(queries, documents)] == expected
    assert [outcome(ranking) for ranking in asyncio.run(reranker.arerank_many(queries, documents))] == expected
