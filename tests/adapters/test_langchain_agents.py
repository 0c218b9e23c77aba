"""RerankMiddleware: an agent's retriever tools, reranked before the model reads what they found."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import create_retriever_tool, tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.tracers.schemas import Run
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.langchain_parts import FirstStage, Scripted, embedded, minilm

from langchain_rerankers import RerankCompressor
from langchain_rerankers import middleware as middleware_module
from langchain_rerankers.middleware import RerankMiddleware
from rerank_core import ConfigurationError, MissingExtraError, Reranker, ScorerError
from rerank_core.testing import FakeScorer


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Return False and True in turn."""
    return request.param


def middleware(top_n: int = 2, scorer: Any = None, **options: Any) -> RerankMiddleware:
    """Return a middleware around a scorer without a model."""
    compressor = RerankCompressor(reranker=Reranker(scorer or FakeScorer()), top_n=top_n)
    return RerankMiddleware(compressor, **options)


def documents(texts: Sequence[str] = TEXTS) -> list[Document]:
    """Return documents with ids and pages."""
    return [Document(text, id=f"id-{number}", metadata={"page": number}) for number, text in enumerate(texts)]


def search(texts: Sequence[str] = TEXTS, **options: Any) -> Any:
    """Return a retriever tool that finds texts in their order."""
    options = {"response_format": "content_and_artifact", **options}
    return create_retriever_tool(FirstStage(documents=documents(texts)), "search", "Searches.", **options)


def told(
    tools: Any,
    reranks: RerankMiddleware,
    *,
    is_async: bool,
    args: dict[str, Any] | None = None,
    config: Any = None,
) -> ToolMessage:
    """Return the message that the model reads after it called the first tool."""
    call = {"name": tools[0].name, "args": args or {"query": QUERY}, "id": "call-1", "type": "tool_call"}
    chat = Scripted(script=[AIMessage("", tool_calls=[call]), AIMessage("Done.")])
    agent = create_agent(chat, tools, middleware=[reranks])
    given = {"messages": [HumanMessage("Help!")]}
    result = asyncio.run(agent.ainvoke(given, config)) if is_async else agent.invoke(given, config)
    assert result["messages"][-1].content == "Done."
    [message] = [message for message in chat.asked[1] if isinstance(message, ToolMessage)]
    return message


def test_artifact_and_message_are_reranked(is_async: bool) -> None:
    """The best documents, with scores, and their texts in the same order; nothing else of the message changes."""
    message = told([search()], middleware(), is_async=is_async)
    assert message.content == "\n\n".join(BEST_FIRST[:2])
    assert [(found.page_content, found.id) for found in message.artifact] == [
        (BEST_FIRST[0], "id-1"),
        (BEST_FIRST[1], "id-2"),
    ]
    assert all(0.0 <= found.metadata["relevance_score"] <= 1.0 for found in message.artifact)
    assert (message.name, message.tool_call_id, message.status) == ("search", "call-1", "success")


def test_documents_keep_the_text_that_the_tool_gave_them(is_async: bool) -> None:
    """Whatever its prompt: source before, text after; texts of several paragraphs; a blank one; a separator."""
    prompt = PromptTemplate.from_template("Page {page}:\n\n{page_content}")
    message = told([search(document_prompt=prompt)], middleware(), is_async=is_async)
    assert message.content == "Page 1:\n\nfinding a memory leak\n\nPage 2:\n\nmemory"
    prompt = PromptTemplate.from_template("<{page}> {page_content} </{page}>")
    message = told([search(document_prompt=prompt)], middleware(), is_async=is_async)
    assert message.content == "<1> finding a memory leak </1>\n\n<2> memory </2>"
    texts = ["Paris\n\nin spring", "", "memory\n\nleak"]
    message = told([search(texts, document_prompt=prompt)], middleware(1), is_async=is_async)
    assert message.content == "<2> memory\n\nleak </2>"
    lines = search(document_prompt=prompt, document_separator="\n")
    message = told([lines], middleware(separator="\n"), is_async=is_async)
    assert message.content == "<1> finding a memory leak </1>\n<2> memory </2>"


def test_a_format_of_ones_own(is_async: bool) -> None:
    """Stands for the tool's."""

    def numbered(found: Sequence[Document]) -> str:
        return "\n".join(f"[{document.metadata['page']}] {document.page_content}" for document in found)

    message = told([search()], middleware(format_documents=numbered), is_async=is_async)
    assert message.content == "[1] finding a memory leak\n[2] memory"


def test_a_message_that_cannot_be_taken_apart_is_refused(is_async: bool) -> None:
    """Instead of a message that does not say what the artifact holds."""

    @tool(response_format="content_and_artifact")
    def summary(query: str) -> tuple[str, list[Document]]:
        """Find documents."""
        return "I found much.", documents()

    with pytest.raises(ConfigurationError, match="give the tool's separator, or format_documents="):
        told([summary], middleware(), is_async=is_async)
    with pytest.raises(ConfigurationError, match="the message of the tool 'search' is not its 4 documents"):
        told([search(document_separator=" ")], middleware(separator="+"), is_async=is_async)


def test_nothing_relevant_is_said(is_async: bool) -> None:
    """The model is told so, and the artifact is empty."""
    strict = RerankMiddleware(
        RerankCompressor(reranker=Reranker(FakeScorer()), score_threshold=1.0), nothing_relevant="Nothing."
    )
    message = told([search()], strict, is_async=is_async)
    assert (message.content, message.artifact) == ("Nothing.", [])


@tool
def shout(text: str) -> str:
    """Return a text in capitals."""
    return text.upper()


