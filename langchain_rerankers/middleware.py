"""Reranking inside LangChain agents: documents that tools return are reranked before the model reads them."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import getclosurevars, isfunction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools.retriever import RetrieverInput

from langchain_rerankers.compressor import RerankCompressor
from rerank_core import ConfigurationError, RankedDocument
from rerank_core._support.extras import check_installed

check_installed("langchain", extra="agents", purpose="langchain_rerankers.middleware")

from langchain.agents.middleware import AgentMiddleware  # noqa: E402

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command

__all__ = ["RerankMiddleware"]

_logger = logging.getLogger(__name__)
_MASK = "\0"
T = TypeVar("T")
_TEXT_KEYS = ("page_content", "text", "content")


class RerankMiddleware(AgentMiddleware[Any, Any, Any]):
    """Reranks the documents that an agent's tools return, in the message that the model reads and in the artifact.

    It finds documents in artifacts (``create_retriever_tool(…, response_format="content_and_artifact")``), in
    messages of ``create_retriever_tool`` without artifact, in lists of documents that a tool returns, and in JSON
    lists of objects with ``page_content``; for tools named in ``tools``, also in JSON lists of texts or of objects
    with ``text`` or ``content``, in text blocks, and in texts with separators. Other messages pass unchanged.
    Needs the extra ``agents``.

    Args:
        compressor: what reranks; by default the embedded model.
        tools: names of the tools whose results are reranked; by default all that are known to return documents.
        query_argument: the tools' argument that holds the query.
        format_documents: returns the message's text from the documents; by default each keeps the text that the
            tool gave it.
        separator: what stands between two documents of a message; by default that of ``create_retriever_tool``.
        nothing_relevant: the message if no document survives.
        on_error: ``"keep"`` leaves the message unchanged, with a warning, if reranking fails or if a message that
            should be reranked holds no documents; ``"raise"`` raises.

    Raises:
        ConfigurationError: an option is not usable.

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
        format_documents: Callable[[Sequence[Document]], str] | None = None,
        separator: str | None = None,
        nothing_relevant: str = "No relevant documents were found.",
        on_error: Literal["keep", "raise"] = "keep",
    ) -> None:
        super().__init__()
        if isinstance(tools, str):
            raise ConfigurationError(f"tools is {tools!r}: give a list of names")
        if separator == "":
            raise ConfigurationError("separator is empty: give what stands between two documents of the message")
        if on_error not in ("keep", "raise"):
            raise ConfigurationError(f"on_error is {on_error!r}: give 'keep' or 'raise'")
        self.compressor = compressor or RerankCompressor()
        self._only = None if tools is None else frozenset(tools)
        self._query_argument = query_argument
        self._format = format_documents
        self._separator = separator
        self._nothing_relevant = nothing_relevant
        self._on_error = on_error
        self._warned: set[tuple[str, str]] = set()

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Call the tool, and rerank what it returned."""
        result = handler(request)
        try:
            found = self._read(request, result)
            if found is None:
                return result
            return self._write(found, *self.compressor._compress(found.documents, found.query, found.config))
        except Exception as exc:
            return self._keep(request, result, exc)

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Call the tool, and rerank what it returned, as :meth:`wrap_tool_call` does."""
        result = await handler(request)
        try:
            found = self._read(request, result)
            if found is None:
                return result
            return self._write(
                found, *await self.compressor._acompress(found.documents, found.query, found.config)
            )
        except Exception as exc:
            return self._keep(request, result, exc)

    def _keep(self, request: ToolCallRequest, result: T, error: Exception) -> T:
        if self._on_error == "raise":
            raise error
        # A scorer's failures are worth a warning each; what is wrong with a tool is said once.
        self._warn(request, f"{type(error).__name__}: {error}", once=isinstance(error, ConfigurationError))
        return result

    def _warn(self, request: ToolCallRequest, reason: str, *, once: bool = True) -> None:
        name = request.tool_call["name"]
        if not once or (name, reason) not in self._warned:
            _logger.warning("what the tool %r returned was not reranked: %s", name, reason)
        self._warned.add((name, reason))

    def _read(self, request: ToolCallRequest, message: object) -> _Found | None:
        """Return the documents of a tool's message, None if it has none that are to be reranked.

        Raises:
            ConfigurationError: the tool's documents were to be reranked, but cannot be found.
        """
        name = request.tool_call["name"]
        is_named = self._only is not None and name in self._only
        if (self._only is not None and not is_named) or not isinstance(message, ToolMessage):
            return None
        is_expected = is_named or getattr(request.tool, "args_schema", None) is RetrieverInput
        if message.status == "error" or not (message.content or message.artifact):
            return None
        separator = self._separator or _separator_of(request.tool)
        parts = _read_artifact(message, separator, needs_parts=self._format is None) or _read_content(
            message.content, separator if is_expected else None, is_named=is_named
        )
        given = request.tool_call["args"].get(self._query_argument)
        query = given.strip() if isinstance(given, str) else ""
        if parts is not None and query:
            # The config is absent where a tool node is used without a graph.
            return _Found(message, *parts, query, getattr(request.runtime, "config", None) or RunnableConfig())
        reason = f"{self._query_argument!r} holds no query: give query_argument=" if parts else ""
        if parts is None and is_expected:
            reason = 'its message holds no documents: use response_format="content_and_artifact"'
        elif parts is None and query and self._only is None:
            looks_like = _read_content(message.content, None, is_named=True)
            reason = "name it in tools= if these are documents" if looks_like and len(looks_like[0]) > 1 else ""
        if reason and is_expected:
            raise ConfigurationError(reason)
        if reason:
            self._warn(request, reason)
        return None

    def _write(
        self, found: _Found, ranked: Sequence[RankedDocument[Document]], documents: list[Document]
    ) -> ToolMessage:
        if not documents:
            content: Any = self._nothing_relevant
        elif self._format is not None:
            content = self._format(documents)
        else:
            content = found.render([each.index for each in ranked], documents)
        artifact = found.message.artifact if found.message.artifact is None else documents
        return found.message.model_copy(update={"content": content, "artifact": artifact})


