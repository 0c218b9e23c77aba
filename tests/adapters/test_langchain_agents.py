"""RerankMiddleware: an agent's retriever tools, reranked before the model reads what they found."""

from __future__ import annotations

import asyncio
import importlib
import json
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


@tool(response_format="content_and_artifact")
def summary(query: str) -> tuple[str, list[Document]]:
    """Find documents."""
    return "I found much.", documents()


def test_a_message_that_cannot_be_taken_apart_stays(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning that says the fix, however often the tool is called; or it is refused."""
    for given, reranks in (
        (summary, middleware()),
        (search(document_separator=" "), middleware(separator="+")),
    ):
        plain = told([given], RerankMiddleware(tools=["other"]), is_async=is_async).content
        for _ in range(2):
            assert told([given], reranks, is_async=is_async).content == plain
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert warnings[0].startswith(
        "what the tool 'summary' returned was not reranked: ConfigurationError: its message"
    )
    assert "give the tool's separator=, or format_documents=" in warnings[1]
    with pytest.raises(ConfigurationError, match="its message is not its 4 documents"):
        told([summary], middleware(on_error="raise"), is_async=is_async)


def test_the_separator_of_a_retriever_tool_is_known(is_async: bool) -> None:
    """Whatever it was told."""
    message = told([search(document_separator="\n--\n")], middleware(), is_async=is_async)
    assert message.content == "\n--\n".join(BEST_FIRST[:2])


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


@tool
def listed(query: str) -> list[Document]:
    """Return documents, which LangChain writes as text."""
    return documents()


@tool
def plain_json(query: str) -> list[dict[str, Any]]:
    """Return texts and pages."""
    return [{"text": text, "page": number} for number, text in enumerate(TEXTS)]


@tool
def dumped(query: str) -> list[dict[str, Any]]:
    """Return dumped documents."""
    return [{"page_content": text, "metadata": {"page": number}} for number, text in enumerate(TEXTS)]


@tool
def blocks(query: str) -> list[dict[str, Any]]:
    """Return content blocks, as MCP tools do."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/leak.png"}}
    return [image, *({"type": "text", "text": text} for text in TEXTS)]


@pytest.mark.parametrize("separator", ["\n\n", "\n--\n"])
def test_a_retriever_tool_without_artifact_is_reranked(is_async: bool, separator: str) -> None:
    """Its message is cut at its own separator."""
    given = search(response_format="content", document_separator=separator)
    message = told([given], middleware(), is_async=is_async)
    assert (message.content, message.artifact) == (separator.join(BEST_FIRST[:2]), None)


def test_a_list_of_documents_is_reranked(is_async: bool) -> None:
    """The message is the list of the best, ids and metadata included."""
    message = told([listed], middleware(), is_async=is_async)
    assert message.content.startswith("[Document(id='id-1', metadata={'page': 1, 'relevance_score': ")
    assert message.content.count("Document(") == 2


def test_json_is_reranked(is_async: bool) -> None:
    """Dumped documents of any tool; other objects and texts of the tools that are named."""
    message = told([dumped], middleware(), is_async=is_async)
    assert [found["metadata"]["page"] for found in json.loads(message.content)] == [1, 2]
    message = told([plain_json], middleware(tools=["plain_json"]), is_async=is_async)
    assert json.loads(message.content) == [{"text": BEST_FIRST[0], "page": 1}, {"text": BEST_FIRST[1], "page": 2}]


def test_text_blocks_are_reranked(is_async: bool) -> None:
    """Of the tools that are named; other blocks stay, after them."""
    message = told([blocks], middleware(tools=["blocks"]), is_async=is_async)
    assert [block.get("text") for block in message.content] == [*BEST_FIRST[:2], None]


@pytest.mark.parametrize("given", [plain_json, blocks], ids=["JSON", "blocks"])
def test_what_may_be_documents_is_not_passed_silently(
    is_async: bool, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says how to have it reranked."""
    reranks = middleware()
    for _ in range(2):
        told([given], reranks, is_async=is_async)
    assert [record.getMessage() for record in caplog.records] == [
        f"what the tool {given.name!r} returned was not reranked: name it in tools= if these are documents"
    ]


@pytest.mark.parametrize(
    ("other", "args", "content"),
    [
        (shout, {"text": "hey"}, "HEY"),
        (table, {"query": QUERY}, "1, 2"),
        (search([]), {"query": QUERY}, ""),
        (search([], response_format="content"), {"query": QUERY}, ""),
    ],
    ids=["text", "no documents", "nothing found", "nothing found, no artifact"],
)
def test_other_messages_pass_as_they_are(
    is_async: bool, other: Any, args: dict[str, Any], content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of tools that return no documents."""
    scorer = FakeScorer()
    assert told([other], middleware(scorer=scorer), is_async=is_async, args=args).content == content
    assert (scorer.calls, caplog.records) == (0, [])


def test_only_the_named_tools_are_reranked(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """And of those a call without a query, or a message without documents, is not passed silently."""
    assert told([search()], middleware(tools=["other"]), is_async=is_async).content == "\n\n".join(TEXTS)
    assert len(told([search()], middleware(tools=["search"]), is_async=is_async).artifact) == 2
    assert caplog.records == []
    told([latest], middleware(tools=["latest"]), is_async=is_async, args={"count": 4})
    told([latest], middleware(), is_async=is_async, args={"count": 4})
    assert all("'query' holds no query: give query_argument=" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2
    with pytest.raises(ConfigurationError, match="'query' holds no query"):
        told([latest], middleware(tools=["latest"], on_error="raise"), is_async=is_async, args={"count": 4})


@pytest.mark.parametrize(
    "content", ["[Document(", "[Document(x=1)]", "[Document(page_content=open('/'))]", "[[[", '["a", 1]', "[]"]
)
def test_odd_messages_harm_nobody(content: str) -> None:
    """What only looks like documents passes; nothing in it is evaluated."""

    @tool
    def odd(query: str) -> str:
        """Return something."""
        return content

    assert told([odd], middleware(), is_async=False).content == content


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


def test_a_failure_leaves_the_message_or_is_raised(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The agent goes on with what the tool found, and each failure is a warning."""
    failing = FakeScorer(error=RuntimeError("down"))
    reranks = middleware(scorer=failing)
    for _ in range(2):
        assert told([search()], reranks, is_async=is_async).content == "\n\n".join(TEXTS)
    assert len(caplog.records) == 2
    assert "ScorerError: fake: failed with RuntimeError" in caplog.records[0].getMessage()
    with pytest.raises(ScorerError):
        told([search()], middleware(scorer=failing, on_error="raise"), is_async=is_async)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tools": "search"}, "tools is 'search'"),
        ({"separator": ""}, "separator is empty"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ],
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
