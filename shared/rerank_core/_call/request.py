"""A call, checked and ready: what the Reranker works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

from rerank_core._call.texts import checked_query, checked_texts
from rerank_core.errors import ConfigurationError
from rerank_core.selection import Selection
from rerank_core.types import Passage, RankedDocument

__all__ = ["Request", "checked_selection"]

D = TypeVar("D")
TextFn = Callable[[D], str]


@dataclass(frozen=True, slots=True)
class Request(Generic[D]):
    """One query and its documents; no code of the caller's runs after it is made.

    Attributes:
        query: cleaned.
        documents: the caller's objects.
        texts: what the model may read of each, cleaned.
        selection: which of them survive.
        started: when the call's deadline began to run, in seconds of ``time.perf_counter``.
    """

    query: str
    documents: list[D]
    texts: list[str]
    selection: Selection
    started: float = field(default_factory=perf_counter)

    @classmethod
    def of(cls, query: str, documents: Iterable[D], text_fn: TextFn[D] | None, selection: Selection) -> Request[D]:
        """Check a query and its documents.

        Raises:
            ConfigurationError: the query is blank, with documents to rank, or a text is no string.
        """
        if isinstance(documents, (str, bytes)):
            raise ConfigurationError(f"documents is a single {type(documents).__name__}: give a list of documents")
        objects = list(documents)
        if objects:
            query = checked_query(query)
        return Request(query, objects, checked_texts(objects, text_fn), checked_selection(selection))

    @classmethod
    def many(
        cls,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        text_fn: TextFn[D] | None,
        selection: Selection,
    ) -> list[Request[D]]:
        """Check several queries, each with its documents.

        Raises:
            ConfigurationError: the lengths differ, or as :meth:`of`.
        """
        if isinstance(queries, str):
            raise ConfigurationError("queries is a single string: give a list of queries")
        if len(queries) != len(documents_per_query):
            raise ConfigurationError(
                f"{len(queries)} queries but {len(documents_per_query)} collections of documents: give one each"
            )
        pairs = zip(queries, documents_per_query, strict=True)
        return [Request.of(query, documents, text_fn, selection) for query, documents in pairs]

    def ranked(
        self, order: Iterable[int], scores: Sequence[float | None], passages: Sequence[Passage | None] = ()
    ) -> tuple[RankedDocument[D], ...]:
        """Return the documents at these positions, in this order."""
        return tuple(
            RankedDocument(
                self.documents[index],
                self.texts[index],
                index,
                rank,
                scores[index],
                passages[index] if passages else None,
            )
            for rank, index in enumerate(order, start=1)
        )


def checked_selection(selection: object) -> Selection:
    """Return a selection.

    Raises:
        ConfigurationError: it is something else.
    """
    if not isinstance(selection, Selection):
        raise ConfigurationError(f"selection is a {type(selection).__name__}: give a Selection")
    return selection
