"""Rankings of more documents than one question holds."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from rerank_core._call.fan_out import fan_out
from rerank_core.llm.answer import Judged, sort_judged

__all__ = ["Judge", "Strategy", "count_questions", "rank_by_pivot", "rank_by_sliding"]

Strategy = Literal["pivot", "sliding"]
"""How windows are chosen.

- ``pivot``: the first window is judged, and its middle document, the pivot, joins each of the other windows, which
  are judged at the same time; what beats the pivot meets in a last window (arXiv 2604.09492, simplified).
- ``sliding``: windows that overlap by half, from the end of the list to its beginning, one after the other
  (RankGPT, arXiv 2304.09542).
"""

Judge = Callable[[Sequence[int]], Awaitable[Judged]]
"""Judges some documents: all of them, best first, by their positions."""


def count_questions(count: int, window: int, strategy: Strategy) -> int:
    """Return how many questions a ranking of ``count`` documents takes, without repairs.

    By the pivot it takes more where most documents of the later windows beat the first one's.

    >>> count_questions(100, 20, "pivot"), count_questions(100, 20, "sliding"), count_questions(20, 20, "pivot")
    (7, 9, 1)
    """
    if count <= window:
        return 1
    if strategy == "pivot":
        return 2 + math.ceil((count - window) / (window - 1))
    return 1 + math.ceil((count - window) / (window - window // 2))


async def rank_by_sliding(judge: Judge, positions: Sequence[int], window: int) -> Judged:
    """Return all documents, best first."""
    order = list(positions)
    scores: dict[int, float] = {}
    start = len(order) - window
    while True:
        judged = await judge(order[max(0, start) : max(0, start) + window])
        order[max(0, start) : max(0, start) + window] = [position for position, _ in judged]
        scores.update(judged)
        if start <= 0:
            return [(position, scores[position]) for position in order]
        start -= window - window // 2


async def rank_by_pivot(judge: Judge, positions: Sequence[int], window: int) -> Judged:
    """Return all documents, best first."""
    first = await judge(positions[:window])
    if len(positions) <= window:
        return first
    pivot = first[window // 2][0]
    winners, losers = first[: window // 2], first[window // 2 :]
    parts = [positions[start : start + window - 1] for start in range(window, len(positions), window - 1)]
    for judged in await fan_out(judge, [[pivot, *part] for part in parts], progress=False):
        place = next(place for place, (position, _) in enumerate(judged) if position == pivot)
        winners += judged[:place]
        losers += judged[place + 1 :]
    winners, losers = sort_judged(winners), sort_judged(losers)
    if len(winners) > 1:  # more than a window holds where the first stage's order is bad: another round
        winners = await rank_by_pivot(judge, [position for position, _ in winners], window)
    return winners + losers
