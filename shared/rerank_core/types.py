"""The values of a call: a scorer's answer, and the ranking that is made of it. Immutable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar, overload

from rerank_core.errors import RerankError, ScorerError
from rerank_core.selection import Selection
from rerank_core.usage import Usage

if TYPE_CHECKING:
    import pandas

    from rerank_core._support.tables import Table

__all__ = ["Attempt", "Passage", "RankedDocument", "Ranking", "Scale", "Scored"]

D = TypeVar("D", covariant=True)

Scale = Literal["probability", "logit", "cosine"]
"""What a model's scores are: within [0, 1], any number, or within [-1, 1]."""

_REPR_QUERY_CHARS = 40


class Passage(NamedTuple):
    """The part of a text that its score is about: ``text[start:end]``, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A scorer that was tried or skipped before another one answered.

    Attributes:
        model: the scorer's name.
        error: why it did not answer.
    """

    model: str
    error: ScorerError


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer's answer: one score per text, in the order of the input.

    Attributes:
        scores: on the scorer's declared scale, as many as there were texts.
        usage: what this answer consumed.
        model: the scorer that answered, where it is another one than was called (a fallback, say).
        attempts: the scorers that were tried before and did not answer.
        passages: for each text the passage that its score is about, None for the whole text; empty where no
            text has one.
        tiers: for each text its tier, 0 the best: of equal scores the lower tier ranks first, then the order of
            the input decides. A cascade gives texts that its last stage did not score a higher tier. Empty where
            all are of one tier.
        left_out: positions of texts that a service's answer left out, and that got the lowest score for it; such
            a score is not to be remembered.
    """

    scores: Sequence[float]
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    attempts: tuple[Attempt, ...] = ()
    passages: Sequence[Passage | None] = ()
    tiers: Sequence[int] = ()
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RankedDocument(Generic[D]):
    """One document that survived the selection.

    Attributes:
        document: the caller's own object, untouched.
        text: what the model read.
        index: position in the caller's input, from 0.
        rank: position in the ranking, from 1, best first.
        score: relevance score in [0, 1], higher is better; None where nothing was scored (passthrough).
        passage: the passage of ``text`` that the score is about, None for the whole text.
        retrieval_score: the first stage's score as it was given, on its own scale; None where none was given.
    """

    document: D
    text: str
    index: int
    rank: int
    score: float | None
    passage: Passage | None = None
    retrieval_score: float | None = None

    @property
    def moved(self) -> int:
        """How many places the document rose, from the caller's order to this one; negative where it fell."""
        return self.index + 1 - self.rank

    @property
    def passage_text(self) -> str:
        """The passage's text, the whole text where there is no passage."""
        return self.text if self.passage is None else self.text[self.passage.start : self.passage.end]


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Sequence[RankedDocument[D]], Generic[D]):
    """The result of a call: the surviving documents, best first.

    Attributes:
        query: the query.
        model: name of the scorer that answered.
        documents: the surviving documents, best first; the ranking itself is a sequence of these.
        scores: relevance scores in [0, 1] in the order of the caller's input, of dropped documents too;
            all None in a passthrough.
        mixed_scores: what the ranks follow with a ``retrieval_weight``: relevance and the first stage's scores
            mixed, on the scale of the relevance scores, in the order of the input; empty where they follow
            ``scores``.
        usage: what the call consumed.
        error: why nothing was scored (``on_error="passthrough"``), else None.
        attempts: the scorers that were tried before, and why each did not answer.
        selection: the thresholds and limits that were applied; None where they are unknown.
    """

    query: str
    model: str
    documents: tuple[RankedDocument[D], ...] = ()
    scores: tuple[float | None, ...] = ()
    mixed_scores: tuple[float | None, ...] = ()
    usage: Usage = field(default_factory=Usage)
    error: RerankError | None = None
    attempts: tuple[Attempt, ...] = ()
    selection: Selection | None = None

    @overload
    def __getitem__(self, item: int) -> RankedDocument[D]: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[RankedDocument[D], ...]: ...
    def __getitem__(self, item: int | slice) -> RankedDocument[D] | tuple[RankedDocument[D], ...]:
        return self.documents[item]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[RankedDocument[D]]:
        return iter(self.documents)

    def __repr__(self) -> str:
        query = self.query
        if len(query) > _REPR_QUERY_CHARS:
            query = query[: _REPR_QUERY_CHARS - 1] + "…"
        parts = [f"query={query!r}", f"model={self.model!r}", f"{len(self)} of {len(self.scores)} documents"]
        if self.documents and self.documents[0].score is not None:
            parts.append(f"best={self.documents[0].score:.3f}")
        if self.error is not None:
            parts.append(f"error={type(self.error).__name__}")
        return f"<Ranking {', '.join(parts)}>"

    @property
    def cut_score(self) -> float | None:
        """The score below which the selection dropped documents; None where it cut at none."""
        scores = [score for score in self.scores if score is not None]
        return (self.selection.cut(max(scores)) or None) if self.selection and scores else None

    def __rich__(self) -> Table:
        return self._table()

    def _repr_html_(self) -> str:
        return self._table().to_html()

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table of the surviving documents: rank, moved, index, score, text, passage, document.

        Raises:
            MissingExtraError: pandas is not installed (extra ``notebook``).
        """
        from rerank_core._support.tables import Column, Table  # rankings are rarely shown

        names = ("rank", "moved", "index", "score", "text", "passage", "document")
        rows = [
            (each.rank, each.moved, each.index, each.score, each.text, each.passage_text, each.document)
            for each in self.documents
        ]
        return Table("", tuple(map(Column, names)), rows).to_pandas()

    def _table(self) -> Table:
        from rerank_core._support.tables import Cell, Column, Table, movement

        cut = self.cut_score
        rows = [
            (
                each.rank,
                Cell(each.moved, movement(each.moved)),
                Cell(each.score, bar=each.score),
                Cell(each.text, mark=each.passage),
            )
            for each in self.documents
        ]
        note = [f"cut at score {cut:.3f}"] if cut is not None else []
        note += ["ranked by score and the first stage's, mixed"] if self.mixed_scores else []
        facts = [self.model, f"{len(self):,} of {len(self.scores):,} documents"]
        facts += [f"{self.usage.seconds * 1000:,.0f} ms"] if self.usage.seconds else []
        facts += [f"${self.usage.cost:.6f}".rstrip("0")] if self.usage.cost else []
        facts += [f"after {attempt.model}: {type(attempt.error).__name__}" for attempt in self.attempts]
        error = f"not reranked, first-stage order: {type(self.error).__name__}: {self.error}" if self.error else ""
        numbers = (Column(name, align="right") for name in ("#", "moved", "score"))
        columns = (*numbers, Column("text"))
        return Table(self.query, columns, rows, " · ".join(facts), error, " · ".join(note))
