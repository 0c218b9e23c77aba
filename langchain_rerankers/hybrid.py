"""A first stage of several retrievers, such as keywords and vectors, whose duplicates are merged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables.config import get_executor_for_config
from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from rerank_core import ConfigurationError

__all__ = ["HybridRetriever"]


class HybridRetriever(BaseRetriever):
    """Asks several retrievers at once, and merges what they find by reciprocal rank fusion.

    Documents are the same where they have the same id; one without an id is the same as one of the same text.
    The merged document is a new one, with the metadata of all sources; where two name the same key, the first
    retriever's value stays. It finds candidates for a reranker, whose order counts in the end.

    Raises:
        pydantic.ValidationError: (also ValueError) no retriever, or weights that do not fit.

    >>> from langchain_core.runnables import RunnableLambda
    >>> words = RunnableLambda(lambda query: [Document("a leak", id="1"), Document("a roof", id="2")])
    >>> vectors = RunnableLambda(lambda query: [Document("a hole", id="3"), Document("a leak", id="1")])
    >>> [document.id for document in HybridRetriever(retrievers=[words, vectors]).invoke("leak")]
    ['1', '3', '2']
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retrievers: Sequence[RetrieverLike] = Field(min_length=1)
    """The sources: any retrievers, or other runnables from a query to a list of documents."""
    weights: Sequence[float] | None = None
    """How much each source counts, at least 0; all the same by default."""
    c: int = Field(default=60, ge=1)
    """Constant of the fusion, at least 1: a document scores weight / (c + rank) in each source."""
    k: int | None = Field(default=None, ge=1)
    """How many documents are returned at most, at least 1; None for all."""
    id_key: str = "_id"
    """Metadata key of the id of documents without an ``id``, which is where Qdrant has it; need not be there."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        weights = self.weights
        if weights is not None and len(weights) != len(self.retrievers):
            raise ConfigurationError(
                f"weights has {len(weights)} values for {len(self.retrievers)} retrievers: give one for each"
            )
        if weights is not None and not all(0 <= weight < float("inf") for weight in weights):
            raise ConfigurationError(f"weights is {list(weights)}: give finite numbers of at least 0")
        return self

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        managers = self._managers(run_manager)

        def found_by(source: int) -> list[Document]:
            return self.retrievers[source].invoke(query, {"callbacks": managers[source]})

        with get_executor_for_config(None) as executor:
            return self._fused(list(executor.map(found_by, range(len(self.retrievers)))))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        managers = self._managers(run_manager)
        tasks = [
            asyncio.ensure_future(source.ainvoke(query, {"callbacks": manager}))
            for source, manager in zip(self.retrievers, managers, strict=True)
        ]
        try:
            return self._fused(await asyncio.gather(*tasks))
        finally:
            # One that failed, or whoever waits being cancelled, ends the others.
            for task in tasks:
                task.cancel()

    def _managers(
        self, run_manager: CallbackManagerForRetrieverRun | AsyncCallbackManagerForRetrieverRun
    ) -> list[BaseCallbackManager]:
        return [run_manager.get_child(tag=f"retriever_{number}") for number in range(1, len(self.retrievers) + 1)]

    def _id(self, document: Document) -> str | None:
        found = document.metadata.get(self.id_key) if document.id is None else document.id
        return None if found is None or found == "" else str(found)

    def _fused(self, found: Sequence[Sequence[Document]]) -> list[Document]:
        weights = self.weights if self.weights is not None else [1.0] * len(found)
        ids = {
            document.page_content: known
            for documents in found
            for document in documents
            if (known := self._id(document)) is not None
        }
        scores: dict[tuple[bool, str], float] = {}
        merged: dict[tuple[bool, str], Document] = {}
        for documents, weight in zip(found, weights, strict=True):
            seen = set()
            for rank, document in enumerate(documents, start=1):
                known = self._id(document) or ids.get(document.page_content)
                key = (True, known) if known is not None else (False, document.page_content)
                if key in seen:  # a source's own duplicates count once
                    continue
                seen.add(key)
                scores[key] = scores.get(key, 0.0) + weight / (self.c + rank)
                first = merged.get(key, document)
                metadata = {**document.metadata, **first.metadata}
                merged[key] = first.model_copy(update={"id": known, "metadata": metadata})
        best_first = sorted(merged, key=lambda key: -scores[key])
        return [merged[key] for key in best_first[: self.k]]
