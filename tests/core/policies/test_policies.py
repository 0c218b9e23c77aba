"""Fallback, Hedged and Cascade: who is asked, who answers, and what is reported of the others."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scorers import Answers, Endless
from support.waiting import until

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    Passage,
    RateLimitError,
    Reranker,
    Scored,
    Scorer,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
    Selection,
    Usage,
)
from rerank_core.policies import Breaker, Cascade, Fallback, Hedged
from rerank_core.testing import FakeScorer, ScorerContract

QUERY = "memory leak"
TEXTS = ["Paris in spring", "finding a memory leak", "memory", "a leak in the roof"]


def down(kind: type[ScorerError] = ScorerUnavailableError, *, usage: Usage | None = None) -> FakeScorer:
    """Return a scorer that always fails."""
    error = kind("main is down")
    error.usage = usage
    return FakeScorer(name="main", error=error)


def scored(policy: Scorer, texts: Sequence[str] = TEXTS) -> tuple[float | None, ...]:
    """Return the scores of a policy, in the order of the texts."""
    return Reranker(policy).rerank(QUERY, texts).scores


class TestFallbackContract(ScorerContract):
    """A fallback whose first scorer is down."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Fallback([down(), FakeScorer()])


class TestHedgedContract(ScorerContract):
    """A hedge that always sends a second request."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Hedged(FakeScorer(latency=0.002, scale="logit"), delay=0.001)


class TestCascadeContract(ScorerContract):
    """A cascade of three."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Cascade([FakeScorer(), FakeScorer(scale="logit"), FakeScorer()], keep=[3, 2])


class TestFallback:
    """The next scorer when one cannot answer."""

    @pytest.mark.parametrize("kind", [ScorerUnavailableError, RateLimitError, ScorerTimeoutError])
    def test_the_next_scorer_answers(self, kind: type[ScorerError]) -> None:
        """The ranking says who answered, who did not and why, and what both consumed."""
        spare = FakeScorer(name="spare")
        ranking = Reranker(Fallback([down(kind, usage=Usage(requests=3)), spare])).rerank(QUERY, TEXTS)
        assert ranking.model == "spare"
        assert [(attempt.model, type(attempt.error)) for attempt in ranking.attempts] == [("main", kind)]
        assert ranking.scores == scored(FakeScorer())
        assert ranking.usage.requests == 4

    def test_the_first_scorer_that_answers_is_the_last_that_is_asked(self) -> None:
        """A fallback with nothing to fall back from is its first scorer."""
        spare = FakeScorer(name="spare")
        ranking = Reranker(Fallback([FakeScorer(), spare])).rerank(QUERY, TEXTS)
        assert (ranking.model, ranking.attempts, spare.calls) == ("fake", (), 0)

    @pytest.mark.parametrize("kind", [AuthenticationError, ScorerError])
    def test_other_errors_are_raised(self, kind: type[ScorerError]) -> None:
        """A refused key is no reason to ask somebody else, unless the user says so."""
        spare = FakeScorer(name="spare")
        with pytest.raises(kind, match="main is down"):
            Reranker(Fallback([down(kind), spare])).rerank(QUERY, TEXTS)
        assert spare.calls == 0
        assert Reranker(Fallback([down(kind), spare], on=[kind])).rerank(QUERY, TEXTS).model == "spare"

    def test_an_error_of_the_second_scorer_reports_what_the_first_one_consumed(self) -> None:
        """The usage of a call that fails counts everybody."""
        main = down(usage=Usage(requests=3))
        with pytest.raises(AuthenticationError) as caught:
            Reranker(Fallback([main, down(AuthenticationError, usage=Usage(requests=2))])).rerank(QUERY, TEXTS)
        assert caught.value.usage is not None
        assert caught.value.usage.requests == 5

    def test_where_nobody_answers_every_reason_is_named(self) -> None:
        """The error has each scorer's, the usage of all, and the scores that arrived."""
        halfway = ScorerUnavailableError("spare went away")
        halfway.partial = {1: 0.5}
        fallback = Fallback(
            [down(RateLimitError, usage=Usage(requests=3)), FakeScorer(name="spare", error=halfway)]
        )
        with pytest.raises(
            ScorerUnavailableError,
            match="none of 2 .*: main: main is down; .*: spare: spare went away",
        ) as caught:
            Reranker(fallback).rerank(QUERY, TEXTS)
        assert caught.value.__cause__ is halfway
        assert caught.value.partial == {1: 0.5}
        assert caught.value.usage == Usage(
            requests=3, seconds=caught.value.usage.seconds if caught.value.usage else 0
        )

    def test_a_slow_scorer_is_given_up(self) -> None:
        """After the fallback's timeout its work is cancelled, and the next one answers."""
        slow = Endless()
        ranking = Reranker(Fallback([slow, FakeScorer()], timeout=0.02)).rerank(QUERY, TEXTS)
        assert ranking.model == "fake"
        assert isinstance(ranking.attempts[0].error, ScorerTimeoutError)
        assert slow.active == 0

    def test_the_last_scorer_has_as_long_as_the_call(self) -> None:
        """There is nobody to hand over to."""
        fallback = Fallback([down(), FakeScorer(latency=0.05)], timeout=0.01)
        assert Reranker(fallback).rerank(QUERY, TEXTS).model == "fake"

    def test_warming_up_leaves_out_who_cannot_be_reached(self) -> None:
        """The one that answers is loaded; another error is raised."""

        class Cold(FakeScorer):
            async def warm_up(self) -> None:
                raise self.error or AssertionError

        warm = FakeScorer()
        Reranker(Fallback([Cold(error=ScorerUnavailableError("gone")), warm])).warm_up()
        with pytest.raises(AuthenticationError):
            Reranker(Fallback([Cold(error=AuthenticationError("no key")), warm])).warm_up()

    def test_a_dump_forgets_the_failures_and_keeps_the_options(self) -> None:
        """Copies and pickles begin with every circuit closed."""
        fallback = Fallback([down(), FakeScorer()], timeout=2, breaker=Breaker(failures=1))
        scored(fallback)
        assert fallback.skipped == ("main",)
        for twin in (copy.deepcopy(fallback), pickle.loads(pickle.dumps(fallback))):
            assert (twin.skipped, twin.timeout, twin.name) == ((), 2.0, "fallback(main, fake)")
            assert twin.breaker == Breaker(failures=1)


