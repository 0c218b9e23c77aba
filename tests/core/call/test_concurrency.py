"""One reranker for many threads and event loops; cancellation; context variables."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.scorers import Calls, Endless
from support.waiting import until

from rerank_core import Ranking, Reranker, Selection
from rerank_core.testing import FakeScorer

QUERIES = [f"query {number} about memory" for number in range(20)]
LISTS = [[f"text {number} on memory {other}" for other in range(number % 7)] for number in range(20)]


def essence(ranking: Ranking[Any]) -> tuple[Any, ...]:
    """Return what must be equal: all but the times."""
    return ranking.query, ranking.documents, ranking.scores


@pytest.fixture(scope="module")
def sequential() -> list[tuple[Any, ...]]:
    """Return the rankings of one sequential run."""
    reranker = Reranker(FakeScorer(), selection=Selection(top_n=3))
    return [essence(reranker.rerank(query, texts)) for query, texts in zip(QUERIES, LISTS, strict=True)]


def test_64_threads_get_what_one_gets(sequential: list[tuple[Any, ...]]) -> None:
    """Twenty calls each on one reranker, all begun at once."""
    reranker = Reranker(FakeScorer(), selection=Selection(top_n=3))
    ready = threading.Barrier(64)

    def work(_: int) -> list[tuple[Any, ...]]:
        ready.wait(30)
        return [essence(reranker.rerank(query, texts)) for query, texts in zip(QUERIES, LISTS, strict=True)]

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(work, range(64)))
    assert all(result == sequential for result in results)


def test_three_event_loops_one_after_the_other(sequential: list[tuple[Any, ...]]) -> None:
    """Nothing is bound to the first loop, and sync calls go on in between."""
    reranker = Reranker(FakeScorer(latency=0.001), selection=Selection(top_n=3))

    async def work() -> list[tuple[Any, ...]]:
        calls = (reranker.arerank(query, texts) for query, texts in zip(QUERIES, LISTS, strict=True))
        return [essence(ranking) for ranking in await asyncio.gather(*calls)]

    for _ in range(3):
        assert asyncio.run(work()) == sequential
        assert essence(reranker.rerank(QUERIES[5], LISTS[5])) == sequential[5]


def test_event_loops_in_several_threads_at_once(sequential: list[tuple[Any, ...]]) -> None:
    """Each thread runs a loop of its own around the same reranker."""
    reranker = Reranker(FakeScorer(latency=0.001), selection=Selection(top_n=3))

    async def calls() -> list[tuple[Any, ...]]:
        rankings = [await reranker.arerank(query, texts) for query, texts in zip(QUERIES, LISTS, strict=True)]
        return [essence(ranking) for ranking in rankings]

    with ThreadPoolExecutor(8) as pool:
        assert all(result == sequential for result in pool.map(lambda _: asyncio.run(calls()), range(8)))


async def test_a_cancelled_call_leaves_nothing_running() -> None:
    """When the caller has been cancelled, the scorer has stopped: not soon, but then."""
    scorer = Endless()
    call = asyncio.ensure_future(Reranker(scorer).arerank("query", ["text"]))
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active == 0


async def test_a_call_cancelled_before_it_began_never_begins() -> None:
    """The scorer is not even asked, or has stopped again; the next call works."""
    scorer = Endless()
    call = asyncio.ensure_future(Reranker(scorer).arerank("query", ["text"]))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active == 0
    assert len(await Reranker(FakeScorer()).arerank("query", ["text"])) == 1


async def test_one_cancelled_call_does_not_touch_the_others() -> None:
    """Calls beside it on the same scorer end with their answers."""
    reranker = Reranker(FakeScorer(latency=0.05))
    calls = [asyncio.ensure_future(reranker.arerank("query", [f"text {number}"])) for number in range(10)]
    await asyncio.sleep(0.01)
    calls[3].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [n == 3 for n in range(10)]
    assert [result[0].text for result in results if isinstance(result, Ranking)] == [
        f"text {number}" for number in range(10) if number != 3
    ]


async def test_a_second_cancellation_does_not_wait() -> None:
    """A scorer that takes its time to stop delays the first cancellation, not a second one."""

    async def score(query: str, texts: Sequence[str]) -> float:
        try:
            await asyncio.sleep(30)
        finally:
            await until(lambda: released)
        return 0.5

    released: list[bool] = []
    scorer = Calls(score)
    call = asyncio.ensure_future(Reranker(scorer).arerank("query", ["text"]))
    await until(lambda: scorer.active)
    call.cancel()
    await asyncio.sleep(0.01)
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active
    released.append(True)
    await until(lambda: not scorer.active)


def test_context_variables_travel_into_the_scorer() -> None:
    """Those of each caller, by both doors, and changes inside do not come out."""
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    async def score(query: str, texts: Sequence[str]) -> float:
        await asyncio.sleep(0)
        seen.append(tenant.get())
        tenant.set("changed inside")
        return 0.5

    reranker = Reranker(Calls(score))

    def sync(name: str) -> None:
        tenant.set(name)
        reranker.rerank("query", ["text"])
        assert tenant.get() == name

    async def awaited(name: str) -> None:
        tenant.set(name)
        await reranker.arerank("query", ["text"])
        await reranker.arerank_many(["query"], [["text"]])
        assert tenant.get() == name

    contextvars.copy_context().run(sync, "alice")
    asyncio.run(awaited("bob"))
    reranker.rerank("query", ["text"])
    assert seen == ["alice", "bob", "bob", "nobody"]


def test_a_scorer_lives_on_one_loop_whoever_calls() -> None:
    """So that a client bound to a loop never meets another one."""
    loops: set[int] = set()

    async def score(query: str, texts: Sequence[str]) -> float:
        loops.add(id(asyncio.get_running_loop()))
        return 0.5

    reranker = Reranker(Calls(score))
    reranker.rerank("query", ["text"])
    asyncio.run(reranker.arerank("query", ["text"]))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: reranker.rerank("query", ["text"]), range(4)))
    assert len(loops) == 1
