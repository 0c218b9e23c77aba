"""HybridRetriever: keywords and vectors as one first stage, without duplicates, before the reranker."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError
from support.langchain_parts import FirstStage, Words, embedded, minilm

from langchain_rerankers import HybridRetriever, RerankCompressor, RerankRetriever

Retrieve = Callable[..., list[Document]]

MANUAL = {
    "gc": "gc.collect() frees reference cycles, and returns the number of unreachable objects.",
    "tracemalloc": "tracemalloc traces memory blocks allocated by Python, and finds what is leaking.",
    "socket": "Sockets connect two programs, on one machine or on two.",
    "json": "json.dumps() writes an object as JSON text.",
    "roof": "A leak in the roof is found by following the water upwards.",
}


@pytest.fixture(params=["sync", "async"])
def retrieve(request: pytest.FixtureRequest) -> Retrieve:
    """Return a function that calls a retriever, sync and async in turn."""

    def call(retriever: Any, query: str = "query", config: Any = None) -> list[Document]:
        if request.param == "sync":
            return retriever.invoke(query, config)
        return asyncio.run(retriever.ainvoke(query, config))

    return call


def source(*documents: Document) -> FirstStage:
    """Return a retriever of documents in their order."""
    return FirstStage(documents=list(documents))


def shown(documents: list[Document]) -> list[tuple[str | None, str]]:
    """Return ids and texts."""
    return [(document.id, document.page_content) for document in documents]


def test_what_both_found_comes_first(retrieve: Retrieve) -> None:
    """By reciprocal rank fusion, the order of the sources among equals."""
    a, b, c, d = (Document(name, id=name) for name in "abcd")
    hybrid = HybridRetriever(retrievers=[source(a, b, c), source(d, c)])
    assert [document.id for document in retrieve(hybrid)] == ["c", "a", "d", "b"]
    weighted = HybridRetriever(retrievers=[source(a, b, c), source(d, c)], weights=[0, 1], candidates=3)
    assert [document.id for document in retrieve(weighted)] == ["d", "c", "a"]


def test_documents_of_one_id_are_one(retrieve: Retrieve) -> None:
    """Even where a source cut the text; the first source's text and values stay, and all metadata is kept."""
    one = Document("the whole text", id="1", metadata={"page": 1, "source": "words"})
    same = Document("the whole", id="1", metadata={"score": 0.5, "source": "vectors"})
    given = copy.deepcopy([one, same])
    [merged] = retrieve(HybridRetriever(retrievers=[source(one), source(same)]))
    assert shown([merged]) == [("1", "the whole text")]
    assert merged.metadata == {"page": 1, "source": "words", "score": 0.5, "retrieval_score": 1.0}
    assert [one, same] == given


def test_documents_of_two_ids_are_two(retrieve: Retrieve) -> None:
    """Whatever their texts."""
    hybrid = HybridRetriever(retrievers=[source(Document("text", id="1")), source(Document("text", id="2"))])
    assert shown(retrieve(hybrid)) == [("1", "text"), ("2", "text")]


@pytest.mark.parametrize("ids", [(None, None), ("1", None), (None, "1")])
def test_a_document_without_an_id_is_known_by_its_text(retrieve: Retrieve, ids: Any) -> None:
    """And gets the id that another source knows."""
    sources = [source(Document("text", id=known)) for known in ids]
    expected = "1" if "1" in ids else None
    assert shown(retrieve(HybridRetriever(retrievers=sources))) == [(expected, "text")]


@pytest.mark.parametrize(("key", "value", "options"), [("_id", "7", {}), ("number", 7, {"id_key": "number"})])
def test_the_id_may_be_in_the_metadata(retrieve: Retrieve, key: str, value: Any, options: dict[str, Any]) -> None:
    """As Qdrant's is, or in a key of one's own; sources need not agree about where."""
    sources = [source(Document("the text", metadata={key: value})), source(Document("text", id="7"))]
    assert shown(retrieve(HybridRetriever(retrievers=sources, **options))) == [("7", "the text")]


