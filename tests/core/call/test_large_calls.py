"""Large calls beside small ones: what takes long is done beside the event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.loopback import Loopback
from support.providers import KEY, scorer_of

from rerank_core import Reranker, Scored, Scorer, ScorerTimeoutError
from rerank_core.policies import Cached, Calibrated, Calibration, Cascade, Fallback, Hedged, Windowed

DOCUMENTS = 100_000
LONGEST_STEP = 0.1
"""Seconds of processor time; few take 5 ms on a quiet machine, several times as long where lines are counted."""


class Instant(Scorer):
    """A scorer that takes no time."""

    name = "instant"

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the same score for every text."""
        return Scored([0.5] * len(texts))


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Return the seconds of processor time that each step on the background loop took, as they come.

    Without those of the garbage collector, whose full runs take longer than anything of ours.
    """
    steps: list[float] = []
    run = asyncio.Handle._run

    def measured(self: Any) -> None:
        began = time.thread_time()
        run(self)
        if threading.current_thread().name == "rerank-core-loop":
            steps.append(time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", measured)
    gc.disable()
    yield steps
    gc.enable()


@pytest.mark.parametrize("per_request", [None, DOCUMENTS])
def test_a_large_call_of_a_service_does_not_hold_the_loop(
    loopback: Loopback, busy: list[float], per_request: int | None
) -> None:
    """Neither in many requests nor in one; before, one step took half a second."""
    loopback.plan(record=False, flat=True)
    texts = [f"text number {number}" for number in range(DOCUMENTS)]
    with Reranker(scorer_of("jina", loopback, documents_per_request=per_request, timeout=60.0)) as reranker:
        assert len(reranker.rerank("a", texts)) == DOCUMENTS
    assert max(busy) < LONGEST_STEP


@pytest.mark.parametrize("provider", ["cohere", "voyage"])
def test_a_large_reply_is_not_read_by_an_sdk_on_the_loop(
    loopback: Loopback, busy: list[float], provider: str
) -> None:
    """It is read on the SDKs' own loop; that takes up to half a second for as many."""
    loopback.plan(record=False, flat=True)
    texts = [f"text number {number}" for number in range(DOCUMENTS // 10)]
    scorer = scorer_of(provider, loopback, documents_per_request=len(texts), timeout=60.0)
    with Reranker(scorer) as reranker:
        ranking = reranker.rerank("a", texts)
        assert ranking.scores[:2] == reranker.rerank("a", texts[:2]).scores
    assert (ranking.usage.requests, ranking.usage.estimated) == (1, False)
    assert max(busy) < LONGEST_STEP


@pytest.mark.parametrize("provider", ["cohere", "voyage"])
def test_a_large_reply_to_an_sdk_is_given_up_with_its_call(loopback: Loopback, provider: str) -> None:
    """A call that is cancelled while the SDK reads ends, and the next one is answered."""
    loopback.plan(record=False, flat=True)
    texts = [f"text number {number}" for number in range(DOCUMENTS // 10)]
    reranker = Reranker(scorer_of(provider, loopback, documents_per_request=len(texts)))
    reranker.warm_up()
    for timeout in (0.02, 0.05, 0.08):
        with pytest.raises(ScorerTimeoutError):
            Reranker(reranker.scorer, timeout=timeout).rerank("a", texts)
    assert len(reranker.rerank("a", texts[:2])) == 2


@pytest.mark.parametrize(
    ("policy", "documents"),
    [
        (lambda: Cached(Instant()), DOCUMENTS // 2),
        (lambda: Calibrated(Instant(), Calibration("instant", "platt", slope=0.5)), DOCUMENTS),
        (lambda: Cascade([Instant(), Instant()], keep=[DOCUMENTS // 2]), DOCUMENTS),
        (lambda: Fallback([Hedged(Instant(), delay=60.0)]), DOCUMENTS),
        (lambda: Windowed(Instant(), window=4), DOCUMENTS // 2),
    ],
    ids=["cached", "calibrated", "cascade", "fallback", "windowed"],
)
def test_a_large_call_of_a_policy_does_not_hold_the_loop(
    busy: list[float], policy: Callable[[], Scorer], documents: int
) -> None:
    """Neither before nor after its scorer is asked; a cache took seconds, a cut into windows a third of one."""
    reranker = Reranker(policy())
    for _ in range(2):  # a cache answers the second time
        assert len(reranker.rerank("a", [f"text number {number}" for number in range(documents)])) == documents
    assert max(busy) < LONGEST_STEP


def test_long_texts_do_not_hold_the_loop(loopback: Loopback, busy: list[float]) -> None:
    """Their words are counted beside it, where a model reads less than they have."""
    loopback.plan(record=False, flat=True)
    texts = [f"{number} " + "ab " * 10_000 for number in range(400)]
    with Reranker(scorer_of("jina", loopback)) as reranker:
        assert reranker.rerank("a", texts).usage.truncated == 400
    assert max(busy) < LONGEST_STEP


def test_functions_of_the_users_that_wait_hold_up_no_large_call(loopback: Loopback) -> None:
    """One that returns a key may wait for a network that is slow, in as many threads as there are."""
    loopback.plan(record=False)
    released, begun = threading.Event(), threading.Semaphore(0)

    def wait_for_key() -> str:
        begun.release()
        released.wait()
        return KEY

    waiting = Reranker(scorer_of("jina", loopback, api_key=wait_for_key, max_concurrency=60))
    with ThreadPoolExecutor(60) as pool:
        calls = [pool.submit(waiting.rerank, "a", ["text"]) for _ in range(60)]
        try:
            for _ in range(40):
                assert begun.acquire(timeout=30.0)
            texts = [f"text number {number}" for number in range(2000)]
            assert len(Reranker(scorer_of("jina", loopback), timeout=20.0).rerank("a", texts)) == 2000
        finally:
            released.set()
        assert all(len(call.result()) == 1 for call in calls)


def test_a_large_ranking_is_in_order(busy: list[float]) -> None:
    """Sorted in runs and merged: best first, equal scores in the order of the input."""
    texts = [f"text {number}" for number in range(DOCUMENTS)]
    ranking = Reranker(Instant()).rerank("a", texts)
    assert [ranked.index for ranked in ranking] == list(range(DOCUMENTS))
    assert max(busy) < LONGEST_STEP
