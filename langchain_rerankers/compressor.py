"""The document compressor: what a LangChain chain or retriever puts after its first stage."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from rerank_core import Ranking
from rerank_core.settings import RerankSettings, labelled

__all__ = ["RerankCompressor"]


class RerankCompressor(RerankSettings, BaseDocumentCompressor):
    """Reorders documents by relevance to the query, and keeps the best.

    Returns new documents of the same class, with their ids and metadata, and the relevance score in the metadata;
    the caller's are never changed. See :class:`rerank_core.settings.RerankSettings` for the options.

    >>> from langchain_core.documents import Document
    >>> compressor = RerankCompressor(top_n=1)
    >>> documents = [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.", id="a")]
    >>> [document.id for document in compressor.compress_documents(documents, "memory leak")]
    ['a']
    """

    score_key: str = "relevance_score"
    """Metadata key of the score, a float in [0, 1], or None where nothing was scored (passthrough)."""

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> list[Document]:
        """Return the surviving documents, best first.

        Raises:
            ConfigurationError: the query is blank.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        ranking = self.core().rerank(query, documents, text_fn=self._text, selection=self.selection())
        return self._documents(ranking)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> list[Document]:
        """Return the surviving documents, best first, as :meth:`compress_documents` does."""
        ranking = await self.core().arerank(query, documents, text_fn=self._text, selection=self.selection())
        return self._documents(ranking)

    def _text(self, document: Document) -> str:
        if self.text_fn is not None:
            return self.text_fn(document)
        return labelled(document.page_content, document.metadata, self.metadata_fields)

    def _documents(self, ranking: Ranking[Document]) -> list[Document]:
        return [
            ranked.document.model_copy(
                update={"metadata": {**ranked.document.metadata, self.score_key: ranked.score}}
            )
            for ranked in ranking
        ]
