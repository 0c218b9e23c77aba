"""Parts of LangChain applications: a first stage, a chat model with a script, a chat model that repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import Field


class FirstStage(BaseRetriever):
    """Returns its documents in their order, whatever the query; remembers the queries."""

    documents: list[Document]
    queries: list[str] = Field(default_factory=list)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        self.queries.append(query)
        return self.documents


class Scripted(BaseChatModel):
    """Says its lines one after the other, and remembers what it was asked; tools are accepted."""

    script: list[AIMessage]
    asked: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append(messages)
        return ChatResult(generations=[ChatGeneration(message=self.script[len(self.asked) - 1])])

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Return itself: the script knows which tool to call."""
        return self


class Repeating(BaseChatModel):
    """Answers with what it was asked last."""

    @property
    def _llm_type(self) -> str:
        return "repeating"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(str(messages[-1].content)))])


def vector_store(texts: Sequence[str]) -> InMemoryVectorStore:
    """Return a vector store of texts with the ids ``id-0``, ``id-1``, … and embeddings that mean nothing."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents([Document(text, id=f"id-{number}") for number, text in enumerate(texts)])
    return store
