"""The compressor as a runnable, which pipes, batches, streams and retries like the rest of LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict
from typing_extensions import TypedDict

from langchain_rerankers.compressor import RerankCompressor
from rerank_core import ConfigurationError

__all__ = ["RerankInput", "RerankRunnable"]


class RerankInput(TypedDict):
    """What the runnable takes."""

    query: str
    documents: Sequence[Document]


class RerankRunnable(RunnableSerializable[RerankInput, list[Document]]):
    """Reranks the documents of its input; made by :meth:`RerankCompressor.as_runnable`.

    >>> from langchain_core.documents import Document
    >>> from langchain_core.runnables import RunnablePassthrough
    >>> found = lambda query: [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.")]
    >>> chain = {"query": RunnablePassthrough(), "documents": found} | RerankCompressor(top_n=1).as_runnable()
    >>> chain.invoke("memory leak")[0].page_content
    'Fixing a memory leak.'
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    compressor: RerankCompressor
    """What reranks."""

    @property
    def InputType(self) -> type[RerankInput]:  # noqa: N802 - LangChain's name
        """The type of the input."""
        return RerankInput

    @property
    def OutputType(self) -> type[list[Document]]:  # noqa: N802 - LangChain's name
        """The type of the output."""
        return list[Document]

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """Return the name in traces and graphs: the compressor's, unless it was given another."""
        return super().get_name(suffix, name=name or self.name or type(self.compressor).__name__)

    def invoke(
        self,
        input: RerankInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the surviving documents, best first.

        Raises:
            ConfigurationError: the input is no dictionary with ``query`` and ``documents``, or the query is blank.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        query, documents = _parts(input, kwargs)
        return self.compressor._compress(documents, query, self._named(config))[1]

    async def ainvoke(
        self,
        input: RerankInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the surviving documents, best first, as :meth:`invoke` does."""
        query, documents = _parts(input, kwargs)
        return (await self.compressor._acompress(documents, query, self._named(config)))[1]

    def _named(self, config: RunnableConfig | None) -> RunnableConfig:
        config = config or {}
        return config if config.get("run_name") else {**config, "run_name": self.get_name()}


def _parts(value: RerankInput, options: dict[str, Any]) -> tuple[str, Sequence[Document]]:
    if options:
        raise TypeError(f"the reranking runnable takes no {', '.join(options)}: set options on the compressor")
    if not isinstance(value, dict) or not {"query", "documents"} <= value.keys():
        raise ConfigurationError(
            f"the reranking runnable was given a {type(value).__name__}: "
            "give a dictionary with 'query' and 'documents'"
        )
    return value["query"], value["documents"]
