"""What cancelled and late calls consumed is counted, whoever gave them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from support.waiting import until

from rerank_core import Reranker, Scored, Scorer, ScorerError, ScorerTimeoutError, Usage
from rerank_core._call import event_loop
from rerank_core._call.asking import Consumption, add_consumption
from rerank_core.policies import Cached, Calibrated, Calibration, Cascade, Fallback, Hedged, Windowed
from rerank_core.testing import FakeScorer

SPENT = Usage(requests=1, tokens=7, cost=0.25, estimated=True)
TEXTS = ["a leak", "tea"]


class Stuck(FakeScorer):
    """Never answers, and counts what its request cost when it is given up."""

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Wait for ever."""
        self.calls += 1
        self.active += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.active -= 1
            add_consumption(SPENT)
        raise AssertionError("unreachable")


class Paid(FakeScorer):
    """Answers, for money."""

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Score at once."""
        return Scored([0.5] * len(texts), Usage(requests=1, cost=1.0))


WRAPS: dict[str, Callable[[Scorer], Scorer]] = {
    "bare": lambda scorer: scorer,
    "cached": Cached,
    "calibrated": lambda scorer: Calibrated(scorer, Calibration(scorer.name, "platt")),
    "cascade": lambda scorer: Cascade([FakeScorer(), scorer], keep=[2]),
    "fallback": lambda scorer: Fallback([scorer]),
    "hedged": lambda scorer: Hedged(scorer, delay=60.0),
    "nested": lambda scorer: Windowed(Cached(Fallback([Hedged(Cached(scorer), delay=60.0)]))),
    "windowed": Windowed,
}
REQUESTS = {"cascade": 2}


def test_a_usage_that_an_error_states_stays() -> None:
    """A scorer that calls others says itself what all of it took."""

    class Summing(FakeScorer):
        async def score(self, query: str, texts: Sequence[str]) -> Scored:
            await Fallback([Paid()]).score(query, texts)
            error = ScorerError("down")
            error.usage = Usage(cost=7.0)
            raise error

    for scorer in (Summing(), Fallback([Summing()])):
        reranker = Reranker(scorer)
        with pytest.raises(ScorerError) as caught:
            reranker.rerank("leak", TEXTS)
        assert caught.value.usage is not None
        assert (caught.value.usage.cost, reranker.total_usage.cost) == (7.0, 7.0)


@pytest.mark.parametrize("name", WRAPS)
def test_a_deadline(name: str) -> None:
    """The error says what was consumed, and so does the total."""
    reranker = Reranker(WRAPS[name](Stuck()), timeout=0.1)
    with pytest.raises(ScorerTimeoutError) as caught:
        reranker.rerank("leak", TEXTS)
    assert caught.value.usage is not None
    for usage in (caught.value.usage, reranker.total_usage):
        assert (usage.requests, usage.tokens, usage.cost) == (REQUESTS.get(name, 1), 7, 0.25)


@pytest.mark.parametrize("name", WRAPS)
async def test_a_cancelled_call(name: str) -> None:
    """Nobody gets an answer or an error of ours; the total has it."""
    stuck = Stuck()
    reranker = Reranker(WRAPS[name](stuck))
    call = asyncio.ensure_future(reranker.arerank("leak", TEXTS))
    await until(lambda: stuck.active)
    call.cancel()
    await asyncio.wait({call})
    assert (reranker.total_usage.requests, reranker.total_usage.cost) == (REQUESTS.get(name, 1), 0.25)


def test_a_fallback_that_went_on() -> None:
    """The answer's usage includes what the scorer that was too slow consumed."""
    reranker = Reranker(Fallback([Cached(Stuck()), Paid()], timeout=0.05))
    ranking = reranker.rerank("leak", TEXTS)
    assert (ranking.usage.requests, ranking.usage.cost, ranking.usage.estimated) == (2, 1.25, True)
    assert reranker.total_usage.cost == 1.25


def test_a_hedge_that_lost() -> None:
    """What it counted itself is not guessed from the other one's."""

    class Slow(Stuck):
        async def score(self, query: str, texts: Sequence[str]) -> Scored:
            if self.calls:
                return Scored([0.5] * len(texts), Usage(requests=1, cost=1.0))
            return await super().score(query, texts)

    ranking = Reranker(Hedged(Slow(), delay=0.02)).rerank("leak", TEXTS)
    assert (ranking.usage.requests, ranking.usage.cost) == (2, 1.25)


async def test_many_queries_of_which_one_fails() -> None:
    """Its siblings are cancelled, and counted."""
    stuck = Stuck()

    class Failing(Stuck):
        async def score(self, query: str, texts: Sequence[str]) -> Scored:
            if query == "bad":
                await until(lambda: stuck.active == 3)
                raise ScorerError("no")
            return await stuck.score(query, texts)

    reranker = Reranker(Failing())
    with pytest.raises(ScorerError):
        await reranker.arerank_many(["a", "b", "c", "bad"], [TEXTS] * 4)
    assert reranker.total_usage.cost == 0.75


async def test_a_shared_call_is_counted_once() -> None:
    """By the caller who was the last to give it up, and not by the one who began it."""
    stuck = Stuck()
    cached = Cached(stuck)
    first, second = Reranker(cached), Reranker(cached)
    one = asyncio.ensure_future(first.arerank("leak", TEXTS))
    await until(lambda: stuck.active)
    other = asyncio.ensure_future(second.arerank("leak", TEXTS[:1]))
    await until(lambda: next(iter(cached._flights.values())).waiting == 2)
    one.cancel()
    await asyncio.wait({one})
    assert first.total_usage.cost == 0.0
    other.cancel()
    await asyncio.wait({other})
    assert (first.total_usage.cost, second.total_usage.cost) == (0.0, 0.25)


def test_who_calls_a_reranker_can_count_too() -> None:
    """An answer, an error and a cancelled call alike add to the block around them."""

    async def work() -> Usage:
        with Consumption() as consumed:
            await Reranker(Paid()).arerank("leak", TEXTS)
            await Reranker(Stuck(), timeout=0.02, on_error="passthrough").arerank("leak", TEXTS)
            call = asyncio.ensure_future(Reranker(Stuck()).arerank("leak", TEXTS))
            await asyncio.sleep(0.02)
            call.cancel()
            await asyncio.wait({call})
        return consumed.usage

    assert event_loop.run(work()).cost == 1.5
