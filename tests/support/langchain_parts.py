"""Parts of LangChain applications: first stages, embeddings, a chat model with a script, one that repeats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import bm25s
from langchain_core.callbacks import CallbackManagerForLLMRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import Field

from rerank_core import Reranker
from rerank_core.local.embedded.scorer import EmbeddedScorer


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


class MiniLM(Embeddings):
    """Embeds with the weights of the embedded scorer: the mean of a text's token vectors, of length 1."""

    def __init__(self) -> None:
        self._encoder = EmbeddedScorer().load()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of 384 numbers for each text."""
        return [vectors.mean.tolist() for vectors in self._encoder.forward(self._encoder.tokenize(texts))]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self.embed_documents([text])[0]


@cache
def minilm() -> MiniLM:
    """Return real embeddings, loaded once."""
    return MiniLM()


@cache
def embedded() -> Reranker:
    """Return a reranker of the embedded model, loaded once."""
    return Reranker("embedded")


class Words(BaseRetriever):
    """Finds documents by their words, with BM25."""

    documents: list[Document]
    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        index = bm25s.BM25()
        texts = [document.page_content for document in self.documents]
        index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
        asked = bm25s.tokenize([query], stopwords="en", show_progress=False)
        [found], [scores] = index.retrieve(asked, k=min(self.k, len(texts)), show_progress=False)
        return [self.documents[number] for number, score in zip(found, scores, strict=True) if score > 0]
