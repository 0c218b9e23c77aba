"""Large calls beside small ones: what takes long is done beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from support.loopback import Loopback
from support.providers import scorer_of

from rerank_core import Reranker, Scored, Scorer

DOCUMENTS = 100_000


class Instant(Scorer):
    """A scorer that takes no time."""

    name = "instant"

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the same score for every text."""
        return Scored([0.5] * len(texts))


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds of processor time that each step on the background loop took, as they come."""
    steps: list[float] = []
    run = asyncio.Handle._run

    def measured(self: Any) -> None:
        began = time.thread_time()
        run(self)
        if threading.current_thread().name == "rerank-core-loop":
            steps.append(time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", measured)
    return steps


@pytest.mark.parametrize("per_request", [None, DOCUMENTS])
def test_a_large_call_of_a_service_does_not_hold_the_loop(
    loopback: Loopback, busy: list[float], per_request: int | None
) -> None:
    """Neither in many requests nor in one; before, one step took half a second."""
    loopback.plan(record=False, flat=True)
    texts = [f"text number {number}" for number in range(DOCUMENTS)]
    with Reranker(scorer_of("jina", loopback, documents_per_request=per_request, timeout=60.0)) as reranker:
        assert len(reranker.rerank("a", texts)) == DOCUMENTS
    assert max(busy) < 0.15


def test_a_large_ranking_is_in_order(busy: list[float]) -> None:
    """Sorted in runs and merged: best first, equal scores in the order of the input."""
    texts = [f"text {number}" for number in range(DOCUMENTS)]
    ranking = Reranker(Instant()).rerank("a", texts)
    assert [ranked.index for ranked in ranking] == list(range(DOCUMENTS))
    assert max(busy) < 0.15
