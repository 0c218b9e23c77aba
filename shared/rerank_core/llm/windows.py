"""Rankings of more documents than one question holds."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from rerank_core._call.fan_out import fan_out
from rerank_core.llm.answer import Judged

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

    >>> count_questions(100, 20, "pivot"), count_questions(100, 20, "sliding"), count_questions(20, 20, "pivot")
    (7, 9, 1)
    """
    if count <= window:
        return 1
    if strategy == "pivot":
        return 2 + math.ceil((count - window) / (window - 1))
    return 1 + math.ceil((count - window) / (window - window // 2))


async def rank_by_sliding(judge: Judge, count: int, window: int) -> Judged:
    """Return all documents, best first."""
    order = list(range(count))
    scores: dict[int, float] = {}
    start = count - window
    while True:
        judged = await judge(order[max(0, start) : max(0, start) + window])
        order[max(0, start) : max(0, start) + window] = [position for position, _ in judged]
        scores.update(judged)
        if start <= 0:
            return [(position, scores[position]) for position in order]
        start -= window - window // 2


async def rank_by_pivot(judge: Judge, count: int, window: int) -> Judged:
    """Return all documents, best first."""
    first = await judge(range(window))
    pivot = first[window // 2]
    winners, losers = first[: window // 2], first[window // 2 :]
    others = [range(start, min(start + window - 1, count)) for start in range(window, count, window - 1)]
    for judged in await fan_out(judge, [[pivot[0], *other] for other in others], progress=False):
        place = next(place for place, (position, _) in enumerate(judged) if position == pivot[0])
        winners += judged[:place]
        losers += judged[place + 1 :]
    winners.sort(key=_best_first)
    losers.sort(key=_best_first)
    if others and len(winners) > 1:
        winners = await judge([position for position, _ in winners[:window]]) + winners[window:]
    return winners + losers


def _best_first(row: tuple[int, float]) -> float:
    return -row[1]
