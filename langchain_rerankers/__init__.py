"""Reranking for LangChain: a document compressor and a two-stage retriever."""

from langchain_rerankers.compressor import RerankCompressor
from langchain_rerankers.retriever import RerankRetriever

__all__ = ["RerankCompressor", "RerankRetriever"]
