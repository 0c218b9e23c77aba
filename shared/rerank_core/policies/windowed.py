"""Score long documents by windows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from rerank_core._call.asking import add_consumption, call_scorer
from rerank_core._call.event_loop import run_text_work, run_work
from rerank_core._support.checks import check_choice, check_count, check_fraction
from rerank_core.errors import ScorerError
from rerank_core.policies.base import Policy
from rerank_core.policies.windows import cut_windows
from rerank_core.reading import Reading, ReadsTokens, WindowRequest, estimate_reading
from rerank_core.scorer import Scorer
from rerank_core.types import Passage, Scored
from rerank_core.usage import Usage

__all__ = ["Aggregate", "WindowPlan", "Windowed"]

Aggregate = Literal["max", "first", "mean"]
"""How a document's score follows from those of its windows (Dai & Callan, "Deeper Text Understanding", 2019).

- ``max``: the highest (MaxP);
- ``first``: the first window's (FirstP); no other window is scored;
- ``mean``: the mean of the ``best`` highest, taken over probabilities even if the scorer returns logits.
"""

_MARGIN = 2
"""Tokens of a window that are left free, because a word may have more tokens when it is cut."""


class Windowed(Policy):
    """Scores documents that are longer than what the scorer reads, by windows of them.

    Windows hold whole sentences and overlap. The windows of all documents go to the scorer in one call, equal ones
    once. The place of the best window in the text becomes the ranked document's ``passage``; a document that fits
    as a whole is sent as it is, and has none. Local models count in their own tokens. For a service, and for a
    policy made of several scorers, a token is estimated as three bytes; so wrap each scorer of such a policy in
    its own ``Windowed``.

    Args:
        scorer: a scorer or its name.
        window: tokens of a window, at least 1; by default, and at most, what the scorer reads beside the query
            (512 if that is unknown). Smaller windows give shorter passages and more work.
        overlap: the largest share of a window that the next one repeats, at least 0.0 and below 1.0. The last
            window may repeat more, because it is extended backwards to its full size.
        aggregate: see :data:`Aggregate`.
        best: how many windows ``"mean"`` takes, at least 1.
        max_windows: windows per document that are scored, at least 1. A document with more is counted in
            ``usage.truncated``.

    Raises:
        ConfigurationError: an option is out of its range.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> text = "Paris is lovely in spring. Bring an umbrella. A leak is hard to find. It rains."
    >>> ranking = Reranker(Windowed(FakeScorer(), window=12)).rerank("memory leak", [text, "tea"])
    >>> ranking[0].passage, ranking[0].passage_text, ranking[1].passage
    (Passage(start=46, end=69), 'A leak is hard to find.', None)
    """

    def __init__(
        self,
        scorer: Scorer | str,
        *,
        window: int | None = None,
        overlap: float = 0.25,
        aggregate: Aggregate = "max",
        best: int = 3,
        max_windows: int = 32,
    ) -> None:
        super().__init__("windowed", [scorer])
        self.stores_vectors = False  # what is scored is windows, which depend on the query
        self.window = None if window is None else check_count("window", window)
        self.overlap = check_fraction("overlap", overlap, below_1=True)
        check_choice("aggregate", aggregate, get_args(Aggregate))
        self.aggregate = aggregate
        self.best = check_count("best", best)
        self.max_windows = check_count("max_windows", max_windows)

    @property
    def reader(self) -> Scorer:
        """The scorer whose tokens are counted: the innermost one, or a policy of several scorers."""
        scorer = self.scorer
        while isinstance(scorer, Policy) and len(scorer.scorers) == 1:
            scorer = scorer.scorer
        return scorer

    @property
    def window_request(self) -> WindowRequest:
        """How much of each text is wanted."""
        return WindowRequest(self.window, 1 if self.aggregate == "first" else self.max_windows)

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text; that of a long text follows from its windows."""
        if isinstance(self.reader, ReadsTokens):
            reading = await self.reader.read_tokens(query, texts, self.window_request)
        else:
            reading = await run_text_work(estimate_reading, texts, self.window_request)
        plan = await run_text_work(self.plan, texts, reading)
        try:
            scored = await call_scorer(self.scorer, query, plan.parts)
        except ScorerError as exc:
            add_consumption(Usage(truncated=plan.truncated))
            exc.partial = self._partial(plan, exc.partial)
            raise
        return await run_work(5 * len(texts) + len(plan.parts), self._merge, plan, scored)

    def _merge(self, plan: WindowPlan, scored: Scored) -> Scored:
        """Return the answer about texts, from the one about their windows."""
        best = [_rank(parts, scored.scores, scored.tiers) for parts in plan.places]
        return replace(
            scored,
            scores=[self._aggregate([scored.scores[part] for part in parts]) for parts in best],
            usage=scored.usage + Usage(truncated=plan.truncated),
            passages=[plan.passage(text, parts[0], scored.passages) for text, parts in enumerate(best)],
            tiers=[scored.tiers[parts[0]] for parts in best] if scored.tiers else (),
            left_out=frozenset(text for text, parts in enumerate(best) if not scored.left_out.isdisjoint(parts)),
        )

    def plan(self, texts: Sequence[str], reading: Reading) -> WindowPlan:
        """Return what to send to the scorer."""
        parts: dict[str, int] = {}
        places: list[dict[int, Passage | None]] = []
        truncated = 0
        request = self.window_request
        limit = request.tokens_to_read(reading.window_tokens)
        size = max(1, reading.window_tokens - _MARGIN)
        overlap = int(self.overlap * size)
        for text, ends in zip(texts, reading.token_ends, strict=True):
            if len(ends) <= reading.window_tokens:
                places.append({parts.setdefault(text, len(parts)): None})
                continue
            seen = text if len(ends) < limit else text[: ends[-1]]
            passages, is_cut = cut_windows(seen, ends, size=size, overlap=overlap, max_windows=request.max_windows)
            truncated += is_cut
            places.append({})
            for passage in passages:
                places[-1].setdefault(parts.setdefault(text[slice(*passage)], len(parts)), passage)
        return WindowPlan(list(parts), places, truncated)

    def _aggregate(self, scores: Sequence[float]) -> float:
        """Return a document's score from those of its windows, best first."""
        if self.aggregate != "mean":
            return scores[0]
        taken = scores[: self.best]
        return sum(taken) / len(taken)

    def _partial(self, plan: WindowPlan, partial: Mapping[int, float]) -> dict[int, float]:
        """Return the scores of the texts all of whose windows have one."""
        return {
            text: self._aggregate(sorted((partial[part] for part in parts), reverse=True))
            for text, parts in enumerate(plan.places)
            if all(part in partial for part in parts)
        }


def _rank(parts: Iterable[int], scores: Sequence[float], tiers: Sequence[int]) -> list[int]:
    """Return a text's parts, best first; equal ones in their order."""
    return sorted(parts, key=lambda part: (tiers[part] if tiers else 0, -scores[part]))


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """What to send to the scorer.

    Attributes:
        parts: windows and whole texts, each once.
        places: for each text the positions of its windows among the parts, and where in the text each of them is;
            of a text that is sent whole its own position, and None.
        truncated: how many texts have further windows, which are left out.
    """

    parts: list[str]
    places: list[dict[int, Passage | None]]
    truncated: int

    def passage(self, text: int, part: int, inner: Sequence[Passage | None]) -> Passage | None:
        """Return where in a text its best part is, or the passage that the scorer found in that part."""
        place = self.places[text][part]
        found = inner[part] if inner else None
        if place is None or found is None:
            return place or found
        return Passage(place.start + found.start, place.start + found.end)
