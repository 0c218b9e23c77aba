"""A first stage of several retrievers, such as keywords and vectors, with duplicates merged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import RetrieverLike
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from langchain_rerankers._documents import copy_document
from langchain_rerankers._first_stage import FirstStageRetriever
from rerank_core import ConfigurationError
from rerank_core.fusion import fuse_ranks

__all__ = ["HybridRetriever"]

_logger = logging.getLogger(__name__)


class HybridRetriever(FirstStageRetriever):
    """Asks several retrievers at the same time, and merges their documents by reciprocal rank fusion.

    Documents with the same id are the same; a document without an id is the same as one with equal text. Merged
    documents are new ones with the metadata of all sources; where sources disagree, the first one's value stays.
    The result is a list of candidates for a reranker. A call's config and keyword arguments reach every source.

    Raises:
        pydantic.ValidationError: (also ValueError) no retriever, or weights that do not fit.

    >>> from langchain_core.runnables import RunnableLambda
    >>> words = RunnableLambda(lambda query: [Document("a leak", id="1"), Document("a roof", id="2")])
    >>> vectors = RunnableLambda(lambda query: [Document("a hole", id="3"), Document("a leak", id="1")])
    >>> [document.id for document in HybridRetriever(retrievers=[words, vectors]).invoke("leak")]
    ['1', '3', '2']
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)

    retrievers: Sequence[RetrieverLike] = Field(min_length=1)
    """The sources: any retrievers, or other runnables from a query to a list of documents."""
    weights: Sequence[float] | None = None
    """How much each source counts, at least 0; equal by default."""
    rank_constant: int = Field(default=60, ge=1)
    """The fusion's constant c, at least 1: a source gives a document weight · (c + 1) / (c + rank)."""
    candidates: int | None = Field(default=None, ge=1)
    """How many documents are returned at most, at least 1; None for all. May also be given for one call:
    ``retriever.invoke(query, candidates=20)``."""
    id_key: str = "_id"
    """Metadata key of the id of documents without ``id``, as Qdrant's have; it may be absent."""
    score_key: str = "retrieval_score"
    """Metadata key of the fused score, in [0, 1]: 1.0 for a document that every source ranks first."""
    on_source_error: Literal["raise", "skip"] = "raise"
    """``"skip"`` goes on without a source that fails, with a warning; it raises only when all sources fail."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        fuse_ranks([[] for _ in self.retrievers], weights=self.weights)
        return self

    def get_sources(self) -> Sequence[RetrieverLike]:
        """Return the retrievers that this one asks."""
        return self.retrievers

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        candidates: int | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        configs = self._make_configs(run_manager, kwargs)

        def ask(source: RetrieverLike, config: RunnableConfig) -> list[Document] | Exception:
            try:
                return source.invoke(query, config, **kwargs)
            except Exception as exc:
                return self._skip(source, exc)

        with get_executor_for_config(configs[0]) as executor:
            return self._fuse(list(executor.map(ask, self.retrievers, configs)), candidates)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        candidates: int | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        async def ask(source: RetrieverLike, config: RunnableConfig) -> list[Document] | Exception:
            try:
                return await source.ainvoke(query, config, **kwargs)
            except Exception as exc:
                return self._skip(source, exc)

        configs = self._make_configs(run_manager, kwargs)
        tasks = [asyncio.ensure_future(ask(*pair)) for pair in zip(self.retrievers, configs, strict=True)]
        try:
            return self._fuse(await asyncio.gather(*tasks), candidates)
        finally:
            # A failing source, or cancellation of the caller, ends the others.
            for task in tasks:
                task.cancel()

    def _make_configs(
        self,
        run_manager: CallbackManagerForRetrieverRun | AsyncCallbackManagerForRetrieverRun,
        options: dict[str, Any],
    ) -> list[RunnableConfig]:
        self._check_options(options)
        numbers = range(1, len(self.retrievers) + 1)
        return [self._source_config(run_manager.get_child(tag=f"retriever_{number}")) for number in numbers]

    def _skip(self, source: RetrieverLike, error: Exception) -> Exception:
        if self.on_source_error == "raise":
            raise error
        name = getattr(source, "get_name", lambda: type(source).__name__)()
        _logger.warning("the source %s failed and is left out: %s: %s", name, type(error).__name__, error)
        return error

    def _id(self, document: Document) -> str | None:
        found = document.metadata.get(self.id_key) if document.id is None else document.id
        return None if found is None or found == "" else str(found)

    def _fuse(self, answers: Sequence[list[Document] | Exception], candidates: int | None) -> list[Document]:
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if len(errors) == len(answers):
            raise errors[0]
        found = [[] if isinstance(answer, Exception) else answer for answer in answers]
        ids = {
            document.page_content: known
            for documents in found
            for document in documents
            if (known := self._id(document)) is not None
        }
        lists: list[list[tuple[bool, str]]] = []
        merged: dict[tuple[bool, str], list[Document]] = {}
        for documents in found:
            lists.append([])
            for document in documents:
                known = self._id(document) or ids.get(document.page_content)
                key = (False, document.page_content) if known is None else (True, known)
                lists[-1].append(key)
                merged.setdefault(key, []).append(document)
        scores = fuse_ranks(lists, weights=self.weights, rank_constant=self.rank_constant)
        count = self.candidates if candidates is None else candidates
        if count is not None and count < 1:
            raise ConfigurationError(f"candidates is {count}: give a whole number of at least 1")
        return [self._merge(key, merged[key], scores[key]) for key in list(scores)[:count]]

    def _merge(self, key: tuple[bool, str], same: Sequence[Document], score: float) -> Document:
        first = copy_document(same[0], {})
        if key[0]:
            first.id = key[1]
        for other in same[1:]:
            first.metadata = {**copy_document(other, {}).metadata, **first.metadata}
        first.metadata[self.score_key] = score
        return first