_Render = Callable[[Sequence[int], Sequence[Document]], Any]
"""Returns a message's content from the indices and the new documents that survived, best first."""


@dataclass(frozen=True)
class _Found:
    """Documents that a tool returned.

    Attributes:
        message: the tool's message.
        documents: the documents in it.
        render: writes the content for those that survived.
        query: the tool's query.
        config: of the run that the tool was called in.
    """

    message: ToolMessage
    documents: list[Document]
    render: _Render
    query: str
    config: RunnableConfig


def _read_artifact(
    message: ToolMessage, separator: str, *, needs_parts: bool
) -> tuple[list[Document], _Render] | None:
    documents = message.artifact
    if not isinstance(documents, list) or not documents or not all(isinstance(one, Document) for one in documents):
        return None
    texts = [document.page_content for document in documents]
    content = message.content
    parts = _cut(content, texts, separator) if isinstance(content, str) else None
    if parts is None and needs_parts:
        raise ConfigurationError(
            f"its message is not its {len(texts)} documents with {separator!r} between them: give the tool's "
            "separator=, or format_documents="
        )

    def render(indices: Sequence[int], kept: Sequence[Document]) -> str:
        written = []
        for index, document in zip(indices, kept, strict=True):
            part, was = (parts or texts)[index], texts[index]
            written.append(part if document.page_content == was else part.replace(was, document.page_content, 1))
        return separator.join(written)

    return documents, render


def _read_content(
    content: str | list[Any], separator: str | None, *, is_named: bool
) -> tuple[list[Document], _Render] | None:
    """Return the documents in a message's content; texts with ``separator`` between them only if it is given."""
    if isinstance(content, list):
        texts = [block if isinstance(block, str) else block.get("text") for block in content] if is_named else []
        known = [index for index, text in enumerate(texts) if isinstance(text, str)]
        others = [block for block, text in zip(content, texts, strict=False) if not isinstance(text, str)]
        if not known:
            return None
        documents = [Document(texts[index]) for index in known]
        return documents, lambda indices, _: [*(content[known[index]] for index in indices), *others]
    written = _parse_repr(content)
    if written:
        return written, lambda _, kept: str(list(kept))
    items = _parse_json(content)
    texts = [_text_of(item, is_named=is_named) for item in items]
    if texts and all(isinstance(text, str) for text in texts):
        dump = partial(json.dumps, ensure_ascii=False)
        return [Document(text) for text in texts], lambda indices, _: dump([items[index] for index in indices])
    if separator is None or items:
        return None
    parts = content.split(separator)
    return [Document(part) for part in parts], lambda indices, _: separator.join(parts[index] for index in indices)


def _separator_of(tool: Any) -> str:
    """Return what ``create_retriever_tool`` was told to write between documents."""
    function = getattr(tool, "func", None)
    known = getclosurevars(function).nonlocals if isfunction(function) else {}
    separator = known.get("document_separator")
    return separator if isinstance(separator, str) and separator else "\n\n"


def _parse_repr(content: str) -> list[Document]:
    """Return the documents of a list that LangChain has turned into a string; none if it is something else."""
    if not content.startswith("[Document("):
        return []
    try:
        calls: Any = ast.parse(content, mode="eval").body
        return [
            Document(**{each.arg: ast.literal_eval(each.value) for each in call.keywords}) for call in calls.elts
        ]
    except (AttributeError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return []


def _parse_json(content: str) -> list[Any]:
    if not content.startswith("["):
        return []
    try:
        items = json.loads(content)
    except (RecursionError, ValueError):
        return []
    return items if isinstance(items, list) else []


def _text_of(item: object, *, is_named: bool) -> str | None:
    if isinstance(item, Mapping):
        found = (item.get(key) for key in (_TEXT_KEYS if is_named else _TEXT_KEYS[:1]))
        return next((text for text in found if isinstance(text, str)), None)
    return item if is_named and isinstance(item, str) else None


def _cut(content: str, texts: Sequence[str], separator: str) -> list[str] | None:
    """Return each document's part of a message, None if they cannot be told apart.

    A part is a document's text with whatever the tool wrote before and after it, and with the same number of
    separators as every other part; separators inside texts do not count.
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