class TestBreaker:
    """Skipping what fails again and again."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Return the breaker's time in seconds, which stands still until a test changes it."""
        now = [100.0]
        monkeypatch.setattr("rerank_core.policies.fallback.monotonic", lambda: now[0])
        return now

    def test_it_opens_after_failures_in_a_row(self) -> None:
        """The scorer is asked as often as that and then skipped, and the ranking says so."""
        main = down()
        fallback = Fallback([main, FakeScorer()], breaker=Breaker(failures=3))
        rankings = [Reranker(fallback).rerank(QUERY, TEXTS) for _ in range(6)]
        assert main.calls == 3
        assert fallback.skipped == ("main",)
        assert "skipped after repeated failures" in str(rankings[-1].attempts[0].error)
        assert all(ranking.model == "fake" for ranking in rankings)

    def test_an_answer_in_between_starts_the_count_anew(self) -> None:
        """Only failures in a row open it."""
        main = FakeScorer(name="main")
        fallback = Fallback([main, FakeScorer()], breaker=Breaker(failures=2))
        for error in [ScorerUnavailableError("x"), None] * 4:
            main.error = error
            scored(fallback)
        assert fallback.skipped == ()
        assert main.calls == 8

    def test_one_call_tries_again_and_closes_it(self, clock: list[float]) -> None:
        """Of many calls at once one probes, and after its answer all go through."""
        main = down()
        fallback = Fallback([main, FakeScorer()], breaker=Breaker(failures=1, reset_seconds=30.0))
        reranker = Reranker(fallback)
        reranker.rerank(QUERY, TEXTS)
        main.error, main.latency = None, 0.02
        clock[0] += 31.0
        models = [ranking.model for ranking in reranker.rerank_many([QUERY] * 5, [TEXTS] * 5)]
        assert sorted(models) == ["fake"] * 4 + ["main"]
        assert fallback.skipped == ()
        assert reranker.rerank(QUERY, TEXTS).model == "main"

    def test_a_probe_that_fails_opens_it_anew(self, clock: list[float]) -> None:
        """For as long again."""
        main = down()
        fallback = Fallback([main, FakeScorer()], breaker=Breaker(failures=1, reset_seconds=30.0))
        scored(fallback)
        clock[0] += 31.0
        for _ in range(3):
            scored(fallback)
        assert main.calls == 2

    def test_a_cancelled_probe_leaves_the_next_call_to_try(self, clock: list[float]) -> None:
        """It said nothing about the scorer."""
        main = down()
        fallback = Fallback([main, FakeScorer()], breaker=Breaker(failures=1, reset_seconds=30.0))
        scored(fallback)
        main.error, main.latency = None, 30.0
        clock[0] += 31.0

        async def cancelled() -> None:
            call = asyncio.ensure_future(Reranker(fallback).arerank(QUERY, TEXTS))
            await until(lambda: main.active)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

        asyncio.run(cancelled())
        main.latency = 0.0
        assert Reranker(fallback).rerank(QUERY, TEXTS).model == "main"

    def test_without_one_every_call_asks(self) -> None:
        """``breaker=None`` never skips."""
        main = down()
        fallback = Fallback([main, FakeScorer()], breaker=None)
        for _ in range(8):
            scored(fallback)
        assert (main.calls, fallback.skipped) == (8, ())


