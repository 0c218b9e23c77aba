"""Two-stage retrieval as one LangChain retriever, on langchain-core alone."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import ConfigurableField, ConfigurableFieldSpec, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.utils import get_unique_config_specs
from pydantic import ConfigDict, Field

from langchain_rerankers.compressor import RerankCompressor

__all__ = ["RerankRetriever"]

_configured: ContextVar[dict[str, Any] | None] = ContextVar("_configured", default=None)
"""What the call under way configures: LangChain shows a retriever its callbacks only."""


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
    """How many documents are returned at most, instead of ``top_n``; at least 1. May also be given for one call:
    ``retriever.invoke(query, k=3)``."""
    top_n: int | None = Field(default=None, ge=1)
    """How many documents survive at most, instead of the compressor's ``top_n``; at least 1."""
    model: str | None = None
    """The model to ask, instead of the compressor's, as :meth:`RerankCompressor.with_model` takes it."""

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable fields of the first stage."""
        return get_unique_config_specs(getattr(self.retriever, "config_specs", []))

    def configurable(self, prefix: str = "rerank_") -> RunnableSerializable[str, list[Document]]:
        """Return this retriever with ``k``, ``top_n`` and ``model`` configurable for each call.

        Their keys have a prefix, because applications often configure their chat model as ``model``.

        >>> from langchain_core.runnables import RunnableLambda
        >>> found = RunnableLambda(lambda query: [Document("Paris"), Document("Fixing a memory leak.")])
        >>> retriever = RerankRetriever(retriever=found).configurable()
        >>> len(retriever.invoke("memory leak", {"configurable": {"rerank_k": 1}}))
        1
        """
        return self.configurable_fields(
            k=ConfigurableField(id=f"{prefix}k", description="How many documents are returned at most."),
            top_n=ConfigurableField(id=f"{prefix}top_n", description="How many documents survive at most."),
            model=ConfigurableField(id=f"{prefix}model", description="The reranking model, as provider:model."),
        )

    def invoke(
        self,
        input: str,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the documents that survive, best first; what ``config`` configures reaches the first stage."""
        token = _configured.set(ensure_config(config).get("configurable"))
        try:
            return super().invoke(input, config, **kwargs)
        finally:
            _configured.reset(token)

    async def ainvoke(
        self,
        input: str,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the documents that survive, best first, as :meth:`invoke` does."""
        token = _configured.set(ensure_config(config).get("configurable"))
        try:
            return await super().ainvoke(input, config, **kwargs)
        finally:
            _configured.reset(token)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        candidates = self.retriever.invoke(query, _first_stage_config(callbacks))
        return self._second_stage(k).compress_documents(candidates, query, callbacks=callbacks)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        candidates = await self.retriever.ainvoke(query, _first_stage_config(callbacks))
        return await self._second_stage(k).acompress_documents(candidates, query, callbacks=callbacks)

    def _second_stage(self, k: int | None) -> RerankCompressor:
        compressor = self.compressor if self.model is None else self.compressor.with_model(self.model)
        top_n = next((given for given in (k, self.k, self.top_n) if given is not None), None)
        if top_n is None:
            return compressor
        compressor.core()  # made here, once, and not by every copy
        return compressor.model_copy(update={"top_n": top_n})


def _first_stage_config(callbacks: BaseCallbackManager) -> RunnableConfig:
    return {"callbacks": callbacks, "configurable": _configured.get() or {}}
