"""What a threshold costs in recall, and what it buys in precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rerank_core.errors import ConfigurationError
from rerank_tools.plots._style import BLUE, GREY, ORANGE, axes, label, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rerank_tools.evaluation import ThresholdSuggestion

__all__ = ["precision_recall"]


def precision_recall(suggestion: ThresholdSuggestion, *, ax: Axes | None = None) -> Axes:
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
    ax = axes(ax, size=(6, 3.4))
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
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize="small", frameon=False)
    set_title(ax, f"Precision and recall of {label(suggestion.system, 40)} ({suggestion.queries} queries)")
    return ax
