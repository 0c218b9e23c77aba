"""Two-stage retrieval as one LangChain retriever, on langchain-core alone."""

from __future__ import annotations

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from pydantic import ConfigDict, Field

from langchain_rerankers.compressor import RerankCompressor

__all__ = ["RerankRetriever"]


class RerankRetriever(BaseRetriever):
    """Retrieves with a first stage, then reranks what came.

    The first stage should return more than is wanted in the end: 20 to 200 candidates.

    >>> from langchain_core.documents import Document
    >>> from langchain_core.runnables import RunnableLambda
    >>> documents = [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.")]
    >>> retriever = RerankRetriever(retriever=RunnableLambda(lambda query: documents), k=1)
    >>> retriever.invoke("memory leak")[0].page_content
    'Fixing a memory leak.'
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)

    retriever: RetrieverLike
    """The first stage: any retriever, or another runnable from a query to a list of documents."""
    compressor: RerankCompressor = Field(default_factory=RerankCompressor)
    """The second stage."""
    k: int | None = Field(default=None, ge=1)
    """How many documents are returned at most, instead of the compressor's ``top_n``; at least 1. May also be
    given for one call: ``retriever.invoke(query, k=3)``."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        candidates = self.retriever.invoke(query, config={"callbacks": callbacks})
        return self._second_stage(k).compress_documents(candidates, query, callbacks=callbacks)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        candidates = await self.retriever.ainvoke(query, config={"callbacks": callbacks})
        return await self._second_stage(k).acompress_documents(candidates, query, callbacks=callbacks)

    def _second_stage(self, k: int | None) -> RerankCompressor:
        top_n = self.k if k is None else k
        if top_n is None:
            return self.compressor
        self.compressor.core()  # made here, once, and not by every copy
        return self.compressor.model_copy(update={"top_n": top_n})
