"""Retrieve, rerank, answer, over vector stores and real embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from support.langchain_parts import Repeating, embedded, minilm

from langchain_rerankers import RerankCompressor, RerankRetriever

ABOUT_MEMORY = [
    "To find a memory leak, take two tracemalloc snapshots and compare which lines allocated more.",
    "A memory leak in Python is often a cache that is never emptied, or a reference cycle.",
]
OTHERS = [
    f"{subject} {verb}."
    for subject in ("A socket", "The JSON parser", "A regular expression", "The calendar module", "An iterator")
    for verb in ("reads what it is given", "is described in chapter nine", "raises an error", "has a timeout")
]
QUERY = "How do I find a memory leak in Python?"
ELSEWHERE = "Which wine goes with oysters?"
NOTHING = "The manual does not say."


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    """Return real embeddings."""
    return minilm()


def documents() -> list[Document]:
    """Return documents with numbers as their metadata."""
    return [Document(text, metadata={"number": number}) for number, text in enumerate([*OTHERS, *ABOUT_MEMORY])]


def ids() -> list[str]:
    """Return an id a document, of the form that Qdrant asks for."""
    return [f"00000000-0000-4000-8000-{number:012}" for number in range(len(documents()))]


def in_memory(embeddings: Embeddings) -> Iterator[VectorStore]:
    """Yield langchain-core's own store."""
    yield InMemoryVectorStore(embeddings)


def faiss(embeddings: Embeddings) -> Iterator[VectorStore]:
    """Yield an index of FAISS."""
    pytest.importorskip("faiss")
    from support.faiss_store import FaissStore

    yield FaissStore(embeddings, 384)


def qdrant(embeddings: Embeddings) -> Iterator[VectorStore]:
    """Yield a collection of Qdrant in this process."""
    pytest.importorskip("langchain_qdrant")
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    size = models.VectorParams(size=384, distance=models.Distance.COSINE)
    client.create_collection("manual", vectors_config=size)
    yield QdrantVectorStore(client, "manual", embeddings)
    client.close()


@pytest.fixture(scope="module", params=[in_memory, faiss, qdrant], ids=lambda make: make.__name__)
def store(request: pytest.FixtureRequest, embeddings: Embeddings) -> Iterator[VectorStore]:
    """Return each store in turn, filled."""
    make: Callable[[Embeddings], Iterator[VectorStore]] = request.param
    for made in make(embeddings):
        made.add_documents(documents(), ids=ids())
        yield made


@pytest.fixture
def filled() -> VectorStore:
    """Return langchain-core's own store, filled."""
    store = InMemoryVectorStore(minilm())
    store.add_documents(documents())
    return store


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Return False and True in turn."""
    return request.param


def invoke(runnable: Any, value: Any, *, is_async: bool) -> Any:
    """Invoke a runnable one way or the other."""
    return asyncio.run(runnable.ainvoke(value)) if is_async else runnable.invoke(value)


def two_stages(store: VectorStore, **options: Any) -> RerankRetriever:
    """Return a retriever of 20 candidates, reranked by the embedded model."""
    return RerankRetriever(
        retriever=store.as_retriever(search_kwargs={"k": 20}),
        compressor=RerankCompressor(reranker=embedded(), **options),
    )


def test_a_store_finds_and_the_model_ranks(store: VectorStore, is_async: bool) -> None:
    """Ids and metadata are the store's; LangGraph's serializer keeps the documents whole."""
    best = invoke(two_stages(store, top_n=3), QUERY, is_async=is_async)
    assert {document.page_content for document in best[:2]} == set(ABOUT_MEMORY)
    # Qdrant's documents have their ids in the metadata.
    found = [document.id or document.metadata["_id"] for document in best]
    assert found == [ids()[document.metadata["number"]] for document in best]
    scores = [document.metadata["relevance_score"] for document in best]
    assert scores == sorted(scores, reverse=True)
    serializer = JsonPlusSerializer()
    restored = serializer.loads_typed(serializer.dumps_typed(best))
    assert [Document.model_validate(kept) for kept in restored] == best


def answering(store: VectorStore) -> Runnable[str, str]:
    """Return a chain that answers from at most 5 of 20 documents above a threshold, or says that it cannot."""
    prompt = ChatPromptTemplate.from_template("Answer {question} from:\n{context}")

    def context(found: dict[str, Any]) -> str:
        given: Sequence[Document] = found["documents"]
        return "\n".join(document.page_content for document in given)

    answer = RunnablePassthrough.assign(context=context) | prompt | Repeating() | StrOutputParser()
    retriever = two_stages(store, top_n=5, score_threshold=0.5)
    return {"question": RunnablePassthrough(), "documents": retriever} | RunnableBranch(
        (lambda found: not found["documents"], lambda found: NOTHING), answer
    )


def test_a_chain_answers_from_what_is_relevant(filled: VectorStore, is_async: bool) -> None:
    """The model reads what is above the threshold, and nothing else."""
    answer = invoke(answering(filled), QUERY, is_async=is_async)
    first, *read = answer.splitlines()
    assert first == f"Answer {QUERY} from:"
    assert set(ABOUT_MEMORY) <= set(read)
    assert len(read) <= 5


def test_a_chain_says_that_nothing_is_relevant(filled: VectorStore, is_async: bool) -> None:
    """The store finds 20 documents all the same; none survives, and no model is asked."""
    assert len(filled.similarity_search(ELSEWHERE, k=20)) == 20
    assert invoke(answering(filled), ELSEWHERE, is_async=is_async) == NOTHING
