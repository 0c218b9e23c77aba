"""Plots of rankings and of evaluations; needs the extra ``notebook``.

Every function draws on ``ax``, or on a figure of its own, and returns the Axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import require
from rerank_core._support.tables import one_line
from rerank_core.errors import ConfigurationError
from rerank_core.types import RankedDocument, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rerank_tools.evaluation import EvaluationResult, SystemResult, ThresholdSuggestion

__all__ = ["plot_precision_recall", "plot_quality_tradeoff", "plot_rank_movement", "plot_score_distribution"]

# Okabe and Ito's palette, whose colours colour-blind people can tell apart.
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_COLORS = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^v"
_GREY = "#8A8A8A"
_LABEL_CHARS = 28
_COLUMN_CHARS = 13


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
    ax = _get_axes(ax, size=(5.4 + 1.6 * len(named), 1.2 + 0.32 * (rows + 1)))
    columns = [{index: index + 1 for index in range(size)}]  # by index, the rank
    columns += [{found.index: found.rank for found in ranking} for ranking in named.values()]
    below = rows + 1
    for index in range(size):
        places = [min(column.get(index, below), below) for column in columns]
        if min(places) < below:
            _draw_line(ax, places)
    labels = {
        found.index: _make_label(found.text if label_fn is None else label_fn(found))
        for ranking in named.values()
        for found in ranking
    }
    names = [fill(_make_label(name), _COLUMN_CHARS) for name in ("first stage", *named)]
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
    ax.set_title("Ranks before and after reranking", fontsize="medium", wrap=True)
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
    ax = _get_axes(ax, size=(6, 3.2))
    ax.hist(
        [kept, dropped],
        bins=bins,
        range=(0.0, 1.0),
        stacked=True,
        color=[_BLUE, "#CFCFCF"],
        edgecolor=_GREY,
        label=[f"kept ({len(kept):,})", f"dropped ({len(dropped):,})"],
    )
    cuts = {ranking.cut_score for ranking in several}
    cut = cuts.pop() if len(cuts) == 1 else None
    if cut is not None:
        ax.axvline(cut, color=_ORANGE, linestyle="--", label=f"cut at {cut:.3f}")
    ax.locator_params(axis="y", integer=True)
    ax.set(xlim=(0, 1), xlabel="relevance score (0 to 1)", ylabel="documents")
    queries = f"{len(several):,} queries" if len(several) > 1 else "one query"
    return _finish(ax, f"Scores of {len(kept) + len(dropped):,} documents, {queries}")


def plot_precision_recall(suggestion: ThresholdSuggestion, *, ax: Axes | None = None) -> Axes:
    """Draw precision and recall over thresholds, the target, and the threshold that was suggested.

    Args:
        suggestion: what :func:`rerank_tools.evaluation.suggest_threshold` returned.
        ax: where to draw; by default a new figure.

    Raises:
        ConfigurationError: the suggestion has no curve.
        MissingExtraError: matplotlib is not installed (extra ``notebook``).
    """
    if not suggestion.curve:
        raise ConfigurationError("the suggestion has no curve: evaluate with at least one scored document")
    ax = _get_axes(ax, size=(6, 3.4))
    thresholds = [point.threshold for point in suggestion.curve]
    ax.plot(thresholds, [point.precision for point in suggestion.curve], color=_BLUE, label="precision")
    recalls = [point.recall for point in suggestion.curve]
    ax.plot(thresholds, recalls, color=_ORANGE, linestyle="--", label="recall")
    ax.axhline(suggestion.target_precision, color=_GREY, linestyle=":", label="target precision")
    if suggestion.threshold is not None:
        ax.axvline(suggestion.threshold, color="black", linewidth=1, label=f"threshold {suggestion.threshold:.3f}")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score threshold (0 to 1)", ylabel="share of documents")
    return _finish(ax, f"Precision and recall of {_make_label(suggestion.system)} ({suggestion.queries} queries)")


def plot_quality_tradeoff(
    result: EvaluationResult,
    *,
    measure: str | None = None,
    by: Literal["latency", "cost"] = "latency",
    ax: Axes | None = None,
) -> Axes:
    """Draw each reranker's quality against its latency or its cost, the other one in the legend.

    Filled points are the Pareto front: no other reranker is at least as good in quality, latency and cost, and
    better in one. Unknown costs count as beyond all known ones. Bars are the 95 % intervals of the means; the
    dashed line is the first stage alone.

    Args:
        result: what :func:`rerank_tools.evaluation.evaluate` returned.
        measure: one of the evaluation's measures; by default its first.
        by: what the horizontal axis shows.
        ax: where to draw; by default a new figure.

    Raises:
        ConfigurationError: the measure was not evaluated, ``by`` is unknown, or nothing can be placed.
        MissingExtraError: matplotlib is not installed (extra ``notebook``).
    """
    measure = result.measures[0] if measure is None else measure
    check_choice("measure", measure, result.measures)
    check_choice("by", by, ("latency", "cost"))
    measured = [system for system in result.rerankers if system.latency_p50 is not None]
    values = [_list_values(system, measure) for system in measured]
    front = [value for value in values if not any(_beats(other, value) for other in values)]
    axis = 1 if by == "latency" else 2
    if all(math.isinf(value[axis]) for value in values):
        raise ConfigurationError(f"no reranker has a known {by}: evaluate one, or set its price")
    ax = _get_axes(ax, size=(8, 4))
    for number, (system, value) in enumerate(zip(measured, values, strict=True)):
        if math.isinf(value[axis]):
            continue
        quality, interval = system.measures[measure], system.intervals[measure]
        color = _COLORS[number % len(_COLORS)]
        ax.errorbar(
            value[axis],
            quality,
            None if interval is None else [[quality - interval[0]], [interval[1] - quality]],
            fmt=_MARKERS[number % len(_MARKERS)],
            color=color,
            markerfacecolor=color if value in front else "white",
            ecolor=_GREY,
            capsize=3,
            label=f"{_make_label(system.name)}, {_describe(value, by)}",
        )
    baseline = result.baseline
    alone = f"{_make_label(baseline.name)} alone"
    ax.axhline(baseline.measures[measure], color=_GREY, linestyle="--", zorder=0, label=alone)
    line = sorted((value[axis], -value[0]) for value in front if not math.isinf(value[axis]))
    ax.plot(*zip(*line, strict=True), color=_GREY, linewidth=1, zorder=0, label="Pareto front (filled)")
    ax.set_ylabel(f"{measure} (mean, 95 % interval)")
    if by == "latency":
        ax.set(xscale="log", xlabel="median latency of a query (ms, log scale)")
    else:
        ax.set_xlabel("cost of 1,000 queries (US dollars)")
    return _finish(ax, f"Quality and {by} on {_make_label(result.dataset)}")


_Values = tuple[float, float, float]
"""Quality with a minus, milliseconds per query, dollars for a thousand queries (infinite where unknown)."""


def _list_values(system: SystemResult, measure: str) -> _Values:
    cost = system.usage.cost
    asked = sum(answer.seconds is not None for answer in system.queries.values())  # kept answers cost nothing now
    return (
        -system.measures[measure],
        1000.0 * (system.latency_p50 or 0.0),
        math.inf if cost is None else 1000.0 * cost / asked,
    )


def _beats(one: _Values, other: _Values) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _describe(value: _Values, by: str) -> str:
    """Return what the horizontal axis does not show."""
    _, latency, cost = value
    if by == "cost":
        return f"{latency:,.0f} ms"
    return "price unknown" if math.isinf(cost) else f"\\${cost:,.2f} / 1,000" if cost else "free"


def _draw_line(ax: Axes, places: list[int]) -> None:
    for column, (before, after) in enumerate(pairwise(places)):
        color, style = (_BLUE, "-") if after < before else (_ORANGE, "--") if after > before else (_GREY, "-")
        ax.plot([column, column + 1], [before, after], style, color=color, marker="o", markersize=4, clip_on=False)


def _get_axes(ax: Axes | None, *, size: tuple[float, float]) -> Axes:
    """Return the given Axes, or those of a new figure of a size in inches."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", extra="notebook", purpose="rerank_tools.plots")
    _, new = pyplot.subplots(figsize=size, layout="constrained")
    return new  # type: ignore[no-any-return]


def _make_label(text: str) -> str:
    """Return a text as a short label; a dollar sign stays one instead of starting a formula."""
    return one_line(text, _LABEL_CHARS).replace("$", r"\$")


def _finish(ax: Axes, title: str) -> Axes:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize="small", frameon=False)
    ax.set_title(title, fontsize="medium", wrap=True)
    return ax
