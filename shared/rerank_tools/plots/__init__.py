"""Pictures of rankings and of evaluations; needs the extra ``notebook``.

Every function draws on ``ax``, or on a figure of its own, and returns the Axes.
"""

from rerank_tools.plots.movement import rank_movement
from rerank_tools.plots.scores import score_distribution
from rerank_tools.plots.thresholds import precision_recall
from rerank_tools.plots.tradeoff import quality_tradeoff

__all__ = ["precision_recall", "quality_tradeoff", "rank_movement", "score_distribution"]
