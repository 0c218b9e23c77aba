"""Which documents survive, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge

from rerank_core._support.checks import check_count, check_fraction
from rerank_core.errors import ConfigurationError

__all__ = ["Selection", "check_selection"]

_SORTED_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class _Values:
    score_threshold: float | None
    adaptive_ratio: float | None
    min_keep: int
    top_n: int | None


class Selection(_Values):
    """Orders by relevance score and drops documents below a threshold, then all but the best ``top_n``.

    Attributes:
        score_threshold: keep scores ≥ this; in [0, 1]; None for no absolute threshold.
        adaptive_ratio: keep scores ≥ this × the best score; in [0, 1]; None for no relative threshold. A model's
            scores differ from query to query, so a ratio often works for queries where an absolute threshold does
            not. Where both are given, a document must pass both.
        min_keep: how many documents survive at least, the best first, whatever the thresholds; ≥ 0.
        top_n: how many documents survive at most; ≥ 1; None for all. Applied last, so it also limits ``min_keep``.

    Raises:
        ConfigurationError: a value is out of its range.

    >>> Selection(adaptive_ratio=0.5, top_n=3).select([0.2, 0.9, 0.5, 0.1])
    [1, 2]
    """

    __slots__ = ()

    def __init__(
        self,
        score_threshold: float | None = None,
        adaptive_ratio: float | None = None,
        min_keep: int = 0,
        top_n: int | None = None,
    ) -> None:
        super().__init__(
            None if score_threshold is None else check_fraction("score_threshold", score_threshold),
            None if adaptive_ratio is None else check_fraction("adaptive_ratio", adaptive_ratio),
            check_count("min_keep", min_keep, least=0),
            None if top_n is None else check_count("top_n", top_n),
        )

    def select(
        self, scores: Sequence[float], tiers: Sequence[int] = (), order_by: Sequence[float] = ()
    ) -> list[int]:
        """Return the indices of the surviving scores, best first.

        Args:
            scores: relevance scores, by which the thresholds judge.
            tiers: of equal scores the lower tier comes first, then the order of the input decides.
            order_by: what is ordered by instead of the scores, highest first.
        """
        order = _sort(order_by or scores, tiers)
        cut = self.cut(max(scores, default=0.0))
        if cut > 0.0:
            failing = [index for index in order if scores[index] < cut]
            passing = len(order) - len(failing)
            dropped = set(failing[max(0, self.min_keep - passing) :])
            order = [index for index in order if index not in dropped]
        return order[: self.top_n]

    def cut(self, best: float) -> float:
        """Return the score below which documents are dropped, where the best score is ``best``."""
        absolute = 0.0 if self.score_threshold is None else self.score_threshold
        relative = 0.0 if self.adaptive_ratio is None else self.adaptive_ratio * best
        return max(absolute, relative)


def _sort(keys: Sequence[float], tiers: Sequence[int]) -> list[int]:
    """Return the indices of keys, highest first; no single step of it holds up other threads for long."""
    runs: list[Sequence[int]] = [
        range(start, min(start + _SORTED_AT_ONCE, len(keys))) for start in range(0, len(keys), _SORTED_AT_ONCE)
    ]
    if tiers:
        runs = [sorted(run, key=tiers.__getitem__) for run in runs]
    runs = [sorted(run, key=keys.__getitem__, reverse=True) for run in runs]  # equal ones stay as they are
    if len(runs) < 2:
        return list(*runs)
    return list(merge(*runs, key=lambda index: (-keys[index], tiers[index] if tiers else 0)))


def check_selection(selection: object) -> Selection:
    """Return a selection."""
    if not isinstance(selection, Selection):
        raise ConfigurationError(f"selection is a {type(selection).__name__}: give a Selection")
    return selection
