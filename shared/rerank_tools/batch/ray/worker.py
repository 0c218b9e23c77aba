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
_SECONDS_BETWEEN_SIGNS = 1.0
_SECONDS_UNTIL_DEAD = 8.0
"""A worker that gives no sign of life for so long has died: its slots are free again."""


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
        self._limits = {
            "concurrency": scorer.options.max_concurrency,
            "requests_per_minute": scorer.options.requests_per_minute,
            "tokens_per_minute": scorer.options.tokens_per_minute,
        }
        self._name = f"limiter-{digest(scorer.name, repr(scorer.base_url), repr(self._limits))}"
        self._worker = uuid.uuid4().hex
        self._under_way = 0
        self._signs: asyncio.Task[None] | None = None
        self._own_slots = anyio.Semaphore(scorer.options.max_concurrency)
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
            self._under_way += 1
            if self._signs is None or self._signs.done():
                self._signs = asyncio.create_task(self._give_signs())
            try:
                await self._acquire(lease, tokens)
                yield
            finally:
                self._under_way -= 1
                self.actor.release.remote(lease)

    async def _acquire(self, lease: str, tokens: int) -> None:
        for attempt in range(_TRIES):
            actor = self.actor
            try:
                await actor.acquire.remote(self._worker, lease, tokens)
            except self._ray.exceptions.RayActorError:
                await anyio.sleep(0.1 * attempt)  # its name may be taken for a moment
                if self.actor is actor:  # else another request has started a new one
                    self.actor = await anyio.to_thread.run_sync(self._find_actor)
            else:
                return
        raise ScorerUnavailableError("the cluster's limiter could not be started: see Ray's logs")

    async def _give_signs(self) -> None:
        while self._under_way:
            self.actor.give_sign.remote(self._worker)
            await asyncio.sleep(_SECONDS_BETWEEN_SIGNS)

    def _find_actor(self) -> Any:
        options = {"name": self._name, "namespace": NAMESPACE, "get_if_exists": True}
        actor = self._ray.remote(LimiterActor).options(num_cpus=0, max_concurrency=_MAX_CALLS, **options)
        return actor.remote(self._limits)


class LimiterActor:
    """A rate limiter that leases its slots: those of a worker that died are free again.

    Args:
        limits: options of :class:`~rerank_core.remote.rate_limit.RateLimiter`.
        seconds_until_dead: a worker without a sign of life for this long counts as dead.
    """

    def __init__(self, limits: dict[str, Any], seconds_until_dead: float = _SECONDS_UNTIL_DEAD) -> None:
        self._limiter = RateLimiter(**limits)
        self._seconds_until_dead = seconds_until_dead
        self._last_signs: dict[str, float] = {}
        self._workers: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._held: dict[str, AbstractAsyncContextManager[None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def acquire(self, worker: str, lease: str, tokens: int) -> None:
        """Wait for a slot, and hold it for a worker until it is released."""
        await self.give_sign(worker)
        self._workers[lease] = worker
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_workers())
        slot = self._limiter.slot(tokens)
        await slot.__aenter__()
        self._held[lease] = slot
        if lease in self._given_up:
            await self.release(lease)

    async def release(self, lease: str) -> None:
        """Release the slot of a lease, or stop waiting for one."""
        if lease not in self._workers:
            return
        slot = self._held.pop(lease, None)
        if slot is None:
            self._given_up.add(lease)
            return
        del self._workers[lease]
        self._given_up.discard(lease)
        await slot.__aexit__(None, None, None)

    async def pause(self, seconds: float) -> None:
        """Let no request through for this long."""
        self._limiter.pause(seconds)

    async def give_sign(self, worker: str) -> None:
        """Record that a worker is alive."""
        self._last_signs[worker] = anyio.current_time()

    async def _watch_workers(self) -> None:
        while self._workers:
            await asyncio.sleep(self._seconds_until_dead / 4)
            oldest = anyio.current_time() - self._seconds_until_dead
            dead = {worker for worker, seen in self._last_signs.items() if seen < oldest}
            for lease in [lease for lease, worker in self._workers.items() if worker in dead]:
                await self.release(lease)
            for worker in dead:
                del self._last_signs[worker]
