"""Policies: scorers made of scorers, which compose with each other and go wherever a scorer goes."""

from rerank_core.policies.base import Policy
from rerank_core.policies.breaker import Breaker
from rerank_core.policies.cached import Cached
from rerank_core.policies.calibrated import Calibrated
from rerank_core.policies.cascade import Cascade
from rerank_core.policies.fallback import Fallback
from rerank_core.policies.hedged import Hedged
from rerank_core.policies.windowed import Windowed

__all__ = ["Breaker", "Cached", "Calibrated", "Cascade", "Fallback", "Hedged", "Policy", "Windowed"]
