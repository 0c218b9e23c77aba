"""Retrievers that ask other retrievers: a call's config and keyword arguments reach every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from inspect import signature
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, patch_config
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.utils import get_unique_config_specs
from langchain_core.vectorstores import VectorStoreRetriever

from rerank_core import ConfigurationError

_config: ContextVar[RunnableConfig | None] = ContextVar("_config", default=None)
"""The config of the call in progress: LangChain hands a retriever only its callbacks."""


class FirstStageRetriever(BaseRetriever):
    """A retriever that asks other retrievers."""

    def get_sources(self) -> Sequence[RetrieverLike]:
        """Return the retrievers that this one asks."""
        raise NotImplementedError

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable fields of all sources."""
        return get_unique_config_specs(
            spec for source in self.get_sources() for spec in getattr(source, "config_specs", [])
        )

    def invoke(
        self,
        input: str,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the documents for a query; config and keyword arguments reach the sources."""
        token = _config.set(ensure_config(config))
        try:
            return super().invoke(input, config, **kwargs)
        finally:
            _config.reset(token)

    async def ainvoke(
        self,
        input: str,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the documents for a query, as :meth:`invoke` does."""
        token = _config.set(ensure_config(config))
        try:
            return await super().ainvoke(input, config, **kwargs)
        finally:
            _config.reset(token)

    def _source_config(self, callbacks: BaseCallbackManager) -> RunnableConfig:
        return patch_config(_config.get(), callbacks=callbacks)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise a TypeError for keyword arguments that a source would ignore without a word."""
        for source in self.get_sources() if options else ():
            inner = _unwrap(source)
            if isinstance(inner, BaseRetriever) and not inner._expects_other_args:
                raise TypeError(f"the first stage {inner.get_name()} takes no {', '.join(options)}")


def name_of_candidates(source: RetrieverLike) -> str:
    """Return the keyword argument by which a first stage is told how many documents to return."""
    inner = _unwrap(source)
    if isinstance(inner, VectorStoreRetriever):
        return "k"
    takes = signature(inner._get_relevant_documents).parameters if isinstance(inner, BaseRetriever) else ()
    for name in ("candidates", "k"):
        if name in takes:
            return name
    raise ConfigurationError(
        f"candidates was given, but the first stage, a {type(inner).__name__}, does not take a number in a call: "
        "set it on the first stage"
    )


def _unwrap(source: Any) -> Any:
    """Return the runnable that takes a call's keyword arguments."""
    while True:
        if isinstance(source, RunnableBindingBase):
            source = source.bound
        elif isinstance(source, DynamicRunnable):
            source = source.default
        elif isinstance(source, RunnableSequence):
            source = source.first
        else:
            return source
