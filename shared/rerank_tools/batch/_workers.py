"""What a scorer needs in a worker of a cluster: a share of the cores, and the cluster's limiter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rerank_core.local.scorer import LocalScorer
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_tools.batch._turns import ClusterTurns

__all__ = ["begun_limiters", "prepared"]


def begun_limiters(scorer: Scorer) -> list[Any]:
    """Begin the limiters that workers will look for, and return their handles.

    The driver does so, because an actor dies with the process that began it. Whoever works for the job keeps the
    handles.
    """
    if isinstance(scorer, Policy):
        return [handle for inner in scorer.scorers for handle in begun_limiters(inner)]
    turns = _turns_of(scorer)
    return [] if turns is None else [turns().actor]


def prepared(scorer: Scorer, *, cores: int) -> Scorer:
    """Return a scorer for a worker; its services' requests wait for limiters that the whole cluster shares.

    Args:
        scorer: this worker's own copy.
        cores: threads of a local model that was given none.
    """
    if isinstance(scorer, Policy):
        scorer.scorers = tuple(prepared(inner, cores=cores) for inner in scorer.scorers)
        return scorer
    if isinstance(scorer, LocalScorer):
        return scorer if scorer.options.threads is not None else scorer.with_options(threads=cores)
    turns = _turns_of(scorer)
    if turns is not None:
        scorer.share_limiter(turns)  # type: ignore[attr-defined]
    return scorer


def _turns_of(scorer: Scorer) -> Callable[[], ClusterTurns] | None:
    from rerank_core.remote.scorer import RemoteScorer  # brings pydantic

    if not isinstance(scorer, RemoteScorer):
        return None
    limits = {
        "concurrency": scorer.options.max_concurrency,
        "requests_per_minute": scorer.options.requests_per_minute,
        "tokens_per_minute": scorer.options.tokens_per_minute,
    }
    return partial(ClusterTurns, f"{scorer.name} {scorer.base_url}", limits)
