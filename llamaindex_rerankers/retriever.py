"""Two-stage retrieval as one LlamaIndex retriever."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle

from llamaindex_rerankers.postprocessor import RerankPostprocessor
from rerank_core import ConfigurationError

__all__ = ["RerankRetriever"]


class RerankRetriever(BaseRetriever):
    """Retrieves with a first stage, then reranks what came.

    The first stage should return more than is wanted in the end: 20 to 200 candidates. It stands wherever
    LlamaIndex takes a retriever: query and chat engines, retriever tools, fusion, evaluators.

    Args:
        retriever: the first stage.
        postprocessor: the second stage, used as it is; by default one of ``options``.
        callback_manager: told of both stages' events; by default the first stage's. Where given, the
            postprocessor reports to it as well, as query engines have it.
        object_map: what index nodes refer to, by their ``index_id``, as every LlamaIndex retriever takes it.
        objects: index nodes with their objects, instead of ``object_map``.
        verbose: print which objects are entered.
        options: of :class:`RerankPostprocessor`, such as ``top_n=5``.

    Raises:
        ConfigurationError: ``postprocessor`` and options, or something that is no retriever.
        pydantic.ValidationError: (also ValueError) an option is unknown or out of its range.

    >>> from llama_index.core import SummaryIndex
    >>> from llama_index.core.schema import TextNode
    >>> nodes = [TextNode(text="The weather in Paris is lovely."), TextNode(text="Fixing a memory leak.")]
    >>> retriever = RerankRetriever(SummaryIndex(nodes).as_retriever(), top_n=1)
    >>> retriever.retrieve("memory leak")[0].text
    'Fixing a memory leak.'
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        postprocessor: RerankPostprocessor | None = None,
        *,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(retriever, BaseRetriever):
            raise ConfigurationError(
                f"retriever is a {type(retriever).__name__}: give one, such as index.as_retriever()"
            )
        if postprocessor is not None and options:
            raise ConfigurationError(f"postprocessor= was given, which brings its own {', '.join(options)}")
        self.retriever = retriever
        self.postprocessor = RerankPostprocessor(**options) if postprocessor is None else postprocessor
        manager = callback_manager or getattr(retriever, "callback_manager", None) or CallbackManager()
        if postprocessor is None or callback_manager is not None:
            self.postprocessor.callback_manager = manager
        super().__init__(manager, object_map, objects, verbose)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"retriever": self.retriever}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        candidates = self.retriever.retrieve(query_bundle)
        return self.postprocessor.postprocess_nodes(candidates, query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        candidates = await self.retriever.aretrieve(query_bundle)
        return await self.postprocessor.apostprocess_nodes(candidates, query_bundle)
