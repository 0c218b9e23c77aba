"""A call, checked and ready: texts cleaned, blanks and repetitions set apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

from rerank_core.errors import ConfigurationError
from rerank_core.selection import Selection, check_selection
from rerank_core.types import Passage, RankedDocument

__all__ = ["TEXT_NAMES", "Request", "check_query", "read_texts", "separate_distinct"]

D = TypeVar("D")
S = TypeVar("S")
TextFn = Callable[[D], str]

TEXT_NAMES = ("text", "page_content", "content")
"""Where dictionaries and objects may keep their text; the first that is there counts."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Request(Generic[D]):
    """One query and its documents; none of the caller's code runs after it is made.

    Attributes:
        query: cleaned.
        documents: the caller's objects.
        texts: what the model may read of each, cleaned.
        distinct: the texts to score: those that are not blank, each once, in order of first appearance.
        slots: for each document the position of its text in ``distinct``, None for a blank text.
        selection: which documents survive.
        started: when the call's deadline began to run, in seconds of ``time.perf_counter``.
    """

    query: str
    documents: list[D]
    texts: list[str]
    distinct: list[str]
    slots: list[int | None]
    selection: Selection
    started: float = field(default_factory=perf_counter)

    @classmethod
    def of(
        cls,
        query: str,
        documents: Iterable[D],
        text_fn: TextFn[D] | None,
        selection: Selection,
        *,
        allow_blank: bool = False,
    ) -> Request[D]:
        """Check a query and its documents.

        Args:
            query: blank only with ``allow_blank`` or without documents.
            documents: strings, or any objects with ``text_fn``.
            text_fn: returns the text of a document.
            selection: which documents survive.
            allow_blank: whether the caller knows what to do with a blank query.

        Raises:
            ConfigurationError: the query is blank, or a text is no string.
        """
        if isinstance(documents, (str, bytes)):
            raise ConfigurationError(f"documents is a single {type(documents).__name__}: give a list of documents")
        objects = list(documents)
        if objects and not (allow_blank and isinstance(query, str) and not query.strip()):
            query = check_query(query)
        texts = read_texts(objects, text_fn)
        return cls(query, objects, texts, *separate_distinct(texts), check_selection(selection))

    def spread(self, values: Sequence[S], *, blank: S) -> list[S]:
        """Return one value per document, from one value per distinct text."""
        return [blank if slot is None else values[slot] for slot in self.slots]

    def spread_some(self, values: Mapping[int, S]) -> dict[int, S]:
        """Return values by a document's position, from values by a distinct text's position."""
        return {at: values[slot] for at, slot in enumerate(self.slots) if slot is not None and slot in values}

    def rank_documents(
        self, order: Iterable[int], scores: Sequence[float | None], passages: Sequence[Passage | None] = ()
    ) -> tuple[RankedDocument[D], ...]:
        """Return the documents at these positions, ranked in this order."""
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


def check_query(query: object) -> str:
    """Return the query, cleaned as texts are.

    Raises:
        ConfigurationError: it is not a string, or blank.
    """
    if not isinstance(query, str):
        raise ConfigurationError(f"the query is a {type(query).__name__}: give a string")
    if not query.strip():
        raise ConfigurationError("the query is empty: give at least one word to rank by")
    return _clean(query)


def read_texts(documents: Sequence[D], text_fn: TextFn[D] | None, *, first: int = 0) -> list[str]:
    """Return the text of each document, by ``text_fn`` where one is given; the first one's position is ``first``.

    Lone surrogates, which no encoding can carry, become U+FFFD.

    Raises:
        ConfigurationError: a document is None, or its text is not a string; names the position.
    """
    return [_read_text(position, document, text_fn) for position, document in enumerate(documents, first)]


def separate_distinct(texts: Iterable[str]) -> tuple[list[str], list[int | None]]:
    """Return the texts that are not blank, each once, and for each text its position among these, or None.

    >>> separate_distinct(["b", " ", "a", "b"])
    (['b', 'a'], [0, None, 1, 0])
    """
    positions: dict[str, int] = {}
    slots = [positions.setdefault(text, len(positions)) if text and not text.isspace() else None for text in texts]
    return list(positions), slots


def _read_text(position: int, document: D, text_fn: TextFn[D] | None) -> str:
    if document is None:
        raise ConfigurationError(f"documents[{position}] is None: leave it out, or give an empty string")
    text: object = document if text_fn is None else text_fn(document)
    if isinstance(text, str):
        return _clean(text)
    kind = type(text).__name__
    if text_fn is not None:
        raise ConfigurationError(f"text_fn returned a {kind} for documents[{position}]: it must return a string")
    raise ConfigurationError(
        f"documents[{position}] is a {kind}, not a string: "
        "pass text_fn=, a function that returns a document's text"
    )


def _clean(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
