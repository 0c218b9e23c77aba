"""Policies and deadlines while a real service fails: who answers, when, and what goes on behind (nothing)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.loopback import Loopback, score
from support.providers import scorer_of
from support.scorers import Endless

from rerank_core import (
    AuthenticationError,
    RateLimitError,
    Reranker,
    Scorer,
    ScorerTimeoutError,
    ScorerUnavailableError,
    Selection,
    load_scorer,
)
from rerank_core.policies import Breaker, Cascade, Fallback, Hedged, Windowed
from rerank_core.testing import FakeScorer

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it", "leak of memory", "nothing at all"]
SCORES = tuple(score(QUERY, text) for text in TEXTS)
PROVIDERS = ["cohere", "voyage", "http"]
PROMPTNESS = 3.0
"""Seconds after its deadline that an answer must be there, on a busy machine; the benchmark measures the rest."""


@pytest.fixture(autouse=True)
def _healthy(loopback: Loopback) -> Iterator[None]:
    """Leave the service as it was found."""
    loopback.plan()
    yield
    loopback.plan()


def main(loopback: Loopback, provider: str = "cohere", **options: Any) -> Scorer:
    """Return a scorer that asks the service and repeats nothing."""
    return scorer_of(provider, loopback, **{"max_retries": 0, **options})


def spare() -> FakeScorer:
    """Return a scorer that always answers."""
    return FakeScorer(name="spare")


def quiet_after(loopback: Loopback, seconds: float) -> dict[str, int]:
    """Return what the service has counted, which does not change for so many seconds."""
    before: dict[str, int] = loopback.stats()["counts"]
    time.sleep(seconds)
    after: dict[str, int] = loopback.stats()["counts"]
    assert after.get("requests", 0) == before.get("requests", 0)
    return after


class TestFallback:
    """The next scorer, while the first one's service is down, slow, flapping or overloaded."""

    @pytest.mark.parametrize("provider", PROVIDERS)
    @pytest.mark.parametrize("fault", ["drop", "503", "html-502", "429", "cut-body"])
    def test_a_service_that_is_down(self, loopback: Loopback, provider: str, fault: str) -> None:
        """After its retries the spare one answers, and the ranking says what happened."""
        loopback.plan(always=fault)
        with Reranker(Fallback([main(loopback, provider, max_retries=1), spare()])) as reranker:
            ranking = reranker.rerank(QUERY, TEXTS)
        assert ranking.model == "spare"
        (attempt,) = ranking.attempts
        assert isinstance(attempt.error, RateLimitError if fault == "429" else ScorerUnavailableError)
        assert (ranking.usage.requests, ranking.usage.retries) == (3, 1)
        assert loopback.stats()["counts"]["requests"] == 2

    def test_no_service_at_all(self) -> None:
        """A refused connection hands over at once."""
        gone = load_scorer("cohere:rerank-v3.5", api_key="k", base_url="http://127.0.0.1:9", max_retries=0)
        began = time.perf_counter()
        with Reranker(Fallback([gone, spare()])) as reranker:
            reranker.warm_up()
            began = time.perf_counter()
            assert reranker.rerank(QUERY, TEXTS).model == "spare"
        assert time.perf_counter() - began < 2.0

    @pytest.mark.parametrize("provider", PROVIDERS)
    def test_a_slow_service(self, loopback: Loopback, provider: str) -> None:
        """It is given up after the fallback's timeout, and its connection closed."""
        with Reranker(Fallback([main(loopback, provider), spare()], timeout=0.1)) as reranker:
            reranker.warm_up()
            loopback.plan(delay=20.0)
            began = time.perf_counter()
            ranking = reranker.rerank(QUERY, TEXTS)
            assert time.perf_counter() - began < 0.1 + PROMPTNESS
        assert ranking.model == "spare"
        assert isinstance(ranking.attempts[0].error, ScorerTimeoutError)
        counts = quiet_after(loopback, 0.1)
        assert (counts["requests"], counts["abandoned"]) == (1, 1)

    def test_a_service_that_asks_for_a_long_wait(self, loopback: Loopback) -> None:
        """The fallback's timeout is not slept away in the retries of the first scorer."""
        loopback.plan(always="429-retry-after", retry_after="30")
        with Reranker(Fallback([main(loopback, max_retries=4), spare()], timeout=0.2)) as reranker:
            reranker.warm_up()
            began = time.perf_counter()
            ranking = reranker.rerank(QUERY, TEXTS)
            assert time.perf_counter() - began < 0.2 + 1.0
        assert ranking.model == "spare"
        assert quiet_after(loopback, 0.1)["requests"] <= 1

    def test_a_flapping_service(self, loopback: Loopback) -> None:
        """Every answer is right, whoever gives it, and failures that alternate never open the breaker."""
        loopback.plan(faults=["503", None] * 6)
        fallback = Fallback([main(loopback), spare()], breaker=Breaker(failures=2))
        with Reranker(fallback) as reranker:
            rankings = [reranker.rerank(QUERY, TEXTS) for _ in range(12)]
        assert [ranking.model for ranking in rankings] == ["spare", "cohere:rerank-v3.5"] * 6
        assert all(ranking.scores == pytest.approx(SCORES) for ranking in rankings[1::2])
        assert fallback.skipped == ()

    def test_a_refused_key_is_not_hidden(self, loopback: Loopback) -> None:
        """It is a mistake of the user's, who must hear of it."""
        loopback.plan(always="401")
        with Reranker(Fallback([main(loopback), spare()])) as reranker, pytest.raises(AuthenticationError):
            reranker.rerank(QUERY, TEXTS)

    def test_the_breaker_opens_half_opens_and_closes(self, loopback: Loopback) -> None:
        """Of forty calls in eight threads few reach a service that is down, and one tries when it is back."""
        loopback.plan(always="503")
        fallback = Fallback([main(loopback), spare()], breaker=Breaker(failures=3, reset_seconds=0.3))
        with Reranker(fallback) as reranker, ThreadPoolExecutor(8) as pool:

            def models(calls: int) -> list[str]:
                return list(pool.map(lambda _: reranker.rerank(QUERY, TEXTS).model, range(calls)))

            for _ in range(3):
                reranker.rerank(QUERY, TEXTS)
            opened = time.perf_counter()
            assert set(models(40)) == {"spare"}
            time.sleep(0.35)
            assert set(models(16)) == {"spare"}
            probes = loopback.stats()["counts"]["requests"] - 3
            assert 1 <= probes <= (time.perf_counter() - opened) / 0.3  # one at a time, which failed
            loopback.plan()
            time.sleep(0.35)
            while fallback.skipped:
                models(1)
            assert loopback.stats()["counts"]["requests"] == 1  # the probe, which succeeded
            assert set(models(16)) == {"cohere:rerank-v3.5"}

    @pytest.mark.parametrize("is_async", [False, True])
    def test_many_queries_at_once(self, loopback: Loopback, is_async: bool) -> None:
        """Each query has its own answer, as in a loop, while half of the requests fail."""
        loopback.plan(rates={"503": 0.5}, seed=3)
        texts = [[f"{text} {number}" for text in TEXTS] for number in range(20)]
        queries = [f"find leak {number}" for number in range(20)]
        fallback = Fallback([main(loopback), FakeScorer(score, name="spare")], breaker=None)
        with Reranker(fallback) as reranker:
            rankings = (
                asyncio.run(reranker.arerank_many(queries, texts))
                if is_async
                else reranker.rerank_many(queries, texts)
            )
        assert {ranking.model for ranking in rankings} == {"spare", "cohere:rerank-v3.5"}
        for query, documents, ranking in zip(queries, texts, rankings, strict=True):
            assert ranking.scores == pytest.approx([score(query, text) for text in documents])

    def test_threads_with_loops_of_their_own(self, loopback: Loopback) -> None:
        """One fallback serves sync and async callers at once, loop after loop."""
        loopback.plan(rates={"drop": 0.3}, seed=1)
        fallback = Fallback([main(loopback), FakeScorer(score, name="spare")], breaker=Breaker(failures=1000))
        with Reranker(Hedged(fallback, delay=0.5)) as reranker, ThreadPoolExecutor(8) as pool:

            def rank(turn: int) -> tuple[float | None, ...]:
                if turn % 2:
                    return asyncio.run(reranker.arerank(QUERY, TEXTS)).scores
                return reranker.rerank(QUERY, TEXTS).scores

            for scores in pool.map(rank, range(40)):
                assert scores == pytest.approx(SCORES)


