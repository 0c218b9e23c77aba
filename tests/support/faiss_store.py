"""FAISS as a LangChain vector store: LangChain's own one is in a package that is no longer maintained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import faiss
import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore


class FaissStore(VectorStore):
    """An exact inner-product index in memory, and the documents beside it."""

    def __init__(self, embeddings: Embeddings, size: int) -> None:
        self._embeddings = embeddings
        self._index = faiss.IndexFlatIP(size)
        self._documents: list[Document] = []

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and keep texts, and return their ids."""
        kept = list(texts)
        names = ids or [str(uuid4()) for _ in kept]
        tags = metadatas or [{} for _ in kept]
        self._index.add(np.array(self._embeddings.embed_documents(kept), dtype=np.float32))
        self._documents += [
            Document(text, id=name, metadata=tag) for text, name, tag in zip(kept, names, tags, strict=True)
        ]
        return names

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the nearest documents."""
        vector = np.array([self._embeddings.embed_query(query)], dtype=np.float32)
        _, (found,) = self._index.search(vector, min(k, len(self._documents)))
        return [self._documents[position] for position in found]

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Embeddings, metadatas: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> FaissStore:
        """Return a store of texts."""
        store = cls(embedding, len(embedding.embed_query("size")))
        store.add_texts(texts, metadatas)
        return store
