"""How the adapters rank: what is read of a document, duplicates, diversity and order, around a reranker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from rerank_core._call.request import TEXT_NAMES
from rerank_core.diversity import diversify, similarity_of_vectors
from rerank_core.errors import ConfigurationError
from rerank_core.reranker import Reranker
from rerank_core.selection import Selection
from rerank_core.types import RankedDocument, Ranking
from rerank_core.usage import Usage

__all__ = ["RankingOptions", "prepend_metadata"]

D = TypeVar("D")


class RankingOptions(BaseModel):
    """Options of a call that are not the reranker's own, and the calls that apply them.

    A subclass says which reranker ranks, and how one of a framework's documents is read.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    metadata_fields: Sequence[str] = ()
    """Metadata that the model reads before the text, as lines such as ``title: …``."""
    text_fn: SkipJsonSchema[Callable[[Any], str] | None] = Field(default=None, exclude=True)
    """Function from a document to the text that the model reads, instead of its text and ``metadata_fields``."""
    diversity: float = 0.0
    """Weight of novelty against relevance, in [0, 1] (maximal marginal relevance); 0.0 for relevance alone."""
    vector_fn: SkipJsonSchema[Callable[[Any], Sequence[float]] | None] = Field(default=None, exclude=True)
    """Function from a document to its stored embedding, which ``diversity`` compares; by default, words are."""
    order: Literal["relevance", "edges"] = "relevance"
    """``"edges"`` puts the best documents first and last and the weakest in the middle, for long contexts."""
    collapse_duplicates: bool = False
    """Rank documents with the same id or the same text once: the first one."""

    def get_reranker(self) -> Reranker:
        """Return what ranks."""
        raise NotImplementedError

    def selection(self) -> Selection:
        """Return which documents survive."""
        raise NotImplementedError

    def rerank(self, documents: Sequence[Any], query: str, *, top_n: int | None = None) -> list[dict[str, Any]]:
        """Rank strings, dictionaries or the framework's documents, without building new ones.

        Args:
            documents: dictionaries with ``text``, ``page_content`` or ``content``, or with ``text_fn``.
            query: the user's question; not blank.
            top_n: replaces the option of that name, at least 1.

        Returns:
            ``{"index": …, "relevance_score": …}`` for each survivor, best first; the index is the position in
            ``documents``.

        Raises:
            ConfigurationError: the query is blank, or a document has no text.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        settings = self if top_n is None else self.model_copy(update={"top_n": top_n})
        return [
            {"index": ranked.index, "relevance_score": ranked.score} for ranked in settings._rank(query, documents)
        ]

    async def arerank(
        self, documents: Sequence[Any], query: str, *, top_n: int | None = None
    ) -> list[dict[str, Any]]:
        """Rank strings, dictionaries or the framework's documents, as :meth:`rerank` does."""
        settings = self if top_n is None else self.model_copy(update={"top_n": top_n})
        ranking = await settings._arank(query, documents)
        return [{"index": ranked.index, "relevance_score": ranked.score} for ranked in ranking]

    def precompute(self, documents: Iterable[Any], *, progress: bool = False) -> Usage:
        """Encode documents when they are indexed, as :meth:`rerank_core.Reranker.precompute` does.

        What is read of a document is what these options read of it at query time. With
        ``model_options={"vectors": "rerank.vectors"}``, say.
        """
        return self.get_reranker().precompute(documents, text_fn=self._text, progress=progress)

    async def aprecompute(self, documents: Iterable[Any], *, progress: bool = False) -> Usage:
        """Encode documents when they are indexed, as :meth:`precompute` does."""
        return await self.get_reranker().aprecompute(documents, text_fn=self._text, progress=progress)

    def _identify(self, document: Any) -> tuple[str | None, str]:
        """Return the id, if there is one, and the text that the framework keeps for a document."""
        raise NotImplementedError

    def _retrieval_score(self, document: Any) -> Any:
        """Return the first stage's score of a document, None where it has none."""
        raise NotImplementedError

    def _read(self, document: Any) -> str:
        """Return what the model reads of one of the framework's documents."""
        raise NotImplementedError

    def _text(self, document: Any) -> str:
        if self.text_fn is not None:
            return self.text_fn(document)
        if not isinstance(document, (str, dict)):
            return self._read(document)
        if isinstance(document, str):
            return document
        text = next((document[name] for name in TEXT_NAMES if isinstance(document.get(name), str)), None)
        if text is None:
            raise ConfigurationError(f"a dictionary has none of {', '.join(TEXT_NAMES)}: give text_fn=")
        return prepend_metadata(text, document, self.metadata_fields)

    def _rank(self, query: str, documents: Sequence[D]) -> Ranking[D]:
        """Rank documents by all options but ``order``; indices are positions in ``documents``."""
        positions, chosen, options = self._choose(documents)
        ranking = self.get_reranker().rerank(query, chosen, text_fn=self._text, **options)
        return self._finish(ranking, positions, documents)

    async def _arank(self, query: str, documents: Sequence[D]) -> Ranking[D]:
        positions, chosen, options = self._choose(documents)
        ranking = await self.get_reranker().arerank(query, chosen, text_fn=self._text, **options)
        return self._finish(ranking, positions, documents)

    def _choose(self, documents: Sequence[D]) -> tuple[list[int], list[D], dict[str, Any]]:
        """Return which documents to score, and the options of the call."""
        positions = list(range(len(documents)))
        if self.collapse_duplicates:
            seen: set[tuple[bool, str]] = set()
            positions = [at for at in positions if not self._is_repeated(documents[at], seen)]
        selection = self.selection()
        # Diversity chooses among all that pass the thresholds.
        options: dict[str, Any] = {"selection": replace(selection, top_n=None) if self.diversity else selection}
        chosen = [documents[at] for at in positions]
        if self.get_reranker().retrieval_weight:
            options["retrieval_scores"] = [self._retrieval_score(document) for document in chosen]
        return positions, chosen, options

    def _is_repeated(self, document: Any, seen: set[tuple[bool, str]]) -> bool:
        if isinstance(document, (str, dict)):
            known, text = None, self._text(document)
        else:
            known, text = self._identify(document)
        keys = {(True, known or ""), (False, text)} - {(True, ""), (False, "")}
        repeated = not keys.isdisjoint(seen)
        seen |= keys
        return repeated

    def _finish(self, ranking: Ranking[D], positions: Sequence[int], documents: Sequence[D]) -> Ranking[D]:
        if len(positions) < len(documents):
            kept = tuple(replace(ranked, index=positions[ranked.index]) for ranked in ranking)
            slots = {at: slot for slot, at in enumerate(positions)}
            scores, mixed = (
                tuple(values[slots[at]] if at in slots else None for at in range(len(documents))) if values else ()
                for values in (ranking.scores, ranking.mixed_scores)
            )
            ranking = replace(ranking, documents=kept, scores=scores, mixed_scores=mixed)
        if not self.diversity:
            return ranking
        selection = self.selection()
        vectors = self.vector_fn and similarity_of_vectors([self.vector_fn(document) for document in documents])
        diverse = diversify(ranking, weight=1.0 - self.diversity, top_n=selection.top_n, similarity=vectors)
        return replace(diverse, selection=selection)

    def _arrange(self, ranking: Ranking[D]) -> list[RankedDocument[D]]:
        """Return the survivors as ``order`` says; a passthrough keeps the first stage's order."""
        ranked = list(ranking)
        return ranked if self.order == "relevance" or ranking.error else ranked[::2] + ranked[1::2][::-1]


def prepend_metadata(content: str, metadata: Mapping[str, Any], fields: Sequence[str]) -> str:
    """Return a text with the named metadata before it, one line each; absent fields and None are left out.

    >>> prepend_metadata("It was a dark night.", {"title": "Paul Clifford", "year": None}, ["title", "year"])
    'title: Paul Clifford\\nIt was a dark night.'
    """
    if not fields:
        return content
    lines = [f"{name}: {metadata[name]}" for name in fields if metadata.get(name) is not None]
    return "\n".join([*lines, content])
