"""A call: checked and ready, with blanks and repetitions set apart, and the ranking that is made of its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import length_hint
from time import perf_counter
from typing import Any, Generic, TypeVar

from rerank_core._call.fan_out import show_progress
from rerank_core._call.scores import mix_scores, read_scores
from rerank_core.errors import ConfigurationError, RerankError
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection
from rerank_core.types import Passage, RankedDocument, Ranking, Scored
from rerank_core.usage import Usage

D = TypeVar("D")
S = TypeVar("S")
TextFn = Callable[[D], str]

TEXT_NAMES = ("text", "page_content", "content")
"""Where dictionaries and objects may keep their text; the first that is there counts."""

_PRECOMPUTED_AT_ONCE = 256
_TEXTS_AT_ONCE = 10_000
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Request(Generic[D]):
    """One query and its documents; none of the caller's code runs after it is made.

    Attributes:
        texts: what the model may read of each document, cleaned.
        distinct: the texts to score: those that are not blank, each once, in order of first appearance.
        slots: for each document the position of its text in ``distinct``, None for a blank text.
        retrieval_scores: the first stage's score of each document, None where it gave none; empty without any.
        started: when the call's deadline began to run, in seconds of ``time.perf_counter``.
    """

    query: str
    documents: list[D]
    texts: list[str]
    distinct: list[str]
    slots: list[int | None]
    selection: Selection
    retrieval_scores: Sequence[float | None] = ()
    started: float = field(default_factory=perf_counter)

    @classmethod
    def of(
        cls,
        query: str,
        documents: Iterable[D],
        text_fn: TextFn[D] | None,
        selection: Selection,
        retrieval_scores: Iterable[float | None] | None = None,
        *,
        allow_blank: bool = False,
    ) -> Request[D]:
        """Check a query and its documents; the query may be blank with ``allow_blank`` or without documents."""
        if isinstance(documents, (str, bytes)):
            raise ConfigurationError(f"documents is a single {type(documents).__name__}: give a list of documents")
        objects = list(documents)
        if objects and not (allow_blank and isinstance(query, str) and not query.strip()):
            query = check_query(query)
        texts = read_texts(objects, text_fn)
        known = () if retrieval_scores is None else read_scores("retrieval_scores", retrieval_scores, len(texts))
        return cls(query, objects, texts, *separate_distinct(texts), selection, known)

    def spread(self, values: Sequence[S], *, blank: S) -> list[S]:
        """Return one value per document, from one value per distinct text."""
        return [blank if slot is None else values[slot] for slot in self.slots]

    def spread_some(self, values: Mapping[int, S]) -> dict[int, S]:
        """Return values by a document's position, from values by a distinct text's position."""
        return {at: values[slot] for at, slot in enumerate(self.slots) if slot is not None and slot in values}

    def make_ranking(
        self,
        scorer: Scorer,
        scored: Scored = Scored(()),  # noqa: B008 - frozen
        retrieval_weight: float = 0.0,
    ) -> Ranking[D]:
        """Return the ranking of a checked answer, without its usage; the default is that of no text at all."""
        scores = self.spread(scored.scores, blank=0.0)
        tiers = self.spread(scored.tiers, blank=max(scored.tiers) + 1) if scored.tiers else ()
        passages = self.spread(scored.passages, blank=None) if scored.passages else ()
        keys: Sequence[float] = ()
        mixed: tuple[float, ...] = ()
        if retrieval_weight and self.distinct:
            relevance: list[float | None] = self.spread(scored.scores, blank=None)
            keys = mix_scores(relevance, self.retrieval_scores, retrieval_weight, ordinal=scorer.ordinal)
            low, high = min(scored.scores), max(scored.scores)
            mixed = tuple(low + (high - low) * key if key >= 0.0 else 0.0 for key in keys)
        order = self.selection.select(scores, tiers, keys)
        return Ranking(
            self.query,
            scored.model or scorer.name,
            self._rank_documents(order, scores, passages),
            tuple(scores),
            mixed,
            attempts=scored.attempts,
            selection=self.selection,
        )

    def keep_order(self, model: str, usage: Usage, error: RerankError) -> Ranking[D]:
        """Return the first stage's order cut to ``top_n``, without scores, because of an error."""
        none: list[float | None] = [None] * len(self.texts)
        ranked = self._rank_documents(range(len(self.texts))[: self.selection.top_n], none)
        return Ranking(self.query, model, ranked, tuple(none), usage=usage, error=error, selection=self.selection)

    def _rank_documents(
        self,
        order: Iterable[int],
        scores: Sequence[float | None],
        passages: Sequence[Passage | None] = (),
    ) -> tuple[RankedDocument[D], ...]:
        """Return the documents at these positions, ranked in this order."""
        documents, texts, known = self.documents, self.texts, self.retrieval_scores
        return tuple(
            RankedDocument(
                documents[index],
                texts[index],
                index,
                rank,
                scores[index],
                passages[index] if passages else None,
                known[index] if known else None,
            )
            for rank, index in enumerate(order, start=1)
        )


def check_query(query: object) -> str:
    """Return the query, which is a string and not blank, cleaned as texts are."""
    if not isinstance(query, str):
        raise ConfigurationError(f"the query is a {type(query).__name__}: give a string")
    if not query.strip():
        raise ConfigurationError("the query is empty: give at least one word to rank by")
    return _clean(query)


def read_texts(documents: Sequence[D], text_fn: TextFn[D] | None, *, first: int = 0) -> list[str]:
    """Return the text of each document, by ``text_fn`` where one is given; the first one's position is ``first``.

    Lone surrogates, which no encoding can carry, become U+FFFD.
    """
    given: Sequence[Any] = documents
    return [
        # Spares plain documents a call of a function each, which adds up.
        document
        if text_fn is None and type(document) is str and document.isascii()
        else _read_text(position, document, text_fn)
        for position, document in enumerate(given, first)
    ]


def separate_distinct(texts: Sequence[str]) -> tuple[list[str], list[int | None]]:
    """Return the texts that are not blank, each once, and for each text its position among these, or None.

    >>> separate_distinct(["b", " ", "a", "b"])
    (['b', 'a'], [0, None, 1, 0])
    """
    found: dict[str, None] = {}
    for start in range(0, len(texts), _TEXTS_AT_ONCE):  # else no other thread runs meanwhile
        found.update(dict.fromkeys(texts[start : start + _TEXTS_AT_ONCE]))
    distinct = [text for text in found if text and not text.isspace()]
    if len(distinct) == len(texts):
        return distinct, list(range(len(texts)))
    positions = {text: position for position, text in enumerate(distinct)}
    return distinct, [positions.get(text) for text in texts]


def read_pieces(documents: Iterable[D], text_fn: TextFn[D] | None, *, progress: bool) -> Iterator[list[str]]:
    """Return the distinct texts of documents, some hundred at a time, without blank ones."""
    if isinstance(documents, (str, bytes)):
        raise ConfigurationError(f"documents is a single {type(documents).__name__}: give a list of documents")
    waiting = iter(documents)
    first = 0
    with show_progress("encoding", "document", length_hint(documents) or None, wanted=progress) as bar:
        while piece := list(islice(waiting, _PRECOMPUTED_AT_ONCE)):
            yield separate_distinct(read_texts(piece, text_fn, first=first))[0]
            first += len(piece)
            if bar is not None:
                bar.update(len(piece))


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
