"""Plots of evaluations: what a threshold costs and buys, and quality against latency or cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rerank_core._support.checks import check_choice
from rerank_core.errors import ConfigurationError
from rerank_tools.plots.style import BLUE, GREY, ORANGE, add_legend, get_axes, make_label, place_labels, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rerank_tools.evaluation import EvaluationResult, SystemResult, ThresholdSuggestion

__all__ = ["plot_precision_recall", "plot_quality_tradeoff"]


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
    ax = get_axes(ax, size=(6, 3.4))
    thresholds = [point.threshold for point in suggestion.curve]
    ax.plot(thresholds, [point.precision for point in suggestion.curve], color=BLUE, label="precision")
    recalls = [point.recall for point in suggestion.curve]
    ax.plot(thresholds, recalls, color=ORANGE, linestyle="--", label="recall")
    ax.axhline(suggestion.target_precision, color=GREY, linestyle=":", label="target precision")
    if suggestion.threshold is not None:
        ax.axvline(suggestion.threshold, color="black", linewidth=1, label=f"threshold {suggestion.threshold:.3f}")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("score threshold (0 to 1)")
    ax.set_ylabel("share of documents")
    add_legend(ax)
    set_title(ax, f"Precision and recall of {make_label(suggestion.system, 40)} ({suggestion.queries} queries)")
    return ax


def plot_quality_tradeoff(
    result: EvaluationResult,
    *,
    measure: str | None = None,
    by: Literal["latency", "cost"] = "latency",
    ax: Axes | None = None,
) -> Axes:
    """Draw each reranker's quality against its latency or its cost, the other one in its label.

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
    points = [_Point.of(system, measure) for system in result.rerankers if system.latency_p50 is not None]
    front = [point for point in points if not any(other.beats(point) for other in points)]
    placed = [(point.latency if by == "latency" else point.cost, point) for point in points]
    drawn = [(x, point) for x, point in placed if x is not None]
    if not drawn:
        raise ConfigurationError(f"no reranker has a known {by}: evaluate one, or set its price")
    ax = get_axes(ax, size=(6.4, 4))
    for x, point in drawn:
        face = BLUE if point in front else "white"
        ax.errorbar(x, point.quality, point.errors, fmt="o", color=BLUE, ecolor=GREY, mfc=face, capsize=3)
    ax.axhline(result.baseline.measures[measure], color=GREY, linestyle="--", zorder=0)
    line = sorted((x, point.quality) for x, point in drawn if point in front)
    ax.plot([x for x, _ in line], [quality for _, quality in line], color=BLUE, linewidth=1, zorder=1)
    if by == "latency":
        ax.set_xscale("log")
        ax.set_xlabel("median latency of a query (ms, log scale)")
    else:
        ax.set_xlabel("cost of 1,000 queries (US dollars)")
    ax.margins(x=0.35, y=0.25)
    ax.set_ylabel(f"{measure} (mean, 95 % interval)")
    first = make_label(result.first_stage, 24)
    set_title(
        ax, f"Quality and {by} on {make_label(result.dataset, 30)}; dashed: {first} alone, filled: Pareto front"
    )
    place_labels(ax, [(x, point.quality) for x, point in drawn], [point.describe(by) for _, point in drawn])
    return ax


@dataclass(frozen=True, slots=True)
class _Point:
    """A reranker: milliseconds per query, and dollars for a thousand queries, None where unknown."""

    name: str
    quality: float
    errors: list[list[float]] | None
    latency: float
    cost: float | None

    @classmethod
    def of(cls, system: SystemResult, measure: str) -> _Point:
        quality, interval, cost = system.measures[measure], system.intervals.get(measure), system.usage.cost
        return cls(
            name=make_label(system.name, 28),
            quality=quality,
            errors=None if interval is None else [[quality - interval[0]], [interval[1] - quality]],
            latency=1000 * (system.latency_p50 or 0.0),
            cost=None if cost is None else 1000 * cost / max(1, len(system.queries)),
        )

    def beats(self, other: _Point) -> bool:
        values, others = self._values(), other._values()
        return values != others and all(a <= b for a, b in zip(values, others, strict=True))

    def _values(self) -> tuple[float, float, float]:
        return -self.quality, self.latency, float("inf") if self.cost is None else self.cost

    def describe(self, by: str) -> str:
        if by == "cost":
            return f"{self.name}\n{self.latency:,.0f} ms"
        cost = "price unknown" if self.cost is None else f"\\${self.cost:,.2f} / 1,000" if self.cost else "free"
        return f"{self.name}\n{cost}"
