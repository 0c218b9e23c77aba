"""Light models prune, a full one decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rerank_core._call.asking import call_scorer
from rerank_core._support.checks import checked_count
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection
from rerank_core.types import Attempt, Passage, Scored
from rerank_core.usage import Usage

__all__ = ["Cascade"]


class Cascade(Policy):
    """Lets each scorer keep the best of what the one before it kept; the last one decides.

    What survives to the end has the last scorer's scores. What was pruned ranks below, in the order of the scorer
    that pruned it: its score is that scorer's times the lowest score above it, so that it stays in [0, 1] and
    never passes a threshold which the survivors fail.

    Args:
        scorers: from the lightest to the fullest; scorers or their names, at least two.
        keep: how many texts each scorer but the last passes on; one number fewer than there are scorers, each at
            least 1 and none larger than the one before.

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
        self.keep = tuple(checked_count("keep", count, least=1) for count in _listed(keep))
        if len(self.scorers) < 2:
            raise ConfigurationError("a cascade of one scorer: give two or more, from the lightest to the fullest")
        if len(self.keep) != len(self.scorers) - 1:
            raise ConfigurationError(
                f"keep has {len(self.keep)} numbers for {len(self.scorers)} scorers: give one fewer than scorers"
            )
        if list(self.keep) != sorted(self.keep, reverse=True):
            raise ConfigurationError(f"keep is {list(self.keep)}: no number may be larger than the one before")
        self.listwise = True

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the last scorer's scores of what survives, and lower ones of what was pruned."""
        stages: list[_Stage] = []
        left = list(range(len(texts)))
        for position, scorer in enumerate(self.scorers):
            try:
                scored = await call_scorer(scorer, query, [texts[index] for index in left])
            except ScorerError as exc:
                exc.usage = sum((stage.scored.usage for stage in stages), exc.usage or Usage())
                exc.partial = {left[slot]: score for slot, score in exc.partial.items()}
                raise
            stages.append(_Stage(left, scored))
            if position < len(self.keep):
                order = Selection(top_n=self.keep[position]).select(scored.scores, scored.tiers)
                left = sorted(left[slot] for slot in order)
        return _merged(stages, len(texts))


@dataclass(frozen=True, slots=True)
class _Stage:
    """What one scorer saw, by position in the input, and what it said."""

    indices: list[int]
    scored: Scored


def _merged(stages: Sequence[_Stage], count: int) -> Scored:
    scores, tiers = [0.0] * count, [0] * count
    passages: list[Passage | None] = [None] * count
    attempts: list[Attempt] = []
    decided: set[int] = set()
    floor, tier = 1.0, 0
    for stage in reversed(stages):
        scored = stage.scored
        fresh = [slot for slot, index in enumerate(stage.indices) if index not in decided]
        for slot in fresh:
            index = stage.indices[slot]
            scores[index] = floor * scored.scores[slot]
            tiers[index] = tier + (scored.tiers[slot] if scored.tiers else 0)
            passages[index] = scored.passages[slot] if scored.passages else None
        if fresh:
            decided.update(stage.indices)
            floor = min(scores[stage.indices[slot]] for slot in fresh)
            tier = 1 + max(tiers[stage.indices[slot]] for slot in fresh)
        attempts = [*scored.attempts, *attempts]
    usage = sum((stage.scored.usage for stage in stages), Usage())
    return Scored(scores, usage, attempts=tuple(attempts), passages=passages, tiers=tiers)


def _listed(keep: object) -> Sequence[object]:
    if isinstance(keep, (str, bytes)) or not isinstance(keep, Sequence):
        raise ConfigurationError(f"keep is {keep!r}: give a list of whole numbers such as [40]")
    return keep
