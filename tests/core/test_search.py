"""two_stage_search and its asynchronous twin: first stages of many kinds, both scores, options and errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_core import (
    ConfigurationError,
    Reranker,
    ScorerError,
    SearchResult,
    Selection,
    atwo_stage_search,
    two_stage_search,
)
from rerank_core.testing import FakeScorer

QUERY = "memory leak"
TEXTS = ["Paris in spring", "finding a memory leak", "memory", "a leak in the roof"]
BEST_FIRST = [1, 2, 3, 0]

Search = Callable[..., list[SearchResult[Any]]]


@dataclass
class Hit:
    """What a search library returns."""

    text: str
    score: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(params=["sync", "async, sync stage", "async, async stage"])
def search(request: pytest.FixtureRequest) -> Search:
    """Return a function that searches, sync and async in turn, with sync and async first stages."""

    def call(query: str, found: Any, reranker: Any = None, **options: Any) -> list[SearchResult[Any]]:
        stage = found if callable(found) else lambda query, candidates: found
        reranker = FakeScorer() if reranker is None else reranker
        if request.param == "sync":
            return two_stage_search(query, stage, reranker, **options)

        async def awaited(query: str, candidates: int) -> Any:
            return stage(query, candidates)

        chosen = awaited if request.param == "async, async stage" else stage
        return asyncio.run(atwo_stage_search(query, chosen, reranker, **options))

    return call


def hits() -> list[Hit]:
    """Return the texts with the first stage's scores and metadata."""
    return [Hit(text, 9.5 - number, {"n": number}) for number, text in enumerate(TEXTS)]


def test_strings_are_ranked(search: Search) -> None:
    """With their place in both stages."""
    results = search(QUERY, TEXTS)
    assert [result.original_index for result in results] == BEST_FIRST
    assert [result.rank for result in results] == [1, 2, 3, 4]
    assert [result.document for result in results] == [TEXTS[index] for index in BEST_FIRST]
    assert all(result.retrieval_score is None and result.metadata == {} for result in results)
    core = Reranker(FakeScorer()).rerank(QUERY, TEXTS)
    assert [result.score for result in results] == [ranked.score for ranked in core]


@pytest.mark.parametrize(
    ("found", "metadata"),
    [
        ([{"text": text, "score": 9.5 - n, "n": n} for n, text in enumerate(TEXTS)], {"n": 1}),
        (
            [{"content": t, "score": 9.5 - n, "metadata": {"a": 1}, "n": n} for n, t in enumerate(TEXTS)],
            {"a": 1, "n": 1},
        ),
        (hits(), {"n": 1}),
        ([(text, 9.5 - number) for number, text in enumerate(TEXTS)], {}),
        ([(Document(text, metadata={"n": n}), np.float32(9.5 - n)) for n, text in enumerate(TEXTS)], {"n": 1}),
        (
            [NodeWithScore(node=TextNode(text=t, metadata={"n": n}), score=9.5 - n) for n, t in enumerate(TEXTS)],
            {"n": 1},
        ),
        ((Hit(text, 9.5 - n, {"n": n}) for n, text in enumerate(list(TEXTS))), {"n": 1}),
    ],
    ids=["mappings", "mappings with metadata", "objects", "pairs", "LangChain", "LlamaIndex", "generator"],
)
def test_both_scores_and_the_metadata_are_kept(found: Any, metadata: dict[str, Any]) -> None:
    """Whatever the first stage returns: its score is a Python float, its own scale untouched."""
    results = two_stage_search(QUERY, lambda query, candidates: found, FakeScorer())
    assert [result.text for result in results] == [TEXTS[index] for index in BEST_FIRST]
    assert [result.retrieval_score for result in results] == [9.5 - index for index in BEST_FIRST]
    assert all(type(result.retrieval_score) is float for result in results)
    assert results[0].metadata == metadata


def test_documents_are_the_callers_own(search: Search) -> None:
    """Neither copied nor changed; the metadata of a result is a copy."""
    found = hits()
    results = search(QUERY, found)
    assert all(result.document is found[result.original_index] for result in results)
    assert results[0].metadata is not found[1].metadata
    assert found == hits()
    with pytest.raises(FrozenInstanceError):
        results[0].rank = 2  # type: ignore[misc]


def test_the_first_stage_is_asked_for_candidates(search: Search) -> None:
    """What it returns beyond is not read, and top_n cuts the rest."""
    asked: list[tuple[str, int]] = []

    def stage(query: str, candidates: int) -> list[str]:
        asked.append((query, candidates))
        return TEXTS

    scorer = FakeScorer()
    results = search(QUERY, stage, scorer, candidates=3, top_n=2)
    assert asked == [(QUERY, 3)]
    assert scorer.seen == TEXTS[:3]
    assert [result.original_index for result in results] == [1, 2]
    assert len(search(QUERY, [f"text {n}" for n in range(200)])) == 10
    assert len(search(QUERY, [f"text {n}" for n in range(200)], top_n=None)) == 100