class Slow(FakeScorer):
    """Takes each of the given times in turn, in seconds, and then fails or answers."""

    def __init__(self, *seconds: float, errors: dict[int, Exception] | None = None) -> None:
        super().__init__(name="slow")
        self._seconds = seconds
        self._errors = errors or {}
        self.cancelled = 0

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Wait, and score."""
        turn = self.calls
        self.calls += 1
        try:
            await asyncio.sleep(self._seconds[turn % len(self._seconds)])
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if turn in self._errors:
            raise self._errors[turn]
        return Scored([0.5] * len(texts), Usage(requests=1, tokens=10, cost=0.25))


class TestHedged:
    """A second request when the first one is slow."""

    def test_the_second_request_wins_and_both_are_counted(self) -> None:
        """The slow one is cancelled, and its usage estimated."""
        slow = Slow(30.0, 0.0)
        ranking = Reranker(Hedged(slow, delay=0.02)).rerank(QUERY, TEXTS)
        assert (slow.calls, slow.cancelled) == (2, 1)
        usage = ranking.usage
        assert (usage.requests, usage.tokens, usage.cost, usage.estimated) == (2, 20, 0.5, True)
        assert ranking.model == "slow"

    def test_a_quick_answer_needs_no_second_request(self) -> None:
        """And nothing is estimated."""
        quick = Slow(0.0)
        ranking = Reranker(Hedged(quick, delay=5.0)).rerank(QUERY, TEXTS)
        assert (quick.calls, ranking.usage.requests, ranking.usage.estimated) == (1, 1, False)

    def test_a_failure_before_the_delay_is_raised(self) -> None:
        """Retries are the scorer's business."""
        slow = Slow(0.0, errors={0: RateLimitError("slow down")})
        with pytest.raises(RateLimitError, match="slow down"):
            Reranker(Hedged(slow, delay=5.0)).rerank(QUERY, TEXTS)
        assert slow.calls == 1

    def test_the_other_request_may_still_answer_when_one_fails(self) -> None:
        """The failure is reported as an attempt."""
        slow = Slow(0.05, 0.1, errors={0: RateLimitError("slow down")})
        ranking = Reranker(Hedged(slow, delay=0.02)).rerank(QUERY, TEXTS)
        assert [type(attempt.error) for attempt in ranking.attempts] == [RateLimitError]
        assert ranking.usage.requests == 1

    def test_where_both_fail_the_first_failure_is_raised(self) -> None:
        """With the usage of both."""
        errors = [RateLimitError("one"), RateLimitError("two")]
        for error in errors:
            error.usage = Usage(requests=1)
        slow = Slow(0.05, 0.05, errors=dict(enumerate(errors)))
        with pytest.raises(RateLimitError, match="one") as caught:
            Reranker(Hedged(slow, delay=0.02)).rerank(QUERY, TEXTS)
        assert caught.value.usage is not None
        assert caught.value.usage.requests == 2

    def test_what_is_no_scorers_error_comes_out_as_it_is(self) -> None:
        """Bad configuration is not wrapped in a group."""
        with pytest.raises(ConfigurationError, match="odd"):
            Reranker(Hedged(FakeScorer(error=ConfigurationError("odd")), delay=1.0)).rerank(QUERY, TEXTS)

    def test_the_delay_is_learned(self) -> None:
        """No second request before 20 calls were seen, and then after the slowest twentieth of them."""
        slow = Slow(*[0.0] * 19, 0.05, 30.0, 0.0)
        hedged = Hedged(slow)
        for _ in range(20):
            assert hedged.hedge_delay is None
            scored(hedged)
        assert hedged.hedge_delay is not None
        assert 0.05 <= hedged.hedge_delay < 1.0
        scored(hedged)
        assert (slow.calls, slow.cancelled) == (22, 1)

    def test_a_won_hedge_does_not_teach_a_shorter_delay(self) -> None:
        """What the first request took at least counts, not what the second one took."""
        slow = Slow(30.0, 0.0)
        hedged = Hedged(slow)
        hedged.delay = 0.03
        for _ in range(20):
            scored(hedged)
        hedged.delay = None
        assert hedged.hedge_delay is not None
        assert hedged.hedge_delay >= 0.03

    def test_a_cancelled_call_cancels_both(self) -> None:
        """A deadline of the whole call, for example."""
        slow = Slow(30.0)
        ranking = Reranker(Hedged(slow, delay=0.02), timeout=0.1, on_error="passthrough").rerank(QUERY, TEXTS)
        assert isinstance(ranking.error, ScorerTimeoutError)
        assert (slow.calls, slow.cancelled) == (2, 2)


