"""Policies: scorers made of scorers. They can be nested, and used wherever a scorer can."""

from rerank_core.policies.base import Policy
from rerank_core.policies.cached import Cached
from rerank_core.policies.calibrated import Calibrated, Calibration
from rerank_core.policies.cascade import Cascade
from rerank_core.policies.fallback import Breaker, Fallback
from rerank_core.policies.hedged import Hedged
from rerank_core.policies.windowed import Windowed

__all__ = [
    "Breaker",
    "Cached",
    "Calibrated",
    "Calibration",
    "Cascade",
    "Fallback",
    "Hedged",
    "Policy",
    "Windowed",
]
