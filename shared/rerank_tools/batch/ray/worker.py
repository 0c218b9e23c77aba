"""Workers on Ray: a scorer in each, with its share of the services' limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require
from rerank_core.local.scorer import LocalScorer
from rerank_core.policies.base import Policy
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_tools.batch.options import BatchOptions

if TYPE_CHECKING:
    from rerank_core.remote.service import RemoteOptions


class Worker:
    """A scorer in a process of its own; a subclass's ``__call__`` puts it to work."""

    def __init__(self, options: BatchOptions) -> None:
        self.options = options
        scorer = prepare_scorer(options.make_scorer(), threads=options.cpus_per_worker, workers=options.workers)
        self.reranker = Reranker(scorer, selection=options.selection, timeout=options.timeout)


def map_arguments(options: BatchOptions, *more: object, min_workers: int) -> dict[str, Any]:
    """Return the arguments of Ray Data's ``map`` that start a pool of workers.

    Services' keys do not travel: workers look for them in their environment.

    Args:
        options: of the job; ``workers`` is the size that the pool may grow to.
        more: further arguments of the worker's class.
        min_workers: the pool's least size, at least 1.
    """
    data = require("ray.data", extra="ray", purpose="workers on Ray")
    scorer = options.make_scorer()
    workers = count_workers(scorer, options.workers)
    return {
        # With a scorer, because a scorer's pickle holds no key.
        "fn_constructor_args": (replace(options, model=scorer, model_options={}, workers=workers), *more),
        "compute": data.ActorPoolStrategy(min_size=min(min_workers, workers), max_size=workers),
        "num_cpus": options.cpus_per_worker,
        "num_gpus": options.gpus_per_worker or None,
    }


def count_workers(scorer: Scorer, workers: int) -> int:
    """Return how many workers can have a share of each service's limits."""
    return min([workers, *(limit for options in _services(scorer) for limit in _limits(options).values())])


def prepare_scorer(scorer: Scorer, *, threads: int, workers: int) -> Scorer:
    """Return a scorer for one of several workers, which share the services' limits equally.

    Args:
        scorer: this worker's own copy.
        threads: for local models that were given no number.
        workers: how many there may be.
    """
    from rerank_core.remote.scorer import RemoteScorer  # brings pydantic

    if isinstance(scorer, Policy):
        scorer.scorers = tuple(prepare_scorer(inner, threads=threads, workers=workers) for inner in scorer.scorers)
    elif isinstance(scorer, LocalScorer) and scorer.options.threads is None:
        return scorer.with_options(threads=threads)
    elif isinstance(scorer, RemoteScorer):
        return scorer.with_options(**{name: limit // workers for name, limit in _limits(scorer.options).items()})
    return scorer


def _services(scorer: Scorer) -> Iterator[RemoteOptions]:
    from rerank_core.remote.scorer import RemoteScorer

    if isinstance(scorer, Policy):
        for inner in scorer.scorers:
            yield from _services(inner)
    elif isinstance(scorer, RemoteScorer):
        yield scorer.options


def _limits(options: RemoteOptions) -> dict[str, int]:
    limits = {
        name: getattr(options, name) for name in ("max_concurrency", "requests_per_minute", "tokens_per_minute")
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
