"""RerankCompressor: what happens to documents, and calls from loops, threads and tasks."""

from __future__ import annotations

import asyncio
import copy
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.scorers import Answers, Calls, Endless
from support.waiting import until

from langchain_rerankers import RerankCompressor
from rerank_core import Reranker, ScorerError
from rerank_core.testing import FakeScorer

Compress = Callable[..., list[Document]]


class Page(Document):
    """A document with a field of its own."""

    number: int = 0


@pytest.fixture(params=["sync", "async"])
def compress(request: pytest.FixtureRequest) -> Compress:
    """Return a function that calls a compressor, sync and async in turn."""

    def call(compressor: RerankCompressor, documents: Sequence[Document], query: str = QUERY) -> list[Document]:
        if request.param == "sync":
            return compressor.compress_documents(documents, query)
        return asyncio.run(compressor.acompress_documents(documents, query))

    return call


def fake(**options: Any) -> RerankCompressor:
    """Return a compressor around a scorer without a model."""
    return RerankCompressor(reranker=Reranker(FakeScorer()), **options)


def documents() -> list[Document]:
    """Return documents with ids and nested metadata."""
    return [
        Document(text, id=f"id-{number}", metadata={"source": f"{number}.md", "tags": {"n": [number]}})
        for number, text in enumerate(TEXTS)
    ]


def test_ids_and_metadata_are_kept(compress: Compress) -> None:
    """Each result is the document that was given, plus a score."""
    given = {document.page_content: document for document in documents()}
    ranked = compress(fake(), documents())
    assert [document.page_content for document in ranked] == BEST_FIRST
    for document in ranked:
        original = given[document.page_content]
        assert document.id == original.id
        assert {**document.metadata, "relevance_score": None} == {**original.metadata, "relevance_score": None}
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_results_are_plain_documents(compress: Compress) -> None:
    """Whatever a subclass carries besides, such as embeddings, would end in checkpoints and traces."""
    ranked = compress(fake(), [Page(page_content="memory leak", id="a", number=7), Document("Paris")])
    assert [type(document) for document in ranked] == [Document, Document]
    assert (ranked[0].id, ranked[0].page_content) == ("a", "memory leak")


def test_nested_metadata_is_not_shared(compress: Compress) -> None:
    """Containers are copied all the way down, also one that holds itself."""
    nested: dict[str, Any] = {"tags": ["a", ("b", {"c": [1]})], "seen": {1, 2}}
    nested["self"] = nested
    [best] = compress(fake(), [Document("memory leak", metadata=nested)])
    best.metadata["tags"][1][1]["c"].append(2)
    best.metadata["tags"].append("d")
    best.metadata["seen"].add(3)
    assert (nested["tags"], nested["seen"]) == (["a", ("b", {"c": [1]})], {1, 2})
    assert best.metadata["self"]["self"] is best.metadata["self"]


def test_the_callers_documents_are_never_changed(compress: Compress) -> None:
    """Neither they nor their metadata nor the list, which the results do not share."""
    given = documents()
    objects, snapshot = list(given), copy.deepcopy(given)
    ranked = compress(fake(top_n=2), given)
    for document in ranked:
        document.metadata["source"] = "changed"
        document.page_content = "changed"
    assert given == snapshot
    assert all(one is other for one, other in zip(given, objects, strict=True))


def test_documents_may_be_any_sequence(compress: Compress) -> None:
    """A tuple is ranked as a list is."""
    assert compress(fake(), tuple(documents())) == compress(fake(), documents())


def test_scores_are_python_floats_that_langgraph_can_store(compress: Compress) -> None:
    """Though the scorer returned numpy's: a checkpoint with the documents is read back as it was."""
    compressor = RerankCompressor(reranker=Reranker(Answers(np.array([0.25, 0.5], dtype=np.float32))))
    ranked = compress(compressor, [Document("a", id="1"), Document("b", id="2", metadata={"page": 3})])
    assert [type(document.metadata["relevance_score"]) for document in ranked] == [float, float]
    serializer = JsonPlusSerializer()
    assert serializer.loads_typed(serializer.dumps_typed(ranked)) == ranked
    assert [Document.model_validate_json(document.model_dump_json()) for document in ranked] == ranked


def test_a_stale_score_is_overwritten(compress: Compress) -> None:
    """The score is this compressor's, not one that an earlier stage left in the metadata."""
    given = [Document(text, metadata={"relevance_score": 0.999}) for text in TEXTS]
    ranked = compress(fake(), given)
    assert [document.page_content for document in ranked] == BEST_FIRST
    assert all(document.metadata["relevance_score"] != 0.999 for document in ranked)


@pytest.mark.parametrize("query", [QUERY, " "], ids=["scorer fails", "blank query"])
def test_a_passthrough_keeps_the_first_stages_scores(compress: Compress, query: str) -> None:
    """In its own metadata and beside our score, which is None; the documents say that they were not reranked."""
    reranker = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough")
    given = [Document(text, metadata={"relevance_score": 0.999, "rrf": 0.5}) for text in TEXTS]
    given[1].metadata = {}
    settings = RerankCompressor(reranker=reranker, top_n=2, score_threshold=0.9, order="edges")
    ranked = compress(settings, given, query)
    assert [document.page_content for document in ranked] == TEXTS[:2]
    assert [document.metadata for document in ranked] == [
        {"relevance_score": None, "rrf": 0.5, "retrieval_score": 0.999, "reranked": False},
        {"relevance_score": None, "reranked": False},
    ]


