"""A folder or file of documents as the first stage: read, split on its structure, searched by BM25."""

from rerank_core.corpus.chunks import Chunk, chunk_file
from rerank_core.corpus.index import CorpusIndex, Hit

__all__ = ["Chunk", "CorpusIndex", "Hit", "chunk_file"]
