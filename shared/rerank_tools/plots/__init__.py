"""Plots of rankings and of evaluations; needs the extra ``notebook``.

Every function draws on ``ax``, or on a figure of its own, and returns the Axes.
"""

from rerank_tools.plots.evaluations import plot_precision_recall, plot_quality_tradeoff
from rerank_tools.plots.rankings import plot_rank_movement, plot_score_distribution

__all__ = ["plot_precision_recall", "plot_quality_tradeoff", "plot_rank_movement", "plot_score_distribution"]