def test_a_source_that_repeats_itself_gains_nothing(retrieve: Retrieve) -> None:
    """A document counts once in each source, at its best rank."""
    a, b = Document("a"), Document("b")
    hybrid = HybridRetriever(retrievers=[source(b, a, a, a)])
    assert shown(retrieve(hybrid)) == [(None, "b"), (None, "a")]


def test_sources_may_find_nothing_and_may_fail(retrieve: Retrieve) -> None:
    """Nothing found is no error; an error is the caller's, not a shorter list."""
    assert retrieve(HybridRetriever(retrievers=[source(), source()])) == []

    def fails(query: str) -> list[Document]:
        raise LookupError(query)

    with pytest.raises(LookupError):
        retrieve(HybridRetriever(retrievers=[source(Document("a")), RunnableLambda(fails)]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"retrievers": []}, "at least 1 item"),
        ({"weights": [1.0]}, "1 weights for 2 lists"),
        ({"weights": [1.0, -1.0]}, "none may be below 0"),
        ({"weights": [1.0, float("nan")]}, "give a finite number"),
        ({"candidates": 0}, "greater than or equal to 1"),
        ({"top_k": 3}, "top_k"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    """When it is made."""
    with pytest.raises(ValidationError, match=message):
        HybridRetriever(**{"retrievers": [source(), source()], **wrong})


def test_sync_sources_are_asked_at_once() -> None:
    """Each waits for the other, so that neither could answer alone."""
    barrier = threading.Barrier(2, timeout=20)
    waiting = RunnableLambda(lambda query: [Document(str(barrier.wait() >= 0))])
    assert len(HybridRetriever(retrievers=[waiting, waiting]).invoke("query")) == 1


async def test_async_sources_are_asked_at_once_and_end_together() -> None:
    """The failure of one, or the caller's cancelling, ends the other."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(query: str) -> list[Document]:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return []

    async def fails(query: str) -> list[Document]:
        await begun.wait()
        raise LookupError(query)

    def never(query: str) -> list[Document]:
        raise AssertionError("the async path was not taken")

    hybrid = HybridRetriever(retrievers=[RunnableLambda(never, waits), RunnableLambda(never, fails)])
    with pytest.raises(LookupError):
        await hybrid.ainvoke("query")
    await asyncio.wait_for(ended.wait(), 20)
    begun.clear()
    ended.clear()
    call = asyncio.create_task(HybridRetriever(retrievers=[RunnableLambda(never, waits)]).ainvoke("query"))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(ended.wait(), 20)


def test_keywords_and_vectors_before_the_reranker(retrieve: Retrieve) -> None:
    """End to end: BM25 and MiniLM's vectors find candidates, each once, and the embedded model ranks them."""
    documents = [Document(text, id=name) for name, text in MANUAL.items()]
    store = InMemoryVectorStore(minilm())
    store.add_documents(documents)
    first = HybridRetriever(
        retrievers=[Words(documents=documents, k=3), store.as_retriever(search_kwargs={"k": 3})]
    )
    collector = RunCollectorCallbackHandler()
    query = "How do I find a memory leak?"
    candidates = [document.id for document in retrieve(first, query)]
    assert len(candidates) == len(set(candidates))
    assert {"roof", "tracemalloc"} <= set(candidates)
    best = retrieve(
        RerankRetriever(retriever=first, compressor=RerankCompressor(reranker=embedded(), top_n=2)),
        query,
        {"callbacks": [collector]},
    )
    assert best[0].id == "tracemalloc"
    assert len(best) == 2
    [root] = collector.traced_runs
    assert [run.name for run in root.child_runs] == ["HybridRetriever", "RerankCompressor"]
    assert {run.name for run in root.child_runs[0].child_runs} == {"Words", "VectorStoreRetriever"}