def test_a_rerankers_thresholds_hold(search: Search) -> None:
    """Except its top_n, which is the search's."""
    strict = Reranker(FakeScorer(), selection=Selection(score_threshold=0.9, top_n=1))
    assert [result.original_index for result in search(QUERY, TEXTS, strict)] == [1]
    assert search("zebra", TEXTS, strict) == []
    wide = Reranker(FakeScorer(), selection=Selection(top_n=1))
    assert len(search(QUERY, TEXTS, wide, top_n=3)) == 3


def test_a_name_is_a_reranker_too(search: Search) -> None:
    """As everywhere."""
    assert search("How do I find a memory leak?", TEXTS, "embedded", top_n=1)[0].original_index == 1


def test_text_fn_finds_the_text(search: Search) -> None:
    """Where it has another name; all else of a mapping is metadata then."""
    found = [{"body": text, "score": 1} for text in TEXTS]
    results = search(QUERY, found, text_fn=lambda row: row["body"])
    assert [result.original_index for result in results] == BEST_FIRST
    assert results[0].metadata == {"body": TEXTS[1]}
    pairs = [({"body": text}, 0.5) for text in TEXTS]
    assert search(QUERY, pairs, text_fn=lambda row: row["body"])[0].retrieval_score == 0.5


def test_nothing_found_is_no_result(search: Search) -> None:
    """Without a request."""
    scorer = FakeScorer()
    assert search(QUERY, [], scorer) == []
    assert scorer.calls == 0


def test_a_passthrough_keeps_the_first_stages_order(search: Search) -> None:
    """With its scores; ours are None."""
    lenient = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough")
    results = search(QUERY, hits(), lenient, top_n=2)
    assert [(result.original_index, result.score, result.retrieval_score) for result in results] == [
        (0, None, 9.5),
        (1, None, 8.5),
    ]
    with pytest.raises(ScorerError, match="RuntimeError"):
        search(QUERY, hits(), FakeScorer(error=RuntimeError("down")))


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        ("one text", {}, "search returned a str: it must return a list of documents"),
        ({"text": "one"}, {}, "search returned a dict"),
        (None, {}, "search returned a NoneType"),
        ([*TEXTS, 7], {}, "document 4, a int, has no string as text, page_content, content: give text_fn="),
        ([{"body": "text"}], {}, "document 0, a dict, has no string"),
        ([{"text": 5}], {}, "document 0, a dict, has no string"),
        ([("text", "high")], {}, "document 0 has a str as its score: give a number or None"),
        ([Hit("text", True)], {}, "document 0 has a bool as its score"),
        (TEXTS, {"candidates": 0}, "candidates is 0"),
        (TEXTS, {"top_n": 0}, "top_n is 0"),
        (["text"], {"text_fn": lambda text: None}, "document 0, a str, has no string"),
    ],
)
def test_what_cannot_be_read_is_refused(search: Search, found: Any, options: dict[str, Any], message: str) -> None:
    """The error names the position and the fix, and no text."""
    with pytest.raises(ConfigurationError, match=message):
        search(QUERY, found, **options)


def test_a_blank_query_is_refused_before_the_search(search: Search) -> None:
    """So that no first stage is asked for nothing."""
    asked: list[str] = []

    def stage(query: str, candidates: int) -> list[str]:
        asked.append(query)
        return TEXTS

    with pytest.raises(ConfigurationError, match="query is empty"):
        search(" ", stage)
    assert asked == []


def test_an_asynchronous_stage_needs_the_asynchronous_search() -> None:
    """The error says so, and no coroutine is left behind."""

    async def stage(query: str, candidates: int) -> list[str]:
        return TEXTS

    with pytest.raises(ConfigurationError, match="call atwo_stage_search"):
        two_stage_search(QUERY, stage, FakeScorer())  # type: ignore[arg-type]


async def test_asynchronous_stages_of_other_forms() -> None:
    """An object with an asynchronous call runs in the loop; a function that returns an awaitable is awaited."""

    class Stage:
        """A client that is called."""

        async def __call__(self, query: str, candidates: int) -> list[str]:
            assert threading.current_thread() is thread
            return TEXTS

    async def answer() -> list[str]:
        return TEXTS

    thread = threading.current_thread()
    assert len(await atwo_stage_search(QUERY, Stage(), FakeScorer())) == 4
    assert len(await atwo_stage_search(QUERY, lambda query, candidates: answer(), FakeScorer())) == 4


async def test_a_synchronous_stage_does_not_block_the_loop() -> None:
    """It runs in a thread; the loop goes on meanwhile."""
    went_on = threading.Event()

    def stage(query: str, candidates: int) -> list[str]:
        assert went_on.wait(20)
        return TEXTS

    call = asyncio.create_task(atwo_stage_search(QUERY, stage, FakeScorer(), top_n=1))
    await asyncio.sleep(0)
    went_on.set()
    assert (await call)[0].original_index == 1


def test_any_real_number_is_a_score() -> None:
    """But nothing that float() would have to guess."""
    assert two_stage_search(QUERY, lambda query, candidates: [("text", 3)], FakeScorer())[0].retrieval_score == 3.0
    with pytest.raises(ConfigurationError, match="Decimal"):
        two_stage_search(QUERY, lambda query, candidates: [("text", Decimal(3))], FakeScorer())
