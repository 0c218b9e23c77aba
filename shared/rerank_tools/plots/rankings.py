"""Plots of rankings: how documents moved, and how scores are spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError
from rerank_core.types import RankedDocument, Ranking
from rerank_tools.plots.style import BLUE, GREY, ORANGE, add_legend, get_axes, make_label, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_rank_movement", "plot_score_distribution"]


def plot_rank_movement(
    rankings: Ranking[Any] | Mapping[str, Ranking[Any]],
    *,
    top: int = 10,
    label_fn: Callable[[RankedDocument[Any]], str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a line for each document from its rank in the first stage to its rank in each ranking.

    A line that rises is blue, one that falls is orange and dashed, one that stays is grey. Documents that are
    nowhere among the best ``top`` are left out. Where one is below them or was dropped, its line ends in the row
    below.

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
    size = max(sizes)
    rows = min(top, size)
    ax = get_axes(ax, size=(5.4 + 1.6 * len(named), 1.2 + 0.32 * (rows + 1)))
    columns = [{index: index + 1 for index in range(size)}]  # by index, the rank
    columns += [{found.index: found.rank for found in ranking} for ranking in named.values()]
    below = rows + 1
    for index in range(size):
        places = [min(column.get(index, below), below) for column in columns]
        if min(places) < below:
            _draw_line(ax, places)
    inches = ax.bbox.width / ax.figure.dpi
    max_chars = min(28, max(8, int(inches * 5)))
    labels = {
        found.index: make_label(found.text if label_fn is None else label_fn(found), max_chars)
        for ranking in named.values()
        for found in ranking
    }
    names = [
        fill(make_label(name, 28), max(6, int(inches * 5 / len(columns)))) for name in ("first stage", *named)
    ]
    ax.set_xticks(range(len(columns)), names)
    ax.set_xlim(-0.08, len(columns) - 0.92)
    is_cut = size > rows or any(len(column) < rows for column in columns)
    for place, column in ((ax, columns[0]), (ax.twinx(), columns[-1])):
        ranks = {rank: index for index, rank in sorted(column.items(), key=lambda pair: pair[1]) if rank <= rows}
        texts = [
            f"{labels.get(index, f'document {index + 1}')}  {rank}" if place is ax else f"{rank}  {labels[index]}"
            for rank, index in ranks.items()
        ]
        rest = f"below {rows}, or dropped" if is_cut else ""
        place.set_yticks([*ranks, below], [*texts, rest], fontsize="small")
        place.set_ylim(below + 0.5, 0.5)
        place.tick_params(length=0)
        for spine in place.spines.values():
            spine.set_visible(False)
    ax.set_ylabel("rank (1 is best)")
    set_title(ax, "Ranks before and after reranking")
    return ax


def plot_score_distribution(
    rankings: Ranking[Any] | Iterable[Ranking[Any]], *, bins: int = 20, ax: Axes | None = None
) -> Axes:
    """Draw a histogram of the scores, kept documents apart from dropped ones, with a line at the cut.

    Args:
        rankings: one ranking, or those of several queries, taken together; a line is drawn where all were cut
            at the same score.
        bins: bars between 0 and 1; ≥ 1.
        ax: where to draw; by default a new figure.

    Raises:
        ConfigurationError: nothing was scored, or ``bins`` is below 1.
        MissingExtraError: matplotlib is not installed (extra ``notebook``).
    """
    several = [rankings] if isinstance(rankings, Ranking) else list(rankings)
    bins = check_count("bins", bins)
    kept: list[float] = []
    dropped: list[float] = []
    for ranking in several:
        indices = {document.index for document in ranking}
        for index, score in enumerate(ranking.scores):
            if score is not None:
                (kept if index in indices else dropped).append(score)
    if not kept and not dropped:
        raise ConfigurationError("no document has a score: give rankings that were scored")
    ax = get_axes(ax, size=(6, 3.2))
    ax.hist(
        [kept, dropped],
        bins=bins,
        range=(0.0, 1.0),
        stacked=True,
        color=[BLUE, "#CFCFCF"],
        edgecolor=GREY,
        label=[f"kept ({len(kept):,})", f"dropped ({len(dropped):,})"],
    )
    cuts = {ranking.cut_score for ranking in several}
    cut = cuts.pop() if len(cuts) == 1 else None
    if cut is not None:
        ax.axvline(cut, color=ORANGE, linestyle="--", label=f"cut at {cut:.3f}")
    ax.set_xlim(0, 1)
    ax.locator_params(axis="y", integer=True)
    ax.set_xlabel("relevance score (0 to 1)")
    ax.set_ylabel("documents")
    add_legend(ax)
    queries = f"{len(several):,} queries" if len(several) > 1 else "one query"
    set_title(ax, f"Scores of {len(kept) + len(dropped):,} documents, {queries}")
    return ax


def _draw_line(ax: Axes, places: list[int]) -> None:
    for column, (before, after) in enumerate(pairwise(places)):
        color, style = (BLUE, "-") if after < before else (ORANGE, "--") if after > before else (GREY, "-")
        ax.plot([column, column + 1], [before, after], style, color=color, marker="o", markersize=4, clip_on=False)
