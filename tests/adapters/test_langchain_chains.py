"""Where LangChain applications put a reranker: compression retrievers, pipelines, chains, tools and agents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langgraph.checkpoint.memory import InMemorySaver
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.langchain_parts import FirstStage, Repeating, Scripted, vector_store

from langchain_rerankers import RerankCompressor, RerankRetriever
from rerank_core import Reranker, ScorerError
from rerank_core.testing import FakeScorer


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Return False and True in turn."""
    return request.param == "async"


def invoke(runnable: Any, value: Any, *, is_async: bool, config: Any = None) -> Any:
    """Invoke a runnable one way or the other."""
    return asyncio.run(runnable.ainvoke(value, config)) if is_async else runnable.invoke(value, config)


def compressor(**options: Any) -> RerankCompressor:
    """Return a compressor around a scorer without a model."""
    return RerankCompressor(reranker=Reranker(FakeScorer()), **options)


def retriever(**options: Any) -> RerankRetriever:
    """Return a two-stage retriever over a vector store."""
    first = vector_store(TEXTS).as_retriever(search_kwargs={"k": 4})
    return RerankRetriever(retriever=first, compressor=compressor(), **options)


def joined(documents: Sequence[Document]) -> str:
    """Return the texts of documents, a line each."""
    return "\n".join(document.page_content for document in documents)


class Shout(BaseDocumentTransformer):
    """Puts every text in capitals."""

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """Return new documents."""
        return [
            document.model_copy(update={"page_content": document.page_content.upper()}) for document in documents
        ]

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """Return new documents."""
        return self.transform_documents(documents)


def test_a_contextual_compression_retriever_reranks(is_async: bool) -> None:
    """With ids and scores; two-stage retrieval of langchain-core alone gives the same."""
    found = vector_store(TEXTS).as_retriever(search_kwargs={"k": 4})
    classic = ContextualCompressionRetriever(base_retriever=found, base_compressor=compressor(top_n=3))
    ranked = invoke(classic, QUERY, is_async=is_async)
    assert [document.page_content for document in ranked] == BEST_FIRST[:3]
    assert ranked[0].id == "id-1"
    assert ranked == invoke(retriever(top_n=3), QUERY, is_async=is_async)


def test_a_contextual_compression_retriever_may_find_nothing(is_async: bool) -> None:
    """An empty first stage is no error."""
    classic = ContextualCompressionRetriever(base_retriever=FirstStage(documents=[]), base_compressor=compressor())
    assert invoke(classic, QUERY, is_async=is_async) == []


def test_a_pipeline_reranks_between_its_steps(is_async: bool) -> None:
    """Transformers before and after see and change only what they should."""
    given = [Document(text, id=text) for text in TEXTS]
    pipeline = DocumentCompressorPipeline(transformers=[compressor(top_n=2), Shout(), compressor(top_n=1)])
    ranked = (
        asyncio.run(pipeline.acompress_documents(given, QUERY))
        if is_async
        else pipeline.compress_documents(given, QUERY)
    )
    assert [(document.page_content, document.id) for document in ranked] == [
        ("FINDING A MEMORY LEAK", "finding a memory leak")
    ]
    assert given == [Document(text, id=text) for text in TEXTS]


def test_a_pipeline_may_be_left_with_nothing(is_async: bool) -> None:
    """It does pass empty lists on, with whatever query."""
    pipeline = DocumentCompressorPipeline(transformers=[compressor(score_threshold=1.0), compressor()])
    given = [Document(text) for text in TEXTS]
    if is_async:
        assert asyncio.run(pipeline.acompress_documents(given, QUERY)) == []
        assert asyncio.run(pipeline.acompress_documents([], "")) == []
    else:
        assert pipeline.compress_documents(given, QUERY) == []
        assert pipeline.compress_documents([], "") == []


