"""Reranking for LlamaIndex: a node postprocessor, a retriever of two stages, LlamaIndex's models as scorers."""

from rerank_core._support.extras import check_installed

check_installed("llama_index", extra="llamaindex", purpose="llamaindex_rerankers")

from llamaindex_rerankers.bridges import LLMScorer, PostprocessorScorer  # noqa: E402
from llamaindex_rerankers.postprocessor import RerankPostprocessor  # noqa: E402
from llamaindex_rerankers.precompute import RerankPrecompute  # noqa: E402
from llamaindex_rerankers.retriever import RerankRetriever  # noqa: E402

__all__ = ["LLMScorer", "PostprocessorScorer", "RerankPostprocessor", "RerankPrecompute", "RerankRetriever"]
