"""Reranking for LlamaIndex: a node postprocessor."""

from llamaindex_rerankers.postprocessor import RerankPostprocessor

__all__ = ["RerankPostprocessor"]