def test_a_chain_answers_from_the_best_documents(is_async: bool) -> None:
    """Retrieve, format, prompt, model, parser: the model reads the reranked documents in order, no other."""
    prompt = ChatPromptTemplate.from_template("{context}\n---\n{question}")
    chain = (
        {"context": retriever(top_n=2) | joined, "question": RunnablePassthrough()}
        | prompt
        | Repeating()
        | StrOutputParser()
    )
    assert invoke(chain, QUERY, is_async=is_async) == f"{BEST_FIRST[0]}\n{BEST_FIRST[1]}\n---\n{QUERY}"


async def test_a_chain_streams_and_batches() -> None:
    """The retriever holds nothing up that LangChain does with a chain."""
    chain = retriever(top_n=1) | joined | Repeating() | StrOutputParser()
    assert "".join([chunk async for chunk in chain.astream(QUERY)]) == BEST_FIRST[0]
    assert await chain.abatch([QUERY, "Paris"]) == [BEST_FIRST[0], "Paris in spring"]
    assert chain.batch(["roof"]) == ["a leak in the roof"]


def test_a_tool_returns_content_and_documents(is_async: bool) -> None:
    """The model gets the texts; the artifact holds the documents with ids and scores."""
    tool = create_retriever_tool(
        retriever(top_n=2), "search", "Searches the manual.", response_format="content_and_artifact"
    )
    call = {"name": "search", "args": {"query": QUERY}, "id": "call-1", "type": "tool_call"}
    message = invoke(tool, call, is_async=is_async)
    assert isinstance(message, ToolMessage)
    assert (message.content, message.tool_call_id) == ("\n\n".join(BEST_FIRST[:2]), "call-1")
    assert [document.id for document in message.artifact] == ["id-1", "id-2"]
    scores = [document.metadata["relevance_score"] for document in message.artifact]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("model", ["fake", "embedded"])
def test_an_agent_searches_and_answers(is_async: bool, model: str) -> None:
    """The tool's message is in the agent's state, documents included, after a trip through a checkpoint."""
    agents = pytest.importorskip("langchain.agents")
    second = RerankCompressor(top_n=2) if model == "embedded" else compressor(top_n=2)
    found = vector_store(TEXTS).as_retriever(search_kwargs={"k": 4})
    tool = create_retriever_tool(
        RerankRetriever(retriever=found, compressor=second),
        "search",
        "Searches the manual.",
        response_format="content_and_artifact",
    )
    question = "finding a memory leak"
    calls = [{"name": "search", "args": {"query": question}, "id": "call-1", "type": "tool_call"}]
    chat = Scripted(script=[AIMessage("", tool_calls=calls), AIMessage("Use tracemalloc.")])
    saver = InMemorySaver()
    agent = agents.create_agent(chat, [tool], checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}}
    result = invoke(agent, {"messages": [HumanMessage("Where is my memory?")]}, is_async=is_async, config=config)
    assert result["messages"][-1].content == "Use tracemalloc."
    [answer] = [message for message in chat.asked[1] if isinstance(message, ToolMessage)]
    assert answer.content.startswith(f"{question}\n\n")
    stored = [Document.model_validate(kept) for kept in agent.get_state(config).values["messages"][2].artifact]
    assert [document.page_content for document in stored] == answer.content.split("\n\n")
    assert stored == [Document.model_validate(kept) for kept in answer.artifact]
    assert stored[0].id == "id-1"
    assert all(type(document.metadata["relevance_score"]) is float for document in stored)


def test_a_tool_that_fails_says_so(is_async: bool) -> None:
    """The error is not turned into an empty answer."""
    failing = RerankRetriever(
        retriever=FirstStage(documents=[Document("text")]),
        compressor=RerankCompressor(reranker=Reranker(FakeScorer(error=RuntimeError("down")))),
    )
    tool = create_retriever_tool(failing, "search", "Searches the manual.")
    with pytest.raises(ScorerError, match="RuntimeError"):
        invoke(tool, {"query": QUERY}, is_async=is_async)
