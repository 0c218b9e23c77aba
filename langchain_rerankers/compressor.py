"""The document compressor: what a LangChain chain or retriever puts after its first stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig
from pydantic import PrivateAttr

from langchain_rerankers._runs import Run, arun, config_of, run
from rerank_core import RankedDocument, Ranking
from rerank_core.settings import RerankSettings, labelled

if TYPE_CHECKING:
    from typing_extensions import Self

    from langchain_rerankers.runnable import RerankRunnable

__all__ = ["RerankCompressor"]

_SHOWN = ("top_n", "score_threshold", "adaptive_ratio", "min_keep")
_OTHER_MODELS = 8


class RerankCompressor(RerankSettings, BaseDocumentCompressor):
    """Reorders documents by relevance to the query, and keeps the best.

    Returns new documents of the same class, with their ids and metadata, and the relevance score in the metadata;
    the caller's are never changed. A call is a run of its own in the caller's traces. See
    :class:`rerank_core.settings.RerankSettings` for the options.

    >>> from langchain_core.documents import Document
    >>> compressor = RerankCompressor(top_n=1)
    >>> documents = [Document("The weather in Paris is lovely."), Document("Fixing a memory leak.", id="a")]
    >>> [document.id for document in compressor.compress_documents(documents, "memory leak")]
    ['a']
    """

    score_key: str = "relevance_score"
    """Metadata key of the score, a float in [0, 1], or None where nothing was scored (passthrough)."""

    _others: dict[str, Any] = PrivateAttr(default_factory=dict)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the surviving documents, best first.

        Args:
            documents: what the first stage found, in its order.
            query: what the user asks; not blank.
            callbacks: who is told of the run; by default those of the runnable that calls this, if any.

        Raises:
            ConfigurationError: the query is blank.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        return self._compress(documents, query, config_of(callbacks))[1]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the surviving documents, best first, as :meth:`compress_documents` does."""
        return (await self._acompress(documents, query, config_of(callbacks)))[1]

    def as_runnable(self) -> RerankRunnable:
        """Return a runnable from ``{"query": …, "documents": […]}`` to the surviving documents."""
        from langchain_rerankers.runnable import RerankRunnable

        return RerankRunnable(compressor=self)

    def with_model(self, model: str) -> Self:
        """Return a copy that asks another model; it is made once, and shared by all such copies.

        Key, address and ``model_options`` stay behind where the provider is another one.

        Raises:
            ConfigurationError: no such model, or this compressor has a ``reranker``, which brings its own.
            MissingExtraError: the model needs a package that is not installed.
        """
        update: dict[str, Any] = {"model": model}
        if model.partition(":")[0] != self.model.partition(":")[0]:
            update |= {"api_key": None, "base_url": None, "model_options": {}}
        other = self.model_copy(update=update)
        # Made anew by core() only where an option has changed since.
        other._made = self._others.pop(model, None)
        other.core()
        self._others[model] = other._made
        for oldest in list(self._others)[:-_OTHER_MODELS]:
            self._others.pop(oldest, None)
        return other

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_others": {}}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self._others)] = dict(self._others)
        return super().__deepcopy__(memo)

    def _compress(
        self, documents: Sequence[Document], query: str, config: RunnableConfig
    ) -> tuple[Ranking[Document], list[Document]]:
        shown = self._run(documents, query)
        with run(shown, config):
            ranking = self.core().rerank(query, documents, text_fn=self._text, selection=self.selection())
            return ranking, self._finished(shown, ranking)

    async def _acompress(
        self, documents: Sequence[Document], query: str, config: RunnableConfig
    ) -> tuple[Ranking[Document], list[Document]]:
        shown = self._run(documents, query)
        async with arun(shown, config):
            ranking = await self.core().arerank(query, documents, text_fn=self._text, selection=self.selection())
            return ranking, self._finished(shown, ranking)

    def _text(self, document: Document) -> str:
        if self.text_fn is not None:
            return self.text_fn(document)
        return labelled(document.page_content, document.metadata, self.metadata_fields)

    def _run(self, documents: Sequence[Document], query: str) -> Run:
        return Run(type(self).__name__, query, documents, self._shown)

    def _shown(self) -> dict[str, Any]:
        selection = self.selection() if self.reranker is not None else self
        options = {f"rerank_{name}": getattr(selection, name) for name in _SHOWN}
        return {"rerank_model": self.core().scorer.name, **options}

    def _finished(self, shown: Run, ranking: Ranking[Document]) -> list[Document]:
        documents = [self._document(ranked) for ranked in ranking]
        shown.outputs = {"documents": documents, "model": ranking.model, "usage": asdict(ranking.usage)}
        if ranking.error is not None:
            shown.outputs["error"] = f"{type(ranking.error).__name__}: {ranking.error}"
        return documents

    def _document(self, ranked: RankedDocument[Document]) -> Document:
        metadata = {**ranked.document.metadata, self.score_key: ranked.score}
        update: dict[str, Any] = {"metadata": metadata}
        if self.return_passage and ranked.passage is not None:
            update["page_content"] = ranked.passage_text
            metadata["passage"] = list(ranked.passage)
        return ranked.document.model_copy(update=update)