def test_the_score_may_have_another_key(compress: Compress) -> None:
    """Then no other metadata is touched; a change counts from the next call on."""
    compressor = fake(score_key="rerank", top_n=1)
    [best] = compress(compressor, [Document("memory leak", metadata={"relevance_score": "theirs"})])
    assert best.metadata == {"relevance_score": "theirs", "rerank": pytest.approx(0.9, abs=0.1)}
    compressor.score_key = "score"
    assert set(compress(compressor, documents())[0].metadata) == {"source", "tags", "score"}


def test_metadata_may_hold_what_cannot_be_copied(compress: Compress) -> None:
    """A lock, a generator, a socket: the result refers to the same object."""
    lock, numbers = threading.Lock(), (number for number in range(3))
    [best] = compress(fake(), [Document("memory leak", metadata={"lock": lock, "numbers": numbers})])
    assert best.metadata["lock"] is lock
    assert best.metadata["numbers"] is numbers


def test_equal_documents_stay_apart(compress: Compress) -> None:
    """Two documents of one text and one id are two results, with the same score."""
    twice = [Document("memory leak", id="a", metadata={"copy": number}) for number in range(2)]
    ranked = compress(fake(), twice)
    assert [document.metadata["copy"] for document in ranked] == [0, 1]
    assert len({document.metadata["relevance_score"] for document in ranked}) == 1


def test_blank_documents_come_last(compress: Compress) -> None:
    """They score 0.0 without being sent."""
    scorer = FakeScorer()
    compressor = RerankCompressor(reranker=Reranker(scorer))
    ranked = compress(compressor, [Document(""), Document(" \n"), Document("memory leak")])
    assert [document.metadata["relevance_score"] for document in ranked][1:] == [0.0, 0.0]
    assert scorer.seen == ["memory leak"]


def test_scores_of_a_model_on_the_logit_scale_are_probabilities(compress: Compress) -> None:
    """The sigmoid is applied once, and thresholds mean what they say."""
    compressor = RerankCompressor(reranker=Reranker(Answers([-2.0, 3.0], scale="logit")), score_threshold=0.5)
    [best] = compress(compressor, [Document("a"), Document("b")])
    assert best.page_content == "b"
    assert best.metadata["relevance_score"] == pytest.approx(1 / (1 + math.exp(-3.0)))


def test_the_embedded_model_scores_documents(compress: Compress) -> None:
    """The default, without any fake: relevant text first, and the rest under half its score."""
    ranked = compress(RerankCompressor(adaptive_ratio=0.5), documents(), "How do I find a memory leak?")
    assert ranked[0].page_content == "finding a memory leak"
    assert all(document.page_content != "Paris in spring" for document in ranked)


# Loops, tasks and threads


def test_one_compressor_serves_one_loop_after_another() -> None:
    """``asyncio.run`` twice, and a sync call in between."""
    compressor = fake()
    first = asyncio.run(compressor.acompress_documents(documents(), QUERY))
    second = compressor.compress_documents(documents(), QUERY)
    third = asyncio.run(compressor.acompress_documents(documents(), QUERY))
    assert first == second == third


async def test_a_sync_call_works_inside_a_running_loop() -> None:
    """As in a notebook, and in code that calls the sync method from async code."""
    compressor = RerankCompressor(reranker=Reranker(FakeScorer(latency=0.01)))
    within = compressor.compress_documents(documents(), QUERY)
    assert within == await compressor.acompress_documents(documents(), QUERY)


async def test_concurrent_calls_overlap() -> None:
    """Each of eight calls is under way before any ends: no thread pool, no queue in between."""
    arrived = 0

    async def all_arrived(query: str, texts: Sequence[str]) -> float:
        nonlocal arrived
        arrived += 1
        await until(lambda: arrived == 8)
        return float(query)

    compressor = RerankCompressor(reranker=Reranker(Calls(all_arrived)))
    queries = [str(number / 10) for number in range(8)]
    results = await asyncio.gather(*(compressor.acompress_documents(documents(), query) for query in queries))
    assert [str(ranked[0].metadata["relevance_score"]) for ranked in results] == queries


async def test_cancelling_a_call_cancels_the_work() -> None:
    """Nothing runs on when the task has ended."""
    scorer = Endless()
    call = asyncio.create_task(RerankCompressor(reranker=Reranker(scorer)).acompress_documents(documents(), QUERY))
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (scorer.calls, scorer.active) == (1, 0)


def test_a_deadline_ends_the_work(compress: Compress) -> None:
    """It is an error like any other, and passthrough returns what the first stage found."""
    scorer = Endless()
    with pytest.raises(ScorerError, match="timeout"):
        compress(RerankCompressor(reranker=Reranker(scorer, timeout=0.05)), documents())
    reranker = Reranker(scorer, timeout=0.05, on_error="passthrough")
    ranked = compress(RerankCompressor(reranker=reranker), documents())
    assert [document.page_content for document in ranked] == TEXTS
    assert scorer.active == 0
