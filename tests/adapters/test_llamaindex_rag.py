"""RAG with LlamaIndex, end to end: real embeddings, real stores, the embedded reranker, engines of every kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from support.llamaindex_parts import BM25, DOCS, LEAK, NONSENSE, CallsOneTool, MiniLM, Scripted

from llamaindex_rerankers import RerankPostprocessor, RerankRetriever

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning"),
    # Workflows look at every attribute of their agent, the outdated ones of pydantic's too.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

PARIS = "When is the Louvre in Paris closed?"
BEST = {LEAK: "id-0", PARIS: "id-5"}


def nodes() -> list[BaseNode]:
    """Return the documents as nodes."""
    return [TextNode(text=text, id_=f"id-{number}", metadata={"n": number}) for number, text in enumerate(DOCS)]


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    """Return the documents with their embeddings, in the default store."""
    return VectorStoreIndex(nodes(), embed_model=MiniLM())


@pytest.fixture(params=["default", "qdrant", "bm25", "fusion"])
def first_stage(request: pytest.FixtureRequest, index: VectorStoreIndex) -> BaseRetriever:
    """Return each kind of first stage in turn, of 20 candidates."""
    if request.param == "default":
        return index.as_retriever(similarity_top_k=20)
    if request.param == "bm25":
        return BM25(nodes(), 20)
    if request.param == "fusion":
        return QueryFusionRetriever(
            [index.as_retriever(similarity_top_k=10), BM25(nodes(), 10)],
            llm=MockLLM(),
            num_queries=1,
            similarity_top_k=20,
            use_async=False,
        )
    return qdrant_index(request).as_retriever(similarity_top_k=20)


def qdrant_index(request: pytest.FixtureRequest) -> VectorStoreIndex:
    """Return the documents in Qdrant, inside this process; for sync and for async calls."""
    qdrant = pytest.importorskip("qdrant_client")
    store = pytest.importorskip("llama_index.vector_stores.qdrant").QdrantVectorStore
    client = qdrant.QdrantClient(":memory:")
    request.addfinalizer(client.close)
    context = StorageContext.from_defaults(vector_store=store(client=client, collection_name="docs"))
    return VectorStoreIndex(stored_nodes(), storage_context=context, embed_model=MiniLM())


def stored_nodes() -> list[BaseNode]:
    """Return the documents with ids that Qdrant takes, which are numbers or UUIDs."""
    return [
        TextNode(text=text, id_=f"00000000-0000-0000-0000-{number:012}", metadata={"n": number})
        for number, text in enumerate(DOCS)
    ]


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Return False and True in turn."""
    return request.param == "async"


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in an event loop of its own."""
    return asyncio.run(coroutine)


def rerank(**options: Any) -> RerankPostprocessor:
    """Return a postprocessor with the embedded model, which reads no metadata."""
    return RerankPostprocessor(**{"top_n": 3, "metadata_mode": "none", **options})


def engine(index: VectorStoreIndex, **options: Any) -> RetrieverQueryEngine:
    """Return an engine that retrieves 20, reranks, and answers with its prompt."""
    return RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=20), llm=MockLLM(), node_postprocessors=[rerank(**options)]
    )


def found(results: list[NodeWithScore]) -> list[int]:
    """Return the numbers of the documents of nodes."""
    return [node.metadata["n"] for node in results]


# Retrieve, rerank, cut, answer


def test_the_best_of_twenty_answer(first_stage: BaseRetriever) -> None:
    """Retrieve 20, rerank, keep 5 at most above a threshold, and answer from them."""
    answering = RetrieverQueryEngine(
        retriever=first_stage,
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[rerank(top_n=5, score_threshold=0.3, keep_retrieval_score=True)],
    )
    response = answering.query(LEAK)
    sources = response.source_nodes
    assert 1 <= len(sources) <= 5
    assert sources[0].metadata["n"] == 0
    assert all(node.score is not None and node.score >= 0.3 for node in sources)
    assert all(type(node.metadata["retrieval_score"]) is float for node in sources)
    assert DOCS[0] in str(response)
    assert DOCS[12] not in str(response)


def test_nothing_relevant_is_no_answer(index: VectorStoreIndex, is_async: bool) -> None:
    """The engine gets no nodes, says so, and asks the LLM nothing."""
    llm = Scripted()
    answering = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=20), llm=llm, node_postprocessors=[rerank(score_threshold=0.6)]
    )
    response = run(answering.aquery(NONSENSE)) if is_async else answering.query(NONSENSE)
    assert (response.source_nodes, str(response), llm.asked) == ([], "Empty Response", [])
    kept = run(answering.aquery(LEAK)) if is_async else answering.query(LEAK)
    assert found(kept.source_nodes)[0] == 0


def test_the_reranker_mends_the_order(index: VectorStoreIndex, is_async: bool) -> None:
    """What words alone put first is not what answers the question."""
    second = RerankRetriever(BM25(nodes(), 20), top_n=2, metadata_mode="none")
    results = run(second.aretrieve(PARIS)) if is_async else second.retrieve(PARIS)
    assert results[0].node_id == BEST[PARIS]
    assert [node.score for node in results] == sorted((node.score or 0.0 for node in results), reverse=True)


async def test_qdrant_serves_async_calls() -> None:
    """With its asynchronous client; its nodes are read as any other."""
    qdrant = pytest.importorskip("qdrant_client")
    store = pytest.importorskip("llama_index.vector_stores.qdrant").QdrantVectorStore
    client = qdrant.AsyncQdrantClient(":memory:")
    context = StorageContext.from_defaults(vector_store=store(aclient=client, collection_name="docs"))
    stored = VectorStoreIndex([], storage_context=context, embed_model=MiniLM(), use_async=True)
    await stored.ainsert_nodes(stored_nodes())
    results = await RerankRetriever(stored.as_retriever(similarity_top_k=20), rerank()).aretrieve(LEAK)
    assert found(results)[0] == 0
    await client.close()


# Query engines


def test_streaming(index: VectorStoreIndex, is_async: bool) -> None:
    """The sources are there before the text, which comes in pieces."""
    streaming = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=20), llm=MockLLM(), streaming=True, node_postprocessors=[rerank()]
    )

    async def ask() -> tuple[list[NodeWithScore], str]:
        response: Any = await streaming.aquery(LEAK)
        return response.source_nodes, "".join([piece async for piece in response.async_response_gen()])

    if is_async:
        sources, text = run(ask())
    else:
        response: Any = streaming.query(LEAK)
        sources, text = response.source_nodes, "".join(response.response_gen)
    assert (len(sources), found(sources)[0]) == (3, 0)
    assert DOCS[0] in text


def test_a_sub_question_engine(index: VectorStoreIndex, is_async: bool) -> None:
    """Each sub-question is reranked by its own words."""
    questions = [{"sub_question": text, "tool_name": "docs"} for text in (LEAK, PARIS)]
    llm = Scripted(script=[json.dumps(questions)])
    sub_questions = SubQuestionQueryEngine.from_defaults(
        [QueryEngineTool.from_defaults(engine(index, top_n=1), name="docs", description="all documents")],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        verbose=False,
        use_async=is_async,
    )
    response = run(sub_questions.aquery("both")) if is_async else sub_questions.query("both")
    assert [node.node.node_id for node in response.source_nodes if node.node.node_id in BEST.values()] == [
        BEST[LEAK],
        BEST[PARIS],
    ]


def test_a_citation_engine(index: VectorStoreIndex, is_async: bool) -> None:
    """It cuts what was kept into numbered sources, the best first."""
    citing = CitationQueryEngine.from_args(
        index,
        llm=MockLLM(),
        retriever=index.as_retriever(similarity_top_k=20),
        node_postprocessors=[rerank()],
    )
    response = run(citing.aquery(LEAK)) if is_async else citing.query(LEAK)
    assert [node.text.partition("\n")[0] for node in response.source_nodes] == [
        "Source 1:",
        "Source 2:",
        "Source 3:",
    ]
    assert DOCS[0] in response.source_nodes[0].text


def test_a_router_engine(index: VectorStoreIndex, is_async: bool) -> None:
    """The engine that the router chose reranks."""
    router = RouterQueryEngine.from_defaults(
        [
            QueryEngineTool.from_defaults(engine(index, top_n=1), description="one source"),
            QueryEngineTool.from_defaults(engine(index, top_n=2), description="two sources"),
        ],
        selector=LLMSingleSelector.from_defaults(Scripted(script=['[{"choice": 2, "reason": "two"}]'])),
        llm=MockLLM(),
    )
    response = run(router.aquery(PARIS)) if is_async else router.query(PARIS)
    assert (len(response.source_nodes), found(response.source_nodes)[0]) == (2, 5)


# Chat engines


def test_a_context_chat_engine(index: VectorStoreIndex, is_async: bool) -> None:
    """Whole and streamed answers have the reranked sources."""

    def chat() -> ContextChatEngine:
        return ContextChatEngine.from_defaults(
            index.as_retriever(similarity_top_k=20),
            llm=MockLLM(),
            memory=ChatMemoryBuffer.from_defaults(llm=MockLLM()),
            node_postprocessors=[rerank()],
        )

    async def streamed() -> tuple[Any, str]:
        response = await chat().astream_chat(LEAK)
        return response, "".join([piece async for piece in response.async_response_gen()])

    whole = run(chat().achat(LEAK)) if is_async else chat().chat(LEAK)
    if is_async:
        piecemeal, text = run(streamed())
    else:
        piecemeal = chat().stream_chat(LEAK)
        text = "".join(piecemeal.response_gen)
    assert found(whole.source_nodes) == found(piecemeal.source_nodes)
    assert (len(whole.source_nodes), found(whole.source_nodes)[0]) == (3, 0)
    assert DOCS[0] in text


def test_a_condense_plus_context_chat_engine(index: VectorStoreIndex, is_async: bool) -> None:
    """Documents are ranked by the condensed question, not by the last message."""
    llm = Scripted(script=[PARIS, "On Tuesdays."])
    chat = CondensePlusContextChatEngine.from_defaults(
        index.as_retriever(similarity_top_k=20),
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults([ChatMessage("Tell me about the Louvre.")], llm),
        node_postprocessors=[rerank(top_n=1)],
    )
    response = run(chat.achat("And when is it closed?")) if is_async else chat.chat("And when is it closed?")
    assert (found(response.source_nodes), str(response)) == ([5], "On Tuesdays.")
    assert DOCS[5] in llm.asked[-1]


# Tools, agents and workflows


def test_a_retriever_tool(index: VectorStoreIndex, is_async: bool) -> None:
    """With the reranker behind its retriever, or as its retriever."""
    first = index.as_retriever(similarity_top_k=20)
    for tool in (
        RetrieverTool.from_defaults(first, node_postprocessors=[rerank()]),
        RetrieverTool.from_defaults(RerankRetriever(first, rerank())),
    ):
        output = run(tool.acall(LEAK)) if is_async else tool.call(LEAK)
        assert (len(output.raw_output), found(output.raw_output)[0]) == (3, 0)
        assert DOCS[0] in str(output.content)


def search_tool(index: VectorStoreIndex) -> QueryEngineTool:
    """Return a tool that answers with its prompt, made of the best document."""
    return QueryEngineTool.from_defaults(engine(index, top_n=1), name="search", description="finds documents")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_function_agent(index: VectorStoreIndex, streaming: bool) -> None:
    """It calls a query engine as a tool, which reranks inside the agent's loop."""
    agent = FunctionAgent(tools=[search_tool(index)], llm=CallsOneTool(query=PARIS), streaming=streaming)
    result = await agent.run("When can I go to the Louvre?")
    assert DOCS[5] in str(result)
    assert str(result).startswith("It says: ")
    [call] = result.tool_calls
    assert found(call.tool_output.raw_output.source_nodes) == [5]


async def test_a_react_agent(index: VectorStoreIndex) -> None:
    """Its language model knows no tools but writes what to call."""
    call = f'Thought: I need a tool.\nAction: search\nAction Input: {{"input": "{LEAK}"}}\n'
    llm = Scripted(script=[call, "Thought: I can answer.\nAnswer: use tracemalloc"])
    agent = ReActAgent(tools=[search_tool(index)], llm=llm, streaming=False)
    result = await agent.run("What finds leaks?")
    assert str(result) == "use tracemalloc"
    assert DOCS[0] in llm.asked[-1]
    assert DOCS[4] not in llm.asked[-1]


async def test_a_workflow(index: VectorStoreIndex) -> None:
    """A step awaits the retriever of two stages."""

    class Answer(Workflow):
        """Retrieves in one step."""

        @step
        async def search(self, event: StartEvent) -> StopEvent:
            """Return the best document's text."""
            retriever = RerankRetriever(index.as_retriever(similarity_top_k=20), rerank(top_n=1))
            return StopEvent(result=(await retriever.aretrieve(event.query))[0].text)

    answers = await asyncio.gather(*(Answer(timeout=60).run(query=query) for query in (LEAK, PARIS)))
    assert answers == [DOCS[0], DOCS[5]]
