"""The four doors into the adapters: each framework, sync and async, behind one signature."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from langchain_rerankers import RerankCompressor
from llamaindex_rerankers import RerankPostprocessor

QUERY = "memory leak"
TEXTS = ["Paris in spring", "finding a memory leak", "memory", "a leak in the roof"]
BEST_FIRST = ["finding a memory leak", "memory", "a leak in the roof", "Paris in spring"]
"""As FakeScorer ranks the texts for the query, with distinct scores."""

Settings = RerankCompressor | RerankPostprocessor
KINDS: tuple[type[Settings], ...] = (RerankCompressor, RerankPostprocessor)


@dataclass(frozen=True)
class Door:
    """One framework's adapter, called one way."""

    kind: type[Any]
    is_async: bool

    def __str__(self) -> str:
        return f"{self.kind.__name__}-{'async' if self.is_async else 'sync'}"

    def rank(
        self,
        settings: Settings,
        texts: Sequence[str] = TEXTS,
        query: str = QUERY,
        *,
        metadata: Sequence[dict[str, Any]] | None = None,
    ) -> list[tuple[str, float | None]]:
        """Return the text and the score of what survives, best first."""
        tags = metadata if metadata is not None else [{} for _ in texts]
        if isinstance(settings, RerankCompressor):
            documents = [Document(text, metadata=tag) for text, tag in zip(texts, tags, strict=True)]
            kept = (
                asyncio.run(settings.acompress_documents(documents, query))
                if self.is_async
                else settings.compress_documents(documents, query)
            )
            return [(document.page_content, document.metadata[settings.score_key]) for document in kept]
        nodes = [
            NodeWithScore(node=TextNode(text=text, metadata=tag)) for text, tag in zip(texts, tags, strict=True)
        ]
        ranked = (
            asyncio.run(settings.apostprocess_nodes(nodes, query_str=query))
            if self.is_async
            else settings.postprocess_nodes(nodes, query_str=query)
        )
        return [(node.text, node.score) for node in ranked]

    def texts(self, settings: Settings, texts: Sequence[str] = TEXTS, query: str = QUERY) -> list[str]:
        """Return the texts that survive, best first."""
        return [text for text, _ in self.rank(settings, texts, query)]


DOORS = tuple(Door(kind, is_async) for kind in KINDS for is_async in (False, True))
