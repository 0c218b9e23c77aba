"""Workers on Ray: a scorer in each, and one rate limiter for all of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from rerank_core._support.extras import require
from rerank_core._support.files import digest
from rerank_core.errors import ScorerUnavailableError
from rerank_core.local.scorer import LocalScorer
from rerank_core.policies.base import Policy
from rerank_core.remote.rate_limit import RateLimiter
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_tools.batch.options import BatchOptions

if TYPE_CHECKING:
    from rerank_core.remote.scorer import RemoteScorer

__all__ = ["NAMESPACE", "ClusterLimiter", "LimiterActor", "Worker", "map_arguments", "prepare_scorer"]

NAMESPACE = "rerank-bridge"
"""Namespace of the limiters' actors, so that all jobs of a cluster use the same ones."""

_MAX_CALLS = 10_000
_TRIES = 20
_MARGIN_SECONDS = 5.0
"""Beyond a request's time limit, after which no request is under way: its slot may be given to another one."""


class Worker:
    """A scorer in a process of its own; a subclass's ``__call__`` puts it to work.

    Args:
        options: of the job.
        limiters: handles of the limiters' actors, which live as long as there are handles.
    """

    def __init__(self, options: BatchOptions, limiters: Sequence[Any] = ()) -> None:
        self.options = options
        self._limiters = limiters
        scorer = prepare_scorer(options.make_scorer(), threads=options.cpus_per_worker)
        self.reranker = Reranker(scorer, selection=options.selection, timeout=options.timeout)


def map_arguments(options: BatchOptions, *more: object, min_workers: int, max_workers: int) -> dict[str, Any]:
    """Return the arguments of Ray Data's ``map`` that start a pool of workers.

    Services' keys do not travel: workers look for them in their environment.

    Args:
        options: of the job.
        more: further arguments of the worker's class.
        min_workers: the pool's least size, at least 1.
        max_workers: the size that the pool may grow to.
    """
    data = require("ray.data", extra="ray", purpose="workers on Ray")
    scorer = options.make_scorer()
    # As a scorer, because a scorer's pickle holds no key.
    options = replace(options, model=scorer, model_options={})
    return {
        # The driver starts the limiters, because an actor dies with the process that started it.
        "fn_constructor_args": (options, [ClusterLimiter(each).actor for each in _services_of(scorer)], *more),
        "compute": data.ActorPoolStrategy(min_size=min_workers, max_size=max_workers),
        "num_cpus": options.cpus_per_worker,
        "num_gpus": options.gpus_per_worker or None,
    }


def prepare_scorer(scorer: Scorer, *, threads: int) -> Scorer:
    """Return a scorer for a worker; requests to services wait for limiters that the whole cluster shares.

    Args:
        scorer: this worker's own copy.
        threads: for local models that were given no number.
    """
    if isinstance(scorer, Policy):
        scorer.scorers = tuple(prepare_scorer(inner, threads=threads) for inner in scorer.scorers)
    elif isinstance(scorer, LocalScorer) and scorer.options.threads is None:
        return scorer.with_options(threads=threads)
    for service in _services_of(scorer):
        service.share_limiter(partial(ClusterLimiter, service))
    return scorer


def _services_of(scorer: Scorer) -> list[RemoteScorer]:
    from rerank_core.remote.scorer import RemoteScorer  # brings pydantic

    if isinstance(scorer, Policy):
        return [service for inner in scorer.scorers for service in _services_of(inner)]
    return [scorer] if isinstance(scorer, RemoteScorer) else []


class ClusterLimiter:
    """A rate limiter that the workers of a cluster share; it lives in an actor.

    Where the actor dies with the job that started it, the next request starts another one, which does not know
    of earlier requests.

    Args:
        scorer: scorers of the same name, address and limits share a limiter.
    """

    def __init__(self, scorer: RemoteScorer) -> None:
        options = scorer.options
        self._limits = {
            "concurrency": options.max_concurrency,
            "requests_per_minute": options.requests_per_minute,
            "tokens_per_minute": options.tokens_per_minute,
        }
        self._lease_seconds = options.timeout + _MARGIN_SECONDS
        self._name = f"limiter-{digest(scorer.name, repr(scorer.base_url), repr(self._limits))}"
        self._own_slots = anyio.Semaphore(options.max_concurrency)
        self._ray = require("ray", extra="ray", purpose="one limiter for a cluster")
        self.actor = self._find_actor()

    def pause(self, seconds: float) -> None:
        """Let no request of the cluster through for this long."""
        self.actor.pause.remote(seconds)

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Wait for this request's turn in the cluster, and hold a slot while it is under way."""
        lease = uuid.uuid4().hex
        async with self._own_slots:  # so that no worker fills the actor's queue
            try:
                await self._acquire(lease, tokens)
                yield
            finally:
                self.actor.release.remote(lease)

    async def _acquire(self, lease: str, tokens: int) -> None:
        for attempt in range(_TRIES):
            actor = self.actor
            try:
                await actor.acquire.remote(lease, tokens, self._lease_seconds)
            except self._ray.exceptions.RayActorError:
                await anyio.sleep(0.1 * attempt)  # its name may be taken for a moment
                if self.actor is actor:  # else another request has started a new one
                    self.actor = await anyio.to_thread.run_sync(self._find_actor)
            else:
                return
        raise ScorerUnavailableError("the cluster's limiter could not be started: see Ray's logs")

    def _find_actor(self) -> Any:
        options = {"name": self._name, "namespace": NAMESPACE, "get_if_exists": True}
        actor = self._ray.remote(LimiterActor).options(num_cpus=0, max_concurrency=_MAX_CALLS, **options)
        return actor.remote(self._limits)


class LimiterActor:
    """A rate limiter that leases its slots: those of a worker that died are free when the lease ends.

    Args:
        limits: options of :class:`~rerank_core.remote.rate_limit.RateLimiter`.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limiter = RateLimiter(**limits)
        self._waiting: set[str] = set()
        self._held: dict[str, AbstractAsyncContextManager[None]] = {}

    async def acquire(self, lease: str, tokens: int, seconds: float) -> None:
        """Wait for a slot, and hold it until it is released, or for so many seconds."""
        self._waiting.add(lease)
        slot = self._limiter.slot(tokens)
        await slot.__aenter__()
        self._held[lease] = slot
        if lease not in self._waiting:  # given up meanwhile
            await self.release(lease)
            return
        self._waiting.remove(lease)
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, lambda: loop.create_task(self.release(lease)))

    async def release(self, lease: str) -> None:
        """Release the slot of a lease, or stop waiting for one."""
        self._waiting.discard(lease)
        slot = self._held.pop(lease, None)
        if slot is not None:
            await slot.__aexit__(None, None, None)

    async def pause(self, seconds: float) -> None:
        """Let no request through for this long."""
        self._limiter.pause(seconds)
