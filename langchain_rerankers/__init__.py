"""Reranking for LangChain: a document compressor, a two-stage retriever, and LangChain's models as scorers."""

from rerank_core._support.extras import check_installed

check_installed("langchain_core", extra="langchain", purpose="langchain_rerankers")

from langchain_rerankers.bridges import ChatModelScorer, CompressorScorer  # noqa: E402
from langchain_rerankers.compressor import RerankCompressor  # noqa: E402
from langchain_rerankers.hybrid import HybridRetriever  # noqa: E402
from langchain_rerankers.retriever import RerankRetriever  # noqa: E402

__all__ = ["ChatModelScorer", "CompressorScorer", "HybridRetriever", "RerankCompressor", "RerankRetriever"]
