"""The last step of an ingestion pipeline, which stores what the postprocessor will need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, TransformComponent
from pydantic import SerializeAsAny

from llamaindex_rerankers.postprocessor import RerankPostprocessor

__all__ = ["RerankPrecompute"]


class RerankPrecompute(TransformComponent):
    """Encodes nodes when they are indexed, and passes them on unchanged; the last transformation of a pipeline.

    >>> import os, tempfile
    >>> from llama_index.core.ingestion import IngestionPipeline
    >>> from llama_index.core.schema import TextNode
    >>> path = os.path.join(tempfile.mkdtemp(), "rerank.vectors")
    >>> rerank = RerankPostprocessor(model_options={"vectors": path})
    >>> pipeline = IngestionPipeline(transformations=[RerankPrecompute(postprocessor=rerank)])
    >>> [node.text for node in pipeline.run(nodes=[TextNode(text="Fixing a memory leak.")])]
    ['Fixing a memory leak.']
    """

    postprocessor: SerializeAsAny[RerankPostprocessor]
    """Whose model stores vectors; it decides what is read of a node."""

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        """Encode nodes, and return them."""
        self.postprocessor.precompute(nodes)
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        """Encode nodes, and return them."""
        await self.postprocessor.aprecompute(nodes)
        return nodes
