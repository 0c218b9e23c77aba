"""Many queries in one call: what a loop returns, in less time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scorers import Calls, Endless
from support.waiting import until

from rerank_core import ConfigurationError, MissingExtraError, Ranking, Reranker, ScorerUnavailableError, Selection
from rerank_core.testing import FakeScorer

TEXTS = st.lists(
    st.sampled_from(["", "memory", "leak", "memory leak", "spring"]) | st.text(max_size=5), max_size=5
)
QUERIES = st.lists(st.tuples(st.sampled_from(["memory leak", "spring", "zebra"]), TEXTS), max_size=8)


def essence(rankings: Sequence[Ranking[Any]]) -> list[Any]:
    """Return what must be equal: all but the times."""
    return [
        (ranking.query, ranking.model, ranking.documents, ranking.scores, ranking.error) for ranking in rankings
    ]


@given(QUERIES)
def test_many_equals_a_loop(pairs: list[tuple[str, list[str]]]) -> None:
    """Ranking by ranking, in the order of the queries, by both doors, with a selection too."""
    queries = [query for query, _ in pairs]
    lists = [texts for _, texts in pairs]
    reranker = Reranker(FakeScorer())
    selection = Selection(adaptive_ratio=0.5, top_n=2)
    loop = essence([reranker.rerank(query, texts, selection=selection) for query, texts in pairs])
    assert essence(reranker.rerank_many(queries, lists, selection=selection)) == loop
    assert essence(asyncio.run(reranker.arerank_many(queries, lists, selection=selection))) == loop


async def test_more_queries_than_are_under_way_at_once() -> None:
    """Their number is bounded, and each answer belongs to its query."""
    running, most = 0, 0

    async def score(query: str, texts: Sequence[str]) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.001)
        running -= 1
        return int(query) / 1000

    queries = [str(number) for number in range(200)]
    rankings = await Reranker(Calls(score)).arerank_many(queries, [["text"]] * 200)
    assert [ranking.scores[0] for ranking in rankings] == [number / 1000 for number in range(200)]
    assert 2 <= most <= 32


def test_queries_wait_together() -> None:
    """Twenty calls are under way at once: each waits for all the others."""

    most = 0

    async def score(query: str, texts: Sequence[str]) -> float:
        nonlocal most
        most = max(most, scorer.active)
        await until(lambda: most == 20)
        return 0.5

    scorer = Calls(score)
    assert len(Reranker(scorer).rerank_many(["memory"] * 20, [["a", "b"]] * 20)) == 20


def test_no_queries_give_no_rankings() -> None:
    """An empty list, and no call."""
    assert Reranker(FakeScorer()).rerank_many([], []) == []


def test_text_fn_reads_objects_of_every_list() -> None:
    """Generators of documents are read too."""
    rankings = Reranker(FakeScorer()).rerank_many(
        ["2", "3"], [(number for number in (1, 2)), [3, 4]], text_fn=lambda number: f"number {number}"
    )
    assert [ranking[0].document for ranking in rankings] == [2, 3]


@pytest.mark.parametrize(
    ("queries", "lists", "message"),
    [
        (["a", "b"], [["x"]], "2 queries but 1 lists of documents: give one each"),
        ([], [["x"]], "0 queries but 1 lists of documents"),
        ("ab", [["x"], ["y"]], "queries is a single string: give a list of queries"),
        (["a"], ["x"], "documents is a single str"),
        (["a", ""], [["x"], ["y"]], "the query is empty"),
        (["a", "b"], [["x"], ["y", None]], r"documents\[1\] is None"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(queries: Any, lists: Any, message: str) -> None:
    """Also when only the last list is at fault."""
    scorer = FakeScorer()
    with pytest.raises(ConfigurationError, match=message):
        Reranker(scorer).rerank_many(queries, lists)
    assert scorer.calls == 0


def test_a_failure_cancels_the_rest() -> None:
    """The first error is raised as it is, at once, and nothing is left running."""
    error = ScorerUnavailableError("down")

    async def score(query: str, texts: Sequence[str]) -> float:
        await (anyio.sleep(0.01) if query == "bad" else anyio.sleep_forever())
        raise error

    scorer = Calls(score)
    with pytest.raises(ScorerUnavailableError) as caught:
        Reranker(scorer).rerank_many(["good", "bad", "good"], [["a"]] * 3)
    assert caught.value is error
    assert scorer.active == 0


def test_after_a_failure_nothing_more_is_begun() -> None:
    """Not even with a scorer that never waits, so that no cancellation reaches it."""
    scorer = FakeScorer(error=ScorerUnavailableError("down"))
    with pytest.raises(ScorerUnavailableError):
        Reranker(scorer).rerank_many(["a"] * 100, [["text"]] * 100)
    assert scorer.calls == 1


def test_with_passthrough_a_failure_stays_with_its_query() -> None:
    """The other rankings are scored."""

    async def score(query: str, texts: Sequence[str]) -> float:
        if query == "bad":
            raise ScorerUnavailableError("down")
        return 0.5

    rankings = Reranker(Calls(score), on_error="passthrough").rerank_many(["good", "bad"], [["a"], ["b"]])
    assert [ranking.error is None for ranking in rankings] == [True, False]
    assert [ranking.scores for ranking in rankings] == [(0.5,), (None,)]


def test_the_deadline_holds_for_each_query_from_its_turn() -> None:
    """A thousand calls of 0.1 s outlast the timeout together, but none of them does alone."""
    reranker = Reranker(FakeScorer(latency=0.1), timeout=2.0)
    assert len(reranker.rerank_many(["memory"] * 1000, [["a"]] * 1000)) == 1000


async def test_a_cancelled_call_leaves_nothing_running() -> None:
    """All queries under way end with the caller."""
    scorer = Endless()
    call = asyncio.ensure_future(Reranker(scorer).arerank_many(["a"] * 50, [["text"]] * 50))
    await until(lambda: scorer.active)
    assert scorer.active > 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active == 0


@pytest.mark.parametrize("door", ["rerank_many", "arerank_many"])
def test_progress_shows_a_bar(door: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One step a query, on the standard error stream; the rankings are the same."""
    reranker = Reranker(FakeScorer())
    queries, lists = ["memory", "leak", "memory leak"], [["a memory leak"], [], ["leak", "memory"]]
    result = getattr(reranker, door)(queries, lists, progress=True)
    rankings = asyncio.run(result) if door.startswith("a") else result
    assert essence(rankings) == essence(reranker.rerank_many(queries, lists))
    output = capsys.readouterr()
    assert "reranking" in output.err
    assert "3/3" in output.err
    assert output.out == ""


def test_a_failure_closes_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """It stays where it was."""
    with pytest.raises(ScorerUnavailableError):
        Reranker(FakeScorer(error=ScorerUnavailableError("down"))).rerank_many(["a"], [["b"]], progress=True)
    assert "0/1" in capsys.readouterr().err


def test_progress_without_tqdm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    scorer = FakeScorer()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(
        MissingExtraError, match=r"progress=True needs the package 'tqdm'.*rerank-bridge\[notebook\]"
    ):
        Reranker(scorer).rerank_many(["a"], [["b"]], progress=True)
    assert scorer.calls == 0
