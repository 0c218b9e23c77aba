"""Quality against speed and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rerank_core.errors import ConfigurationError
from rerank_tools.plots._style import BLUE, GREY, axes, label, place_labels, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rerank_tools.evaluation import EvaluationResult

__all__ = ["quality_tradeoff"]


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    quality: float
    interval: tuple[float, float] | None
    latency: float  # milliseconds
    cost: float | None  # dollars for a thousand queries


def quality_tradeoff(
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
    if measure not in result.measures:
        raise ConfigurationError(f"measure is {measure!r}: give one of {', '.join(result.measures)}")
    if by not in ("latency", "cost"):
        raise ConfigurationError(f"by is {by!r}: give 'latency' or 'cost'")
    points = _points(result, measure)
    placed = [(point.latency if by == "latency" else point.cost, point) for point in points]
    drawn = [(x, point) for x, point in placed if x is not None]
    if not drawn:
        raise ConfigurationError(f"no reranker has a known {by}: evaluate one, or set its price")
    ax = axes(ax, size=(6.4, 4))
    for x, point in drawn:
        error = None
        if point.interval is not None:
            error = [[point.quality - point.interval[0]], [point.interval[1] - point.quality]]
        best = not any(_beats(other, point) for other in points)
        ax.errorbar(
            x, point.quality, error, fmt="o", color=BLUE, ecolor=GREY, mfc=BLUE if best else "white", capsize=3
        )
    base = result.baseline.measures[measure]
    ax.axhline(base, color=GREY, linestyle="--", zorder=0)
    front = sorted((x, point.quality) for x, point in drawn if not any(_beats(other, point) for other in points))
    ax.plot([x for x, _ in front], [quality for _, quality in front], color=BLUE, linewidth=1, zorder=1)
    if by == "latency":
        ax.set_xscale("log")
        ax.set_xlabel("median latency of a query (ms, log scale)")
    else:
        ax.set_xlabel("cost of 1,000 queries (US dollars)")
    ax.margins(x=0.35, y=0.25)
    ax.set_ylabel(f"{measure} (mean, 95 % interval)")
    first = label(result.first_stage, 24)
    set_title(ax, f"Quality and {by} on {label(result.dataset, 30)}; dashed: {first} alone, filled: Pareto front")
    place_labels(ax, [(x, point.quality) for x, point in drawn], [_note(point, by) for _, point in drawn])
    return ax


def _points(result: EvaluationResult, measure: str) -> list[_Point]:
    points = []
    for system in result.rerankers:
        if system.latency_p50 is not None:
            cost = system.usage.cost
            per_thousand = None if cost is None else 1000 * cost / max(1, len(system.queries))
            points.append(
                _Point(
                    label(system.name, 28),
                    system.measures[measure],
                    system.intervals.get(measure),
                    1000 * system.latency_p50,
                    per_thousand,
                )
            )
    return points


def _beats(one: _Point, other: _Point) -> bool:
    values, others = _values(one), _values(other)
    return values != others and all(a <= b for a, b in zip(values, others, strict=True))


def _values(point: _Point) -> tuple[float, float, float]:
    return -point.quality, point.latency, float("inf") if point.cost is None else point.cost


def _note(point: _Point, by: str) -> str:
    if by == "cost":
        return f"{point.name}\n{point.latency:,.0f} ms"
    cost = "price unknown" if point.cost is None else f"\\${point.cost:,.2f} / 1,000" if point.cost else "free"
    return f"{point.name}\n{cost}"
