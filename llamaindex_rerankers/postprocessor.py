"""The node postprocessor: what a LlamaIndex query engine puts after its retriever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import model_validator

from rerank_core import ConfigurationError, RankedDocument, Ranking
from rerank_core.settings import RerankSettings, labelled

__all__ = ["RerankPostprocessor"]

_dispatcher = get_dispatcher(__name__)
_RETRIEVAL_SCORE = "retrieval_score"


class RerankPostprocessor(RerankSettings, BaseNodePostprocessor):
    """Reorders nodes by relevance to the query, and keeps the best.

    Returns new ``NodeWithScore`` objects around the same nodes; the caller's are never changed. See
    :class:`rerank_core.settings.RerankSettings` for the options.

    >>> from llama_index.core.schema import NodeWithScore, TextNode
    >>> texts = ["The weather in Paris is lovely.", "Fixing a memory leak."]
    >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    >>> RerankPostprocessor(top_n=1).postprocess_nodes(nodes, query_str="memory leak")[0].text
    'Fixing a memory leak.'
    """

    metadata_mode: MetadataMode = MetadataMode.EMBED
    """Which metadata the model reads with a node's text; ``metadata_fields``, where given, decide instead."""
    keep_retrieval_score: bool = False
    """Keep the first stage's score as the metadata ``retrieval_score``, on a copy of the node, hidden from the LLM
    and from the embedder."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name that serialised objects carry."""
        return "RerankPostprocessor"

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, data: Any) -> Any:
        """Take what ``model_dump`` returns, in which LlamaIndex writes the class's name."""
        if isinstance(data, dict) and data.get("class_name") == cls.class_name():
            return {name: value for name, value in data.items() if name != "class_name"}
        return data

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["__dict__"]["callback_manager"]  # its handlers belong to this process
        return state

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._reported(nodes, query_bundle) as kept:
            query = self._query(nodes, query_bundle)
            ranking = self.core().rerank(query, nodes, text_fn=self._text, selection=self.selection())
            kept.extend(self._kept(ranking))
        return kept

    @_dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._reported(nodes, query_bundle) as kept:
            query = self._query(nodes, query_bundle)
            ranking = await self.core().arerank(query, nodes, text_fn=self._text, selection=self.selection())
            kept.extend(self._kept(ranking))
        return kept

    @contextmanager
    def _reported(
        self, nodes: Sequence[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[list[NodeWithScore]]:
        """Send the start and end events of both kinds; what the caller fills the list with is the result."""
        kept: list[NodeWithScore] = []
        top_n = self.selection().top_n or len(nodes)
        model = self.core().scorer.name
        payload: dict[str, Any] = {
            EventPayload.NODES: list(nodes),
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query_bundle.query_str if query_bundle is not None else None,
            EventPayload.TOP_K: top_n,
        }
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=list(nodes), top_n=top_n, model_name=model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield kept
                event.on_end(payload={EventPayload.NODES: list(kept)})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=list(kept)))

    @staticmethod
    def _query(nodes: Sequence[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        if query_bundle is not None:
            return query_bundle.query_str
        if nodes:
            raise ConfigurationError("no query was given: pass query_bundle= or query_str=")
        return ""

    def _text(self, node: NodeWithScore) -> str:
        if self.text_fn is not None:
            return self.text_fn(node)
        if self.metadata_fields:
            return labelled(node.get_content(MetadataMode.NONE), node.metadata, self.metadata_fields)
        return node.get_content(self.metadata_mode)

    def _kept(self, ranking: Ranking[NodeWithScore]) -> list[NodeWithScore]:
        return [
            ranked.document.model_copy(update={"node": self._node(ranked), "score": ranked.score})
            for ranked in ranking
        ]

    def _node(self, ranked: RankedDocument[NodeWithScore]) -> BaseNode:
        node, score = ranked.document.node, ranked.document.score
        if not self.keep_retrieval_score:
            return node
        return node.model_copy(
            update={
                "metadata": {**node.metadata, _RETRIEVAL_SCORE: None if score is None else float(score)},
                "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, _RETRIEVAL_SCORE],
                "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, _RETRIEVAL_SCORE],
            }
        )
