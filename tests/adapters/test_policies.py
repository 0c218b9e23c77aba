"""Each policy through each adapter, sync and async, by a ``reranker=`` object."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.doors import BEST_FIRST, QUERY, TEXTS, Door

from rerank_core import Reranker, Scorer, ScorerUnavailableError, Selection
from rerank_core.policies import Cascade, Fallback, Hedged, Windowed
from rerank_core.testing import FakeScorer

POLICIES: dict[str, Callable[[], Scorer]] = {
    "cascade": lambda: Cascade([FakeScorer(), FakeScorer()], keep=[4]),
    "fallback": lambda: Fallback([FakeScorer(error=ScorerUnavailableError("down")), FakeScorer()]),
    "hedged": lambda: Hedged(FakeScorer(latency=0.02), delay=0.001),
    "windowed": lambda: Windowed(FakeScorer()),
    "all": lambda: Windowed(
        Cascade(
            [Hedged(FakeScorer()), Fallback([FakeScorer(error=ScorerUnavailableError("down")), FakeScorer()])],
            keep=[4],
        )
    ),
}
LONG = "It rains in Paris in spring. " * 40 + "Finding a memory leak takes patience. " + "The roof is fine. " * 40


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_ranks_through_every_door(door: Door, policy: str) -> None:
    """The documents and scores that the core gives, and with trivial settings those of the bare scorer."""
    core = Reranker(POLICIES[policy](), selection=Selection(top_n=3))
    ranked = door.rank(door.kind(reranker=core))
    bare = Reranker(FakeScorer()).rerank(QUERY, TEXTS)
    assert [text for text, _ in ranked] == BEST_FIRST[:3]
    assert ranked == [(document.document, document.score) for document in bare[:3]]


def test_a_long_document_is_found_by_its_passage(door: Door) -> None:
    """The whole document comes back, with the score of its best window."""
    core = Reranker(Windowed("embedded", window=32))
    ranked = door.rank(door.kind(reranker=core), [LONG, "Paris in spring"], "How do I find a memory leak?")
    passage = core.rerank("How do I find a memory leak?", [LONG])[0].passage_text
    assert "memory leak" in passage
    assert [text for text, _ in ranked] == [LONG, "Paris in spring"]
    assert ranked[0][1] == pytest.approx(
        Reranker("embedded").rerank("How do I find a memory leak?", [passage]).scores[0], abs=0.02
    )


def test_a_policy_that_fails_passes_through(door: Door) -> None:
    """In the first stage's order, unscored."""
    failing = FakeScorer(error=ScorerUnavailableError("down"))
    core = Reranker(Windowed(Fallback([failing, failing])), on_error="passthrough", selection=Selection(top_n=2))
    assert door.rank(door.kind(reranker=core)) == [(text, None) for text in TEXTS[:2]]
