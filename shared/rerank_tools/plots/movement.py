"""Where each document was before reranking, and where it is after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError
from rerank_core.types import RankedDocument, Ranking
from rerank_tools.plots._style import BLUE, GREY, ORANGE, axes, label, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["rank_movement"]


def rank_movement(
    rankings: Ranking[Any] | Mapping[str, Ranking[Any]],
    *,
    top: int = 10,
    label_fn: Callable[[RankedDocument[Any]], str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a line for each document from its rank in the first stage to its rank in each ranking.

    A line that rises is blue, one that falls is orange and dashed, one that stays is grey. What was among the
    best nowhere is left out; what is beyond ``top`` in one place, or was dropped, ends in the row below.

    Args:
        rankings: one ranking, or several of the same documents by name, drawn side by side.
        top: how many ranks have a row of their own; ≥ 1.
        label_fn: returns a document's label; by default the beginning of its text.
        ax: where to draw; by default a new figure.

    Raises:
        ConfigurationError: nothing to draw, ``top`` below 1, or rankings of different numbers of documents.
        MissingExtraError: matplotlib is not installed (extra ``notebook``).
    """
    named = {rankings.model: rankings} if isinstance(rankings, Ranking) else dict(rankings)
    top = check_count("top", top)
    sizes = {len(ranking.scores) for ranking in named.values()}
    if len(sizes) != 1 or not max(sizes):
        raise ConfigurationError(
            f"rankings are of {sorted(sizes)} documents: give rankings of the same documents, at least one"
        )
    rows = min(top, max(sizes))
    ax = axes(ax, size=(5.4 + 1.6 * len(named), 1.2 + 0.32 * (rows + 1)))
    columns = [{index: index + 1 for index in range(max(sizes))}]
    columns += [{found.index: found.rank for found in ranking} for ranking in named.values()]
    below = rows + 1
    for index in range(max(sizes)):
        places = [min(column.get(index, below), below) for column in columns]
        if min(places) < below:
            _line(ax, places)
    inches = ax.bbox.width / ax.figure.dpi
    width = min(28, max(8, int(inches * 5)))
    labels = _labels(named, label_fn, width)
    narrow = max(6, int(inches * 5 / len(columns)))
    ax.set_xticks(range(len(columns)), [fill(label(name, 28), narrow) for name in ("first stage", *named)])
    ax.set_xlim(-0.08, len(columns) - 0.92)
    rest = (
        [f"below {rows}, or dropped"]
        if max(sizes) > rows or any(len(column) < rows for column in columns)
        else [""]
    )
    for place, column in ((ax, columns[0]), (ax.twinx(), columns[-1])):
        at = {rank: index for index, rank in column.items()}
        texts = [
            f"{labels.get(at[rank], f'document {at[rank] + 1}')}  {rank}" if place is ax
            else f"{rank}  {labels.get(at[rank], '')}"
            for rank in range(1, rows + 1) if rank in at
        ]  # fmt: skip
        ranks = [rank for rank in range(1, rows + 1) if rank in at]
        place.set_yticks([*ranks, below], [*texts, *rest], fontsize="small")
        place.set_ylim(below + 0.5, 0.5)
        place.tick_params(length=0)
        for spine in place.spines.values():
            spine.set_visible(False)
    ax.set_ylabel("rank (1 is best)")
    set_title(ax, "Ranks before and after reranking")
    return ax


def _line(ax: Axes, places: list[int]) -> None:
    for column, (before, after) in enumerate(pairwise(places)):
        color, style = (BLUE, "-") if after < before else (ORANGE, "--") if after > before else (GREY, "-")
        ax.plot([column, column + 1], [before, after], style, color=color, marker="o", markersize=4, clip_on=False)


def _labels(
    named: Mapping[str, Ranking[Any]], label_fn: Callable[[RankedDocument[Any]], str] | None, width: int
) -> dict[int, str]:
    return {
        found.index: label(found.text if label_fn is None else label_fn(found), width)
        for ranking in named.values()
        for found in ranking
    }
