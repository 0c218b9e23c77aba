"""The node postprocessor, which a LlamaIndex query engine runs after its retriever."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import (
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from llamaindex_rerankers._events import CallRecord, send_events
from llamaindex_rerankers._nodes import add_metadata, find_own_passage, is_blank, is_multimodal, replace_text
from rerank_core import ConfigurationError, RankedDocument, Ranking
from rerank_core.ranking_options import prepend_metadata
from rerank_core.settings import RerankSettings

__all__ = ["RerankPostprocessor"]

_dispatcher = get_dispatcher(__name__)
_logger = logging.getLogger(__name__)
_RETRIEVAL_SCORE = "retrieval_score"


class RerankPostprocessor(RerankSettings, BaseNodePostprocessor):
    """Reorders nodes by relevance to the query, and keeps the best.

    Returns new ``NodeWithScore`` objects around the same nodes; the caller's are never changed. In a passthrough
    they keep the first stage's scores, around copies of the nodes with the metadata ``reranked: False``. See
    :class:`rerank_core.settings.RerankSettings` for the options.

    >>> from llama_index.core.schema import NodeWithScore, TextNode
    >>> texts = ["The weather in Paris is lovely.", "Fixing a memory leak."]
    >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    >>> RerankPostprocessor(top_n=1).postprocess_nodes(nodes, query_str="memory leak")[0].text
    'Fixing a memory leak.'
    """

    metadata_mode: MetadataMode = MetadataMode.EMBED
    """Which metadata the model reads with a node's text; ``metadata_fields``, if given, replaces it."""
    keep_retrieval_score: bool = False
    """Keep the first stage's score as the metadata ``retrieval_score``, on a copy of the node; neither the LLM nor
    the embedding model reads it. With ``retrieval_weight`` it is always kept."""
    without_text: Literal["drop", "keep", "raise"] = "drop"
    """What to do with nodes that the model cannot read: ``"drop"`` removes them, with one warning. ``"keep"`` puts
    images, other media and references below all others, with the score None, in the first stage's order, within
    ``top_n``, and only without thresholds; blank texts score 0.0. ``"raise"`` refuses them. ``text_fn`` or
    ``metadata_fields`` may give them a text."""

    _has_warned: bool = PrivateAttr(default=False)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that serialised objects carry."""
        return "RerankPostprocessor"

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, data: Any) -> Any:
        """Accept the output of ``model_dump``, in which LlamaIndex writes the class's name."""
        if isinstance(data, dict) and data.get("class_name") == cls.class_name():
            return {name: value for name, value in data.items() if name != "class_name"}
        return data

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        return {**super()._dump(handler, info), "class_name": self.class_name()}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["__dict__"]["callback_manager"]  # its handlers belong to this process
        return state

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._send_events(nodes, query_bundle) as record:
            query = self._query(nodes, query_bundle)
            readable, others = self._split(nodes)
            record.add_ranking(ranking := self._rank(query, readable))
            record.nodes.extend(self._build_nodes(ranking, nodes, others))
        return record.nodes

    @_dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._send_events(nodes, query_bundle) as record:
            query = self._query(nodes, query_bundle)
            readable, others = self._split(nodes)
            record.add_ranking(ranking := await self._arank(query, readable))
            record.nodes.extend(self._build_nodes(ranking, nodes, others))
        return record.nodes

    def _send_events(
        self, nodes: Sequence[NodeWithScore], query_bundle: QueryBundle | None
    ) -> AbstractContextManager[CallRecord]:
        top_n = self.selection().top_n or len(nodes)
        return send_events(self.callback_manager, nodes, query_bundle, self.get_reranker().scorer.name, top_n)

    def _query(self, nodes: Sequence[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        if query_bundle is not None:
            return query_bundle.query_str
        if nodes and self.get_reranker().on_error == "raise":
            raise ConfigurationError("no query was given: pass query_bundle= or query_str=")
        return ""

    def _read(self, document: NodeWithScore | BaseNode) -> str:
        node = document.node if isinstance(document, NodeWithScore) else document
        if self.metadata_fields:
            return prepend_metadata(node.get_content(MetadataMode.NONE), node.metadata, self.metadata_fields)
        return node.get_content(self.metadata_mode)

    def _retrieval_score(self, document: NodeWithScore | BaseNode | Any) -> Any:
        if isinstance(document, dict):
            return document.get("score")
        return document.score if isinstance(document, NodeWithScore) else None

    def _identify(self, document: NodeWithScore | BaseNode) -> tuple[str | None, str]:
        node = document.node if isinstance(document, NodeWithScore) else document
        return node.node_id, node.get_content(MetadataMode.NONE)

    def _has_text(self, node: NodeWithScore) -> bool:
        if self.text_fn is not None or self.metadata_fields:
            text: object = self._text(node)
            return not isinstance(text, str) or not is_blank(text)  # what is no string is an error of its own
        return not is_blank(node.node.get_content(MetadataMode.NONE))

    def _split(self, nodes: Sequence[NodeWithScore]) -> tuple[list[NodeWithScore], list[NodeWithScore]]:
        """Return the nodes to score, and those to keep without a score.

        Raises:
            ConfigurationError: a node has no text, and ``without_text`` is ``"raise"``.
        """
        readable, others = [], []
        for position, node in enumerate(nodes):
            if self._has_text(node) or (self.without_text == "keep" and not is_multimodal(node.node)):
                readable.append(node)
            elif self.without_text == "raise":
                raise ConfigurationError(
                    f"nodes[{position}], a {type(node.node).__name__}, has no text to rank by: give text_fn=, or "
                    "without_text='keep' or 'drop'"
                )
            elif self.without_text == "keep":
                others.append(node)
            elif not self._has_warned:
                self._has_warned = True
                _logger.warning(
                    "nodes[%d], a %s, has no text to rank by and is dropped, as all such nodes are: "
                    "give text_fn=, or without_text='keep'",
                    position,
                    type(node.node).__name__,
                )
        return readable, others

    def _build_nodes(
        self, ranking: Ranking[NodeWithScore], nodes: Sequence[NodeWithScore], others: Sequence[NodeWithScore]
    ) -> list[NodeWithScore]:
        selection = self.selection()
        if ranking.error is not None:
            unscored = [ranked.document for ranked in ranking] + list(others)
            kept = [node for node in nodes if any(node is one for one in unscored)][: selection.top_n]
            return [
                _replace(node, self._annotate(node, node.node, {"reranked": False}), node.score) for node in kept
            ]
        room = len(others) if selection.top_n is None else selection.top_n - len(ranking)
        if selection.cut(1.0) > 0.0:  # a threshold drops what has no score
            room = min(room, selection.min_keep - len(ranking))
        built = [_replace(each.document, self._node(each), each.score) for each in self._arrange(ranking)]
        return built + [_replace(node, self._annotate(node, node.node), None) for node in others[: max(0, room)]]

    def _node(self, ranked: RankedDocument[NodeWithScore]) -> BaseNode:
        node = ranked.document.node
        if not self.return_passage or ranked.passage is None:
            return self._annotate(ranked.document, node)
        own = find_own_passage(node, ranked)
        span = own or ranked.passage
        text = node.get_content(MetadataMode.NONE)[own.start : own.end] if own else ranked.passage_text
        return self._annotate(ranked.document, replace_text(node, text, own), {"passage": list(span)})

    def _annotate(self, given: NodeWithScore, node: BaseNode, metadata: dict[str, Any] | None = None) -> BaseNode:
        """Return the node with metadata added, the given node where there is nothing to add."""
        added = dict(metadata or {})
        if self.keep_retrieval_score or self.get_reranker().retrieval_weight:
            added[_RETRIEVAL_SCORE] = None if given.score is None else float(given.score)
        return add_metadata(node, added) if added else node


def _replace(given: NodeWithScore, node: BaseNode, score: float | None) -> NodeWithScore:
    return given.model_copy(update={"node": node, "score": score})
