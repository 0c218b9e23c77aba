"""Two-stage retrieval as one LlamaIndex retriever."""

from __future__ import annotations

import logging
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.base import BaseIndex
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle

from llamaindex_rerankers.postprocessor import RerankPostprocessor
from rerank_core import ConfigurationError

__all__ = ["RerankRetriever"]

_logger = logging.getLogger(__name__)
_CANDIDATES = 50


class RerankRetriever(BaseRetriever):
    """Retrieves candidates with a first stage, then reranks them.

    It works wherever LlamaIndex takes a retriever: query and chat engines, retriever tools, fusion, evaluators.

    Args:
        retriever: the first stage: an index, or a retriever that returns more nodes than are wanted in the end.
        postprocessor: the second stage, used as it is; by default one made from ``options``.
        candidates: how many nodes an index is asked for, at least 1; 50 by default. A retriever brings its own
            number, most as ``similarity_top_k``, which is 2 unless set.
        callback_manager: receives both stages' events; by default the first stage's. If given, the postprocessor
            reports to it as well, as query engines have it.
        object_map: what index nodes refer to, by their ``index_id``, as every LlamaIndex retriever takes it.
        objects: index nodes with their objects, instead of ``object_map``.
        verbose: print which objects are entered.
        options: of :class:`RerankPostprocessor`, such as ``top_n=5``.

    Raises:
        ConfigurationError: ``postprocessor`` with options, ``candidates`` with a retriever, or no retriever.
        pydantic.ValidationError: (also ValueError) an option is unknown or out of its range.

    >>> from llama_index.core import SummaryIndex
    >>> from llama_index.core.schema import TextNode
    >>> nodes = [TextNode(text="The weather in Paris is lovely."), TextNode(text="Fixing a memory leak.")]
    >>> retriever = RerankRetriever(SummaryIndex(nodes), candidates=20, top_n=1)
    >>> retriever.retrieve("memory leak")[0].text
    'Fixing a memory leak.'
    """

    def __init__(
        self,
        retriever: BaseRetriever | BaseIndex[Any],
        postprocessor: RerankPostprocessor | None = None,
        *,
        candidates: int | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        if isinstance(retriever, BaseIndex):
            if candidates is not None and (isinstance(candidates, bool) or candidates < 1):
                raise ConfigurationError(f"candidates is {candidates!r}: give a whole number of at least 1")
            retriever = retriever.as_retriever(similarity_top_k=candidates or _CANDIDATES)
        elif candidates is not None:
            raise ConfigurationError(
                f"candidates was given with a {type(retriever).__name__}: give an index, or set the retriever's "
                "own similarity_top_k"
            )
        if not isinstance(retriever, BaseRetriever):
            raise ConfigurationError(
                f"retriever is a {type(retriever).__name__}: give an index, or a retriever such as "
                "index.as_retriever(similarity_top_k=50)"
            )
        if postprocessor is not None and options:
            raise ConfigurationError(f"postprocessor= was given, which brings its own {', '.join(options)}")
        self.retriever = retriever
        self.postprocessor = RerankPostprocessor(**options) if postprocessor is None else postprocessor
        found, wanted = getattr(retriever, "similarity_top_k", None), self.postprocessor.selection().top_n
        if isinstance(found, int) and wanted is not None and found <= wanted:
            _logger.warning(
                "the first stage returns %d nodes, and top_n is %d: raise its similarity_top_k to 20 or more, "
                "or there is little to rerank",
                found,
                wanted,
            )
        manager = callback_manager or getattr(retriever, "callback_manager", None) or CallbackManager()
        if postprocessor is None or callback_manager is not None:
            self.postprocessor.callback_manager = manager
        super().__init__(manager, object_map, objects, verbose)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"retriever": self.retriever}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.retriever.retrieve(query_bundle)
        return self.postprocessor.postprocess_nodes(found, query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await self.retriever.aretrieve(query_bundle)
        return await self.postprocessor.apostprocess_nodes(found, query_bundle)
