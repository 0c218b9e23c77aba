"""Reranking inside LangChain agents: what retriever tools return is reranked before the model reads it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig

from langchain_rerankers.compressor import RerankCompressor
from rerank_core import ConfigurationError, Ranking
from rerank_core._support.extras import check_installed

check_installed("langchain", extra="agents", purpose="langchain_rerankers.middleware")

from langchain.agents.middleware import AgentMiddleware  # noqa: E402

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command

__all__ = ["RerankMiddleware"]

_MASK = "\0"

Format = Callable[[Sequence[Document]], str]


class RerankMiddleware(AgentMiddleware[Any, Any, Any]):
    """Reranks the documents that an agent's retriever tools return, in the artifact and in the message alike.

    A tool counts as one when its artifact is a list of documents: ``create_retriever_tool(…,
    response_format="content_and_artifact")`` makes such tools. All other messages pass as they are. Needs the
    extra ``agents``.

    Args:
        compressor: what reranks; by default the embedded model.
        tools: names of the tools whose documents are reranked; all that return documents by default.
        query_argument: the tools' argument that is the query.
        format_documents: returns the message's text of the documents. By default each keeps the text that the
            tool gave it, as ``create_retriever_tool`` does with any ``document_prompt``.
        separator: what stands between two documents of the message.
        nothing_relevant: the message where no document survives.

    Raises:
        ConfigurationError: in a call: one of ``tools`` was called without a query, or its message cannot be taken
            apart and there is no ``format_documents``.

    >>> from langchain.agents import create_agent
    >>> from langchain_core.language_models import FakeListChatModel
    >>> agent = create_agent(
    ...     FakeListChatModel(responses=["Hello."]), middleware=[RerankMiddleware(RerankCompressor(top_n=3))]
    ... )
    >>> agent.invoke({"messages": "Hi!"})["messages"][-1].content
    'Hello.'
    """

    def __init__(
        self,
        compressor: RerankCompressor | None = None,
        *,
        tools: Sequence[str] | None = None,
        query_argument: str = "query",
        format_documents: Format | None = None,
        separator: str = "\n\n",
        nothing_relevant: str = "No relevant documents were found.",
    ) -> None:
        super().__init__()
        if isinstance(tools, str):
            raise ConfigurationError(f"tools is {tools!r}: give a list of names")
        if not separator:
            raise ConfigurationError("separator is empty: give what stands between two documents of the message")
        self.compressor = compressor or RerankCompressor()
        self._only = None if tools is None else frozenset(tools)
        self._query_argument = query_argument
        self._format = format_documents
        self._separator = separator
        self._nothing_relevant = nothing_relevant

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Call the tool, and rerank what it returned."""
        result = handler(request)
        found = self._found(request, result)
        if found is None:
            return result
        return self._reranked(found, *self.compressor._compress(found.documents, found.query, found.config))

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Call the tool, and rerank what it returned, as :meth:`wrap_tool_call` does."""
        result = await handler(request)
        found = self._found(request, result)
        if found is None:
            return result
        return self._reranked(found, *await self.compressor._acompress(found.documents, found.query, found.config))

    def _found(self, request: ToolCallRequest, result: ToolMessage | Command[Any]) -> _Found | None:
        """Return what a retriever tool found, None where it is none or found nothing."""
        name = request.tool_call["name"]
        if self._only is not None and name not in self._only:
            return None
        if not isinstance(result, ToolMessage) or not _documents(result.artifact):
            return None
        query = request.tool_call["args"].get(self._query_argument)
        if isinstance(query, str) and query.strip():
            return _Found(result, query, _config(request))
        if self._only is None:
            return None
        raise ConfigurationError(
            f"the tool {name!r} was called without a query in {self._query_argument!r}: name its argument with "
            "query_argument=, or leave the tool out of tools="
        )

    def _reranked(self, found: _Found, ranking: Ranking[Document], documents: list[Document]) -> ToolMessage:
        if not documents:
            content = self._nothing_relevant
        elif self._format is not None:
            content = self._format(documents)
        else:
            content = self._as_the_tool_did(found.message, ranking, documents)
        return found.message.model_copy(update={"content": content, "artifact": documents})

    def _as_the_tool_did(self, message: ToolMessage, ranking: Ranking[Document], documents: list[Document]) -> str:
        given = [document.page_content for document in message.artifact]
        parts = None if not isinstance(message.content, str) else _parts(message.content, given, self._separator)
        if parts is None:
            raise ConfigurationError(
                f"the message of the tool {message.name!r} is not its {len(given)} documents with separator="
                f"{self._separator!r} between them: give the tool's separator, or format_documents="
            )
        texts = []
        for ranked, document in zip(ranking, documents, strict=True):
            text, was = parts[ranked.index], given[ranked.index]
            texts.append(text if document.page_content == was else text.replace(was, document.page_content, 1))
        return self._separator.join(texts)


@dataclass(frozen=True)
class _Found:
    """What a retriever tool found.

    Attributes:
        message: the tool's message.
        query: what it was asked.
        config: of the run that the tool was called in.
    """

    message: ToolMessage
    query: str
    config: RunnableConfig

    @property
    def documents(self) -> list[Document]:
        documents: list[Document] = self.message.artifact
        return documents


def _config(request: ToolCallRequest) -> RunnableConfig:
    # Absent where a tool node is used without a graph.
    return getattr(request.runtime, "config", None) or RunnableConfig()


def _documents(artifact: object) -> bool:
    return isinstance(artifact, list) and bool(artifact) and all(isinstance(found, Document) for found in artifact)


def _parts(content: str, texts: Sequence[str], separator: str) -> list[str] | None:
    """Return each document's part of a message, None where they cannot be told apart.

    A part is a document's text with whatever the tool wrote before and after it, the same number of separators
    for every document; those within texts do not count.
    """
    masked, end = content, 0
    for text in filter(None, texts):
        start = content.find(text, end)
        if start < 0:
            return None
        end = start + len(text)
        masked = f"{masked[:start]}{_MASK * len(text)}{masked[end:]}"
    cuts = [-len(separator), *(found.start() for found in re.finditer(re.escape(separator), masked)), len(content)]
    each, left = divmod(len(cuts) - 1, len(texts))
    if left or not each:
        return None
    cuts = cuts[::each]
    parts = [content[start + len(separator) : stop] for start, stop in pairwise(cuts)]
    return parts if all(text in part for text, part in zip(texts, parts, strict=True)) else None
