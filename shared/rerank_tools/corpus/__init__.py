"""A folder or file of documents as the first stage: read, split on its structure, searched by BM25."""

from rerank_tools.corpus.chunks import Chunk, chunk_file
from rerank_tools.corpus.index import CorpusIndex, Hit

__all__ = ["Chunk", "CorpusIndex", "Hit", "chunk_file"]
