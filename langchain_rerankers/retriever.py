"""Two-stage retrieval as one LangChain retriever; needs nothing but langchain-core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import RetrieverLike
from pydantic import ConfigDict, Field, InstanceOf, model_validator
from typing_extensions import Self

from langchain_rerankers._first_stage import FirstStageRetriever, name_of_candidates
from langchain_rerankers.compressor import CallOptions, RerankCompressor
from rerank_core import ConfigurationError

__all__ = ["RerankRetriever"]


class RerankRetriever(CallOptions[str, list[Document]], FirstStageRetriever):
    """Retrieves candidates with a first stage, then reranks them.

    The first stage should return more documents than are wanted in the end: 20 to 200. A call's config and keyword
    arguments, such as ``filter=``, reach it. ``top_n`` may also be given for one call:
    ``retriever.invoke(query, top_n=3)``.

    >>> from langchain_core.documents import Document
    >>> from langchain_core.runnables import RunnableLambda
    >>> documents = [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.")]
    >>> retriever = RerankRetriever(retriever=RunnableLambda(lambda query: documents), top_n=1)
    >>> retriever.invoke("memory leak")[0].page_content
    'Fixing a memory leak.'
    """

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )

    retriever: RetrieverLike
    """The first stage: any retriever, or another runnable from a query to a list of documents."""
    compressor: RerankCompressor | InstanceOf[BaseDocumentCompressor] = Field(  # type: ignore[assignment]
        default_factory=RerankCompressor
    )
    """The second stage: ours, or any other compressor or pipeline, which keeps its own options."""
    candidates: int | None = Field(default=None, ge=1)
    """How many documents the first stage is asked for, at least 1; by default it decides. Needs a vector store's
    retriever, or another that takes ``k`` or ``candidates`` in a call. May also be given for one call."""

    @model_validator(mode="after")
    def _check_candidates(self) -> Self:
        if self.candidates is not None:
            name_of_candidates(self.retriever)
        return self

    def get_sources(self) -> Sequence[RetrieverLike]:
        """Return the first stage."""
        return [self.retriever]

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        top_n: int | None = None,
        candidates: int | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        options = self._source_options(candidates, kwargs)
        found = self.retriever.invoke(query, self._source_config(callbacks), **options)
        return list(self._choose_compressor(top_n).compress_documents(found, query, callbacks=callbacks))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        top_n: int | None = None,
        candidates: int | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        options = self._source_options(candidates, kwargs)
        found = await self.retriever.ainvoke(query, self._source_config(callbacks), **options)
        return list(await self._choose_compressor(top_n).acompress_documents(found, query, callbacks=callbacks))

    def _choose_compressor(self, top_n: int | None) -> BaseDocumentCompressor:
        if isinstance(self.compressor, RerankCompressor):
            return self._apply_options(top_n)
        options = {name: getattr(self, name) for name in CallOptions.__annotations__ if name != "compressor"}
        for name, value in {**options, **({} if top_n is None else {"top_n": top_n})}.items():
            if value is not None:
                raise ConfigurationError(
                    f"{name}= was given beside a {type(self.compressor).__name__}, which has its own options: "
                    "give it there, or compressor=RerankCompressor(reranker=CompressorScorer(…))"
                )
        return self.compressor

    def _source_options(self, candidates: int | None, options: dict[str, Any]) -> dict[str, Any]:
        self._check_options(options)
        count = self.candidates if candidates is None else candidates
        return options if count is None else {**options, name_of_candidates(self.retriever): count}
