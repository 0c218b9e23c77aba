"""Deadlines, and what happens when a scorer fails: raise, or pass the first stage's order through."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from support.scorers import Calls, Endless

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    Ranking,
    Reranker,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
    Selection,
)
from rerank_core.testing import FakeScorer

QUERY = "which one?"
TEXTS = ["a secret document", "another secret", "", "the third secret"]

Door = Callable[[Reranker], Ranking[str]]


@pytest.fixture(params=["sync", "async"])
def rank(request: pytest.FixtureRequest) -> Door:
    """Return a function that ranks the texts, by one door or the other."""
    if request.param == "sync":
        return lambda reranker: reranker.rerank(QUERY, TEXTS)
    return lambda reranker: asyncio.run(reranker.arerank(QUERY, TEXTS))


def test_a_deadline_that_passes_is_an_error(rank: Door) -> None:
    """Also a TimeoutError; it names the scorer, the seconds and what to do, and the work has ended."""
    scorer = Endless()
    start = time.perf_counter()
    with pytest.raises(
        ScorerTimeoutError, match=r"endless: did not answer within timeout=0.05 s \(3 texts\)"
    ) as caught:
        rank(Reranker(scorer, timeout=0.05))
    assert time.perf_counter() - start >= 0.045
    assert isinstance(caught.value, TimeoutError)
    assert (scorer.calls, scorer.active) == (1, 0)


def test_an_answer_within_the_deadline_is_taken(rank: Door) -> None:
    """The deadline is a limit, not a delay."""
    assert len(rank(Reranker(FakeScorer(latency=0.01), timeout=60))) == len(TEXTS)


def test_a_scorers_own_timeout_is_told_apart(rank: Door) -> None:
    """A TimeoutError from inside a scorer is its failure, not this call's deadline."""
    with pytest.raises(ScorerError, match="fake: failed with TimeoutError") as caught:
        rank(Reranker(FakeScorer(error=TimeoutError()), timeout=60))
    assert not isinstance(caught.value, ScorerTimeoutError)


def test_a_deadline_passes_through(rank: Door, caplog: pytest.LogCaptureFixture) -> None:
    """With passthrough the first stage's order is returned when the deadline has passed."""
    reranker = Reranker(Endless(), timeout=0.1, on_error="passthrough", selection=Selection(top_n=3))
    ranking = rank(reranker)
    assert [(document.document, document.index, document.rank, document.score) for document in ranking] == [
        (TEXTS[0], 0, 1, None),
        (TEXTS[1], 1, 2, None),
        (TEXTS[2], 2, 3, None),
    ]
    assert ranking.scores == (None,) * 4
    assert isinstance(ranking.error, ScorerTimeoutError)
    assert (ranking.query, ranking.model) == (QUERY, "endless")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "error",
    [ScorerUnavailableError("down: try later"), AuthenticationError("no key"), ValueError("secret"), OSError()],
)
def test_a_failure_passes_through_with_one_warning(
    rank: Door, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the scorer raised; the warning holds no document's text."""
    with caplog.at_level(logging.DEBUG):
        ranking = rank(Reranker(FakeScorer(error=error), on_error="passthrough"))
    assert [document.index for document in ranking] == [0, 1, 2, 3]
    assert isinstance(ranking.error, ScorerError)
    assert ranking.error is error or ranking.error.__cause__ is error
    (record,) = (record for record in caplog.records if record.name == "rerank_core")
    assert record.levelno == logging.WARNING
    assert "not reranked, first-stage order returned: fake: " in record.getMessage()
    assert "secret" not in caplog.text


def test_passing_through_ignores_thresholds(rank: Door) -> None:
    """Where nothing was scored nothing can be below a score; ``top_n`` still holds."""
    selection = Selection(score_threshold=0.9, adaptive_ratio=0.9, top_n=2)
    ranking = rank(Reranker(FakeScorer(error=OSError()), on_error="passthrough", selection=selection))
    assert [document.index for document in ranking] == [0, 1]


def test_a_ranking_passed_through_survives_pickling(rank: Door) -> None:
    """Its error too."""
    ranking = rank(Reranker(FakeScorer(error=ScorerUnavailableError("down")), on_error="passthrough"))
    twin = pickle.loads(pickle.dumps(ranking))
    assert twin.documents == ranking.documents
    assert (type(twin.error), str(twin.error)) == (ScorerUnavailableError, "fake: down")


def test_passing_through_does_not_hide_bad_configuration(rank: Door) -> None:
    """A scorer that finds an option wrong on first use says so."""
    with pytest.raises(ConfigurationError, match="no such folder"):
        rank(Reranker(FakeScorer(error=ConfigurationError("no such folder")), on_error="passthrough"))


def test_success_logs_nothing(rank: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at the lowest level."""
    with caplog.at_level(logging.DEBUG, logger="rerank_core"):
        rank(Reranker(FakeScorer(), on_error="passthrough"))
    assert [record for record in caplog.records if record.name == "rerank_core"] == []


async def test_a_deadline_outside_ends_the_work_too() -> None:
    """``asyncio.wait_for`` around a call cancels it, and the scorer has stopped when it returns."""
    scorer = Endless()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(Reranker(scorer).arerank(QUERY, TEXTS), timeout=0.05)
    assert (scorer.calls, scorer.active) == (1, 0)


async def test_cleaning_up_after_a_deadline_is_waited_for() -> None:
    """A scorer's ``finally`` runs to its end before the error arrives."""
    steps: list[str] = []

    async def score(query: str, texts: Sequence[str]) -> float:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
            steps.append("cleaned")
        raise AssertionError("unreachable")

    with pytest.raises(ScorerTimeoutError):
        await Reranker(Calls(score), timeout=0.02).arerank(QUERY, TEXTS)
    assert steps == ["cleaned"]


def test_an_answer_after_the_deadline_is_a_timeout() -> None:
    """As of a scorer that swallows the cancellation: who waits for 10 ms has gone on after 50."""

    async def score(query: str, texts: Sequence[str]) -> float:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)
        return 0.5

    with pytest.raises(ScorerTimeoutError):
        Reranker(Calls(score), timeout=0.01).rerank(QUERY, ["a"])


def test_an_unexpected_exception_has_its_cause(rank: Door) -> None:
    """A ScorerError names the scorer and the exception's type; its text stays in the cause."""
    error = RuntimeError("could not read 'a secret document'")
    with pytest.raises(ScorerError) as caught:
        rank(Reranker(FakeScorer(error=error)))
    assert str(caught.value) == "fake: failed with RuntimeError: see the cause"
    assert caught.value.__cause__ is error


def test_a_scorer_that_is_not_async_is_a_scorer_error() -> None:
    """A likely slip of a scorer of one's own: ``def`` instead of ``async def``."""

    class Sync(FakeScorer):
        def score(self, query: str, texts: Sequence[str]) -> Any:  # type: ignore[override]
            return None

    with pytest.raises(ScorerError, match="fake: failed with TypeError"):
        Reranker(Sync()).rerank(QUERY, TEXTS)