class TestDeadlines:
    """What a call's deadline ends, wherever it falls."""

    def rank_late(self, reranker: Reranker, timeout: float) -> float:
        """Rank until the deadline, and return the seconds that the answer came after it."""
        began = time.perf_counter()
        ranking = reranker.rerank(QUERY, TEXTS)
        late = time.perf_counter() - began - timeout
        assert isinstance(ranking.error, ScorerTimeoutError)
        assert [ranked.index for ranked in ranking] == [0, 1, 2]
        assert {ranked.score for ranked in ranking} == {None}
        return late

    def passing(self, scorer: Scorer, timeout: float) -> Reranker:
        """Return a reranker that is ready, with a deadline for passing through."""
        reranker = Reranker(scorer, timeout=timeout, on_error="passthrough", selection=Selection(top_n=3))
        reranker.warm_up()
        return reranker

    @pytest.mark.parametrize("provider", PROVIDERS)
    def test_in_a_request(self, loopback: Loopback, provider: str) -> None:
        """The connection is closed, and nothing is sent again."""
        with self.passing(main(loopback, provider, max_retries=5), 1.0) as reranker:
            loopback.plan(delay=20.0)
            assert self.rank_late(reranker, 1.0) < PROMPTNESS
            counts = quiet_after(loopback, 0.2)
        assert (counts["requests"], counts["abandoned"]) == (1, 1)

    @pytest.mark.parametrize("fault", ["503", "drop", "429-retry-after"])
    def test_in_the_wait_before_a_retry(self, loopback: Loopback, fault: str) -> None:
        """A wait that would end after it is not begun: the error says why, and nothing is sent after it."""
        with self.passing(main(loopback, max_retries=20), 0.6) as reranker:
            loopback.plan(always=fault, retry_after="0.25")
            began = time.perf_counter()
            ranking = reranker.rerank(QUERY, TEXTS)
            assert time.perf_counter() - began < 0.6 + PROMPTNESS
            # A timeout where a retry is under way at the deadline.
            assert isinstance(ranking.error, (ScorerUnavailableError, RateLimitError, ScorerTimeoutError))
            assert {ranked.score for ranked in ranking} == {None}
            assert quiet_after(loopback, 0.6)["requests"] == ranking.usage.requests >= 1

    @pytest.mark.parametrize("limit", [{"max_concurrency": 1}, {"requests_per_minute": 1}])
    def test_in_the_queue_for_a_request(self, loopback: Loopback, limit: dict[str, int]) -> None:
        """A call that waits for another one, or for its turn in the minute, is never sent."""
        scorer = main(loopback, **limit)
        with self.passing(scorer, 0.2) as reranker, ThreadPoolExecutor(1) as pool:
            loopback.plan(delay=0.5)
            first = pool.submit(Reranker(scorer).rerank, "the first one", TEXTS)
            while not loopback.stats()["requests"]:
                time.sleep(0.005)
            assert self.rank_late(reranker, 0.2) < PROMPTNESS
            assert first.result().error is None
            quiet_after(loopback, 0.2)
        assert [request["body"]["query"] for request in loopback.stats()["requests"]] == ["the first one"]

    @pytest.mark.parametrize(
        "wrapped",
        [lambda scorer: scorer, lambda scorer: Windowed(Fallback([scorer, spare()], timeout=9.0), window=200)],
        ids=["bare", "windowed"],
    )
    def test_in_a_batch(self, wrapped: Callable[[Scorer], Scorer]) -> None:
        """The model stops in the middle of it, and who comes next does not wait for its end."""
        scorer = load_scorer("embedded", tokens_per_batch=16_384, cache_bytes=0)
        reranker = self.passing(wrapped(scorer), 0.3)
        texts = [f"text {number} " + "memory " * 240 for number in range(200)]  # seconds of work
        began = time.perf_counter()
        ranking = reranker.rerank(QUERY, texts)
        assert time.perf_counter() - began < 0.3 + PROMPTNESS
        assert isinstance(ranking.error, ScorerTimeoutError)
        began = time.perf_counter()
        assert Reranker(scorer).rerank(QUERY, ["memory"]).error is None
        assert time.perf_counter() - began < 2.0  # on a busy machine; one batch takes longer there

    @pytest.mark.parametrize(
        "wrapped",
        [
            lambda scorer: Fallback([scorer, Endless()], timeout=5.0),
            lambda scorer: Fallback([Endless(), scorer], timeout=0.1),
            lambda scorer: Hedged(scorer, delay=0.05),
            lambda scorer: Cascade([spare(), scorer], keep=[2]),
            lambda scorer: Windowed(scorer, window=4),
            lambda scorer: Windowed(Fallback([Hedged(scorer, delay=0.05), Endless()])),
        ],
        ids=["fallback", "fallback-late", "hedged", "cascade", "windowed", "all"],
    )
    def test_in_a_policy(self, loopback: Loopback, wrapped: Callable[[Scorer], Scorer]) -> None:
        """Every request of every policy is closed, and nothing is sent any more."""
        with self.passing(wrapped(main(loopback)), 1.0) as reranker:
            loopback.plan(delay=20.0)
            assert self.rank_late(reranker, 1.0) < PROMPTNESS
            counts = quiet_after(loopback, 0.2)
        assert counts["abandoned"] == counts["requests"] >= 1

    def test_of_many_queries(self, loopback: Loopback) -> None:
        """Each query has its own deadline, and what is late passes through beside what is not."""
        with self.passing(main(loopback, max_concurrency=32), 0.4) as reranker:
            loopback.plan(delays=[20.0, 0.0] * 5)
            rankings = reranker.rerank_many([QUERY] * 10, [TEXTS] * 10)
            counts = quiet_after(loopback, 0.1)
        assert sum(ranking.error is None for ranking in rankings) == 5
        assert (counts["requests"], counts["abandoned"]) == (10, 5)