@tool(response_format="content_and_artifact")
def table(query: str) -> tuple[str, list[int]]:
    """Return a table."""
    return "1, 2", [1, 2]


@tool(response_format="content_and_artifact")
def latest(count: int) -> tuple[str, list[Document]]:
    """Return the latest documents."""
    return "\n\n".join(TEXTS), documents()


@pytest.mark.parametrize(
    ("other", "args", "content"),
    [
        (shout, {"text": "hey"}, "HEY"),
        (table, {"query": QUERY}, "1, 2"),
        (latest, {"count": 4}, "\n\n".join(TEXTS)),
        (search(response_format="content"), {"query": QUERY}, "\n\n".join(TEXTS)),
        (search([]), {"query": QUERY}, ""),
    ],
    ids=["text", "no documents", "no query", "no artifact", "nothing found"],
)
def test_other_messages_pass_as_they_are(is_async: bool, other: Any, args: dict[str, Any], content: str) -> None:
    """Of tools that return no documents, or have no query."""
    scorer = FakeScorer()
    assert told([other], middleware(scorer=scorer), is_async=is_async, args=args).content == content
    assert scorer.calls == 0


def test_only_the_named_tools_are_reranked(is_async: bool) -> None:
    """And of those a call without a query is refused."""
    assert told([search()], middleware(tools=["other"]), is_async=is_async).content == "\n\n".join(TEXTS)
    assert len(told([search()], middleware(tools=["search"]), is_async=is_async).artifact) == 2
    with pytest.raises(ConfigurationError, match="'latest' was called without a query in 'query'"):
        told([latest], middleware(tools=["latest"]), is_async=is_async, args={"count": 4})


def test_the_query_may_be_called_otherwise(is_async: bool) -> None:
    """By the tool's author."""

    @tool(response_format="content_and_artifact")
    def find(question: str) -> tuple[str, list[Document]]:
        """Find documents."""
        return "\n\n".join(TEXTS), documents()

    reranks = middleware(query_argument="question")
    assert told([find], reranks, is_async=is_async, args={"question": QUERY}).content.startswith(BEST_FIRST[0])


def test_a_command_passes_as_it_is(is_async: bool) -> None:
    """Of a tool that steers the graph."""

    @tool
    def jump(query: str) -> Command[Any]:
        """Write the answer into the state."""
        return Command(update={"messages": [ToolMessage("jumped", tool_call_id="call-1")]})

    assert told([jump], middleware(), is_async=is_async).content == "jumped"


def test_a_failure_reaches_the_agents_caller(is_async: bool) -> None:
    """The model does not read documents that were not reranked."""
    with pytest.raises(ScorerError):
        told([search()], middleware(scorer=FakeScorer(error=RuntimeError("down"))), is_async=is_async)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"tools": "search"}, "tools is 'search'"), ({"separator": ""}, "separator is empty")]
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigurationError, match=message):
        RerankMiddleware(**wrong)


def test_only_the_middleware_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter itself does without agents and LangGraph; without them, the error names the extra."""
    check = "import sys, langchain_rerankers; sys.exit(bool({'langchain', 'langgraph'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"rerank-bridge\[agents\]"):
        importlib.reload(middleware_module)


def test_the_rerankers_run_is_in_the_agents_trace(is_async: bool) -> None:
    """Beside the tool's own."""
    collector = RunCollectorCallbackHandler()
    config = {"callbacks": [collector], "tags": ["agent"], "run_name": "agent", "run_id": uuid4()}
    told([search()], middleware(), is_async=is_async, config=config)
    [root] = collector.traced_runs

    def found(run: Run) -> list[tuple[str, str, list[str]]]:
        own = [(child.name, run.name, child.tags or []) for child in run.child_runs]
        return own + [entry for child in run.child_runs for entry in found(child)]

    [(_, parent, tags)] = [entry for entry in found(root) if entry[0] == "RerankCompressor"]
    assert parent == "tools"
    assert "agent" in tags


def test_an_agent_answers_from_the_best_documents(is_async: bool) -> None:
    """End to end: vectors, the embedded model, several tools at once, documents in a checkpoint."""
    store = InMemoryVectorStore(minilm())
    store.add_documents(documents())
    manual = create_retriever_tool(
        store.as_retriever(search_kwargs={"k": 4}), "manual", "Searches.", response_format="content_and_artifact"
    )
    calls = [
        {"name": "manual", "args": {"query": "finding a memory leak"}, "id": "call-1", "type": "tool_call"},
        {"name": "shout", "args": {"text": "hey"}, "id": "call-2", "type": "tool_call"},
        {"name": "manual", "args": {"query": "trips to France"}, "id": "call-3", "type": "tool_call"},
    ]
    chat = Scripted(script=[AIMessage("", tool_calls=calls), AIMessage("Use tracemalloc.")])
    reranks = RerankMiddleware(RerankCompressor(reranker=embedded(), top_n=1))
    agent = create_agent(chat, [manual, shout], middleware=[reranks], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    given = {"messages": [HumanMessage("Help!")]}
    if is_async:
        asyncio.run(agent.ainvoke(given, config))
    else:
        agent.invoke(given, config)
    messages = [message for message in chat.asked[1] if isinstance(message, ToolMessage)]
    assert [message.content for message in messages] == ["finding a memory leak", "HEY", "Paris in spring"]
    stored = agent.get_state(config).values["messages"][2].artifact
    [kept] = [Document.model_validate(found) for found in stored]
    assert (kept.id, type(kept.metadata["relevance_score"])) == ("id-1", float)
