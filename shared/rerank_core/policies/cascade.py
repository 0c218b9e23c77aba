"""Let light models prune the texts, and a full model score the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rerank_core._call.asking import Consumption, call_scorer
from rerank_core._call.event_loop import run_work
from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection
from rerank_core.types import Attempt, Passage, Scored

__all__ = ["Cascade"]


class Cascade(Policy):
    """Each scorer scores the texts that the one before it kept, and keeps the best of them.

    Texts that survive to the end have the last scorer's scores. Pruned texts rank below them, in the order of the
    scorer that pruned them: their score is that scorer's, multiplied by the lowest score above them. So it stays
    in [0, 1] and passes no threshold that the survivors fail.

    Args:
        scorers: from the lightest model to the heaviest; scorers or their names, at least two.
        keep: how many texts each scorer but the last passes on: one number fewer than there are scorers, each at
            least 1 and none larger than the one before it.

    Raises:
        ConfigurationError: an option is out of its range.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> full = FakeScorer()
    >>> reranker = Reranker(Cascade([FakeScorer(), full], keep=[2]))
    >>> ranking = reranker.rerank("memory leak", ["tea", "a memory leak", "a leak", "snow"])
    >>> [ranked.index for ranked in ranking], full.seen
    ([1, 2, 0, 3], ['a memory leak', 'a leak'])
    """

    def __init__(self, scorers: Iterable[Scorer | str], *, keep: Sequence[int]) -> None:
        super().__init__("cascade", scorers)
        given: object = keep
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
            raise ConfigurationError(f"keep is {given!r}: give a list of whole numbers such as [40]")
        self.keep = tuple(check_count("keep", count) for count in given)
        if len(self.scorers) < 2:
            raise ConfigurationError(
                "a cascade of one scorer: give two or more, from the lightest model to the heaviest"
            )
        if len(self.keep) != len(self.scorers) - 1:
            raise ConfigurationError(
                f"keep has {len(self.keep)} numbers for {len(self.scorers)} scorers: give one fewer than scorers"
            )
        if list(self.keep) != sorted(self.keep, reverse=True):
            raise ConfigurationError(f"keep is {list(self.keep)}: no number may be larger than the one before")
        self.listwise = True

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the last scorer's scores of the texts that survive, and lower scores of the pruned ones."""
        stages: list[tuple[list[int], Scored]] = []
        left = list(range(len(texts)))
        with Consumption() as consumed:
            for position, scorer in enumerate(self.scorers):
                try:
                    scored = await call_scorer(scorer, query, [texts[index] for index in left])
                except ScorerError as exc:
                    exc.partial = {left[slot]: score for slot, score in exc.partial.items()}
                    raise
                stages.append((left, scored))
                if position < len(self.keep):
                    left = await run_work(2 * len(left), _find_survivors, left, scored, self.keep[position])
            merged = await run_work(2 * len(texts), _merge, stages, len(texts))
            return replace(merged, usage=consumed.usage)


def _find_survivors(indices: Sequence[int], scored: Scored, keep: int) -> list[int]:
    return sorted(indices[slot] for slot in Selection(top_n=keep).select(scored.scores, scored.tiers))


def _merge(stages: Sequence[tuple[list[int], Scored]], count: int) -> Scored:
    """Return the answer to the whole call, from what each scorer saw and answered, the last one first."""
    scores, tiers = [0.0] * count, [0] * count
    passages: list[Passage | None] = [None] * count
    attempts: list[Attempt] = []
    left_out: set[int] = set()
    decided: set[int] = set()
    floor, tier = 1.0, 0
    for indices, scored in reversed(stages):
        fresh = {index: slot for slot, index in enumerate(indices) if index not in decided}
        for index, slot in fresh.items():
            scores[index] = floor * scored.scores[slot]
            tiers[index] = tier + (scored.tiers[slot] if scored.tiers else 0)
            passages[index] = scored.passages[slot] if scored.passages else None
        if fresh:
            decided.update(fresh)
            floor = min(scores[index] for index in fresh)
            tier = 1 + max(tiers[index] for index in fresh)
        attempts = [*scored.attempts, *attempts]
        left_out.update(indices[slot] for slot in scored.left_out)
    return Scored(scores, attempts=tuple(attempts), passages=passages, tiers=tiers, left_out=frozenset(left_out))