class TestHedged:
    """A second request to a service that is slow once in a while."""

    @pytest.mark.parametrize("provider", PROVIDERS)
    def test_the_second_request_wins(self, loopback: Loopback, provider: str) -> None:
        """It counts, and the first one's connection is closed."""
        with Reranker(Hedged(main(loopback, provider), delay=0.1)) as reranker:
            reranker.warm_up()
            loopback.plan(delays=[20.0, 0.0])
            ranking = reranker.rerank(QUERY, TEXTS)
            counts = quiet_after(loopback, 0.1)
        assert ranking.scores == pytest.approx(SCORES)
        assert (counts["requests"], counts["abandoned"]) == (2, 1)
        usage = ranking.usage
        assert (usage.requests, usage.documents, usage.estimated) == (2, len(TEXTS), True)

    def test_the_first_request_wins(self, loopback: Loopback) -> None:
        """Where the second one is slower still, that one is closed."""
        with Reranker(Hedged(main(loopback), delay=0.1)) as reranker:
            reranker.warm_up()
            loopback.plan(delays=[0.3, 20.0])
            ranking = reranker.rerank(QUERY, TEXTS)
            counts = quiet_after(loopback, 0.1)
        assert ranking.scores == pytest.approx(SCORES)
        assert (counts["requests"], counts["abandoned"], ranking.usage.requests) == (2, 1, 2)

    def test_the_slow_twentieth_is_cut(self, loopback: Loopback) -> None:
        """After it has learned what is usual, no call waits for a slow answer."""
        with Reranker(Hedged(main(loopback))) as reranker:
            for _ in range(25):
                reranker.rerank(QUERY, TEXTS)
            loopback.plan(delays=[20.0, 0.0])
            began = time.perf_counter()
            reranker.rerank(QUERY, TEXTS)
        assert time.perf_counter() - began < 5.0


def test_a_cascade_whose_full_model_is_down(loopback: Loopback) -> None:
    """Falls back to its light one, or raises with what was consumed."""
    loopback.plan(always="503")
    cascade = Cascade([spare(), main(loopback)], keep=[2])
    with Reranker(cascade) as reranker, pytest.raises(ScorerUnavailableError) as caught:
        reranker.rerank(QUERY, TEXTS)
    assert caught.value.usage is not None
    assert caught.value.usage.requests == 2
    with Reranker(Fallback([cascade, spare()])) as reranker:
        ranking = reranker.rerank(QUERY, TEXTS)
    assert ranking.model == "spare"
    assert [attempt.model for attempt in ranking.attempts] == ["cascade(spare, cohere:rerank-v3.5)"]