class TestCascade:
    """Light models prune, a full one decides."""

    def test_only_what_survives_reaches_the_full_model(self) -> None:
        """And what was pruned ranks below, in the light model's order, with lower scores."""
        light, full = FakeScorer(), FakeScorer(lambda query, text: 0.1 if "leak" in text else 0.2)
        ranking = Reranker(Cascade([light, full], keep=[2])).rerank(QUERY, TEXTS)
        assert full.seen == [TEXTS[1], TEXTS[2]]
        assert [ranked.document for ranked in ranking] == [TEXTS[2], TEXTS[1], TEXTS[3], TEXTS[0]]
        assert [ranked.score for ranked in ranking][:2] == [0.2, 0.1]
        assert all(ranked.score is not None and ranked.score < 0.1 for ranked in ranking[2:])
        assert ranking.usage.requests == 2
        assert ranking.usage.documents == 6

    def test_equal_scores_keep_the_pruned_below(self) -> None:
        """Also where the full model gives zero, and the pruned come first in the input; blanks come last."""
        light = FakeScorer(lambda query, text: 0.9 if text == "good" else 0.1)
        cascade = Cascade([light, FakeScorer(lambda query, text: 0.0)], keep=[1])
        ranking = Reranker(cascade).rerank(QUERY, ["", "bad", "worse", "good"])
        assert [ranked.document for ranked in ranking] == ["good", "bad", "worse", ""]
        assert set(ranking.scores) == {0.0}

    def test_a_threshold_never_keeps_what_was_pruned_and_drops_a_survivor(self) -> None:
        """Although the light model's own score is above it."""
        cascade = Cascade([FakeScorer(), FakeScorer(lambda query, text: 0.2)], keep=[1])
        assert len(Reranker(cascade, selection=Selection(score_threshold=0.15)).rerank(QUERY, TEXTS)) == 1
        assert len(Reranker(cascade, selection=Selection(score_threshold=0.25)).rerank(QUERY, TEXTS)) == 0

    def test_passages_and_attempts_of_the_stages_come_through(self) -> None:
        """Of whoever scored a text last."""

        class Passages(FakeScorer):
            async def score(self, query: str, texts: Sequence[str]) -> Scored:
                answer = await super().score(query, texts)
                return Scored(answer.scores, passages=[Passage(0, 2)] * len(texts))

        cascade = Cascade([Fallback([down(), FakeScorer()]), Passages()], keep=[1])
        ranking = Reranker(cascade).rerank(QUERY, TEXTS)
        assert [ranked.passage for ranked in ranking] == [Passage(0, 2), None, None, None]
        assert ranking[0].passage_text == "fi"
        assert [attempt.model for attempt in ranking.attempts] == ["main"]

    def test_an_error_says_what_was_consumed_and_what_arrived(self) -> None:
        """By position in the caller's input."""
        broken = ScorerUnavailableError("gone")
        broken.partial = {0: 0.7}
        cascade = Cascade([FakeScorer(), FakeScorer(error=broken)], keep=[1])
        with pytest.raises(ScorerUnavailableError) as caught:
            Reranker(cascade).rerank(QUERY, TEXTS)
        assert caught.value.partial == {1: 0.7}
        assert caught.value.usage is not None
        assert caught.value.usage.requests == 1

    @given(
        scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12),
        keep=st.lists(st.integers(1, 14), min_size=2, max_size=2).map(lambda keep: sorted(keep, reverse=True)),
    )
    def test_a_cascade_of_one_model_keeps_its_order(self, scores: list[float], keep: list[int]) -> None:
        """Scores fall along the ranking, and where nothing is pruned they are the bare scorer's."""
        texts = [f"text {index}" for index in range(len(scores))]
        by_text = dict(zip(texts, scores, strict=True))
        model = FakeScorer(lambda query, text: by_text[text])
        ranking = Reranker(Cascade([model, model, model], keep=keep)).rerank(QUERY, texts)
        bare = Reranker(model).rerank(QUERY, texts)
        found = [ranked.score for ranked in ranking]
        assert found == sorted(found, key=lambda score: -(score or 0.0))
        assert [ranked.index for ranked in ranking][: keep[1]] == [ranked.index for ranked in bare][: keep[1]]
        if keep[1] >= len(scores):
            assert ranking.scores == bare.scores


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fallback([]), "got no scorer"),
        (lambda: Fallback("embedded"), "got a single scorer"),
        (lambda: Fallback([None]), "scorer is a NoneType"),  # type: ignore[list-item]
        (lambda: Fallback([FakeScorer()], on=[ValueError]), "on holds <class 'ValueError'>"),  # type: ignore[list-item]
        (lambda: Fallback([FakeScorer()], timeout=0), "timeout is 0"),
        (lambda: Fallback([FakeScorer()], breaker=3), "breaker is 3"),  # type: ignore[arg-type]
        (lambda: Breaker(failures=0), "failures is 0"),
        (lambda: Breaker(reset_seconds=-1.0), "reset_seconds is -1.0"),
        (lambda: Hedged(FakeScorer(), delay=0), "delay is 0"),
        (lambda: Cascade([FakeScorer()], keep=[]), "a cascade of one scorer"),
        (lambda: Cascade([FakeScorer(), FakeScorer()], keep=[1, 2]), "keep has 2 numbers for 2 scorers"),
        (lambda: Cascade([FakeScorer(), FakeScorer()], keep=[0]), "keep is 0"),
        (lambda: Cascade([FakeScorer()] * 3, keep=[2, 5]), r"keep is \[2, 5\]"),
        (lambda: Cascade([FakeScorer()] * 2, keep=5), "keep is 5"),  # type: ignore[arg-type]
    ],
)
def test_bad_options_are_named(make: Any, message: str) -> None:
    """With the value and the fix."""
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_policy_shows_what_it_is_made_of() -> None:
    """Its name holds its scorers' names, and it is listwise where one of them is."""
    listwise = Answers([0.5])
    listwise.listwise = True
    fallback = Fallback([Hedged(FakeScorer()), listwise])
    assert repr(fallback) == "<Fallback fallback(hedged(fake), answers)>"
    assert fallback.listwise
    assert not Hedged(FakeScorer()).listwise


def test_closing_a_policy_closes_what_it_is_made_of() -> None:
    """Each scorer once."""

    class Closing(FakeScorer):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    scorers = [Closing(), Closing()]
    with Reranker(Cascade(scorers, keep=[2])) as reranker:
        reranker.warm_up()
        reranker.rerank(QUERY, TEXTS)
    assert [scorer.closed for scorer in scorers] == [1, 1]
