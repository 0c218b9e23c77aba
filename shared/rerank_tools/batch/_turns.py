"""One limiter for all workers of a cluster: a named actor, and what stands for it in each worker."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread

from rerank_core._support.extras import require
from rerank_core.errors import ScorerUnavailableError
from rerank_core.remote.rate_limit import RateLimiter

__all__ = ["NAMESPACE", "ClusterTurns", "LimiterActor"]

NAMESPACE = "rerank-bridge"
"""Namespace of the limiters' actors, so that all jobs of a cluster meet the same ones."""

_MANY = 10_000
_TRIES = 20
_SECONDS_BETWEEN_SIGNS = 1.0
_SECONDS_UNTIL_DEAD = 8.0
"""A worker that gives no sign for so long has died: its slots are free again."""


class ClusterTurns:
    """A limiter of which the cluster has one; asked by each worker.

    Should the actor die with the job that began it, the next request begins another, which knows of no request
    before it.

    Args:
        service: what is limited.
        limits: options of :class:`~rerank_core.remote.rate_limit.RateLimiter`; others are another limiter.
    """

    def __init__(self, service: str, limits: dict[str, Any]) -> None:
        key = hashlib.blake2b(repr((service, sorted(limits.items()))).encode(), digest_size=8).hexdigest()
        self._name = f"limiter-{key}"
        self._limits = limits
        self._worker = uuid.uuid4().hex
        self._under_way = 0
        self._signs: asyncio.Task[None] | None = None
        self._own = anyio.Semaphore(limits["concurrency"])
        self._ray = require("ray", extra="ray", purpose="one limiter for a cluster")
        self._actor = self._found()

    @property
    def actor(self) -> Any:
        """A handle of the actor, which lives as long as who began it, and while there are handles."""
        return self._actor

    def pause(self, seconds: float) -> None:
        """Let no request of the cluster through for this long."""
        self._actor.pause.remote(seconds)

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Wait for this request's turn in the cluster, and hold a slot while it is under way."""
        lease = uuid.uuid4().hex
        async with self._own:  # so that no worker fills the actor's queue
            self._under_way += 1
            if self._signs is None or self._signs.done():
                self._signs = asyncio.create_task(self._give_signs())
            try:
                await self._acquire(lease, tokens)
                yield
            finally:
                self._under_way -= 1
                self._actor.release.remote(lease)

    async def _acquire(self, lease: str, tokens: int) -> None:
        for attempt in range(_TRIES):
            actor = self._actor
            try:
                await actor.acquire.remote(self._worker, lease, tokens)
            except self._ray.exceptions.RayActorError:
                await anyio.sleep(0.1 * attempt)  # its name may be taken for a moment yet
                if self._actor is actor:  # else another request has begun a new one
                    self._actor = await anyio.to_thread.run_sync(self._found)
            else:
                return
        raise ScorerUnavailableError("the cluster's limiter could not be begun: see Ray's logs")

    async def _give_signs(self) -> None:
        while self._under_way:
            self._actor.sign.remote(self._worker)
            await asyncio.sleep(_SECONDS_BETWEEN_SIGNS)

    def _found(self) -> Any:
        options = {"name": self._name, "namespace": NAMESPACE, "get_if_exists": True}
        actor = self._ray.remote(LimiterActor).options(num_cpus=0, max_concurrency=_MANY, **options)
        return actor.remote(self._limits)


class LimiterActor:
    """A limiter whose slots are leased: those of a worker that died are free again.

    Args:
        limits: options of :class:`~rerank_core.remote.rate_limit.RateLimiter`.
        until_dead: seconds without a sign after which a worker counts as dead.
    """

    def __init__(self, limits: dict[str, Any], until_dead: float = _SECONDS_UNTIL_DEAD) -> None:
        self._limiter = RateLimiter(**limits)
        self._until_dead = until_dead
        self._seen: dict[str, float] = {}
        self._workers: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._held: dict[str, AbstractAsyncContextManager[None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def acquire(self, worker: str, lease: str, tokens: int) -> None:
        """Wait for a slot, and hold it for a worker until it gives it back."""
        await self.sign(worker)
        self._workers[lease] = worker
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_workers())
        slot = self._limiter.slot(tokens)
        await slot.__aenter__()
        self._held[lease] = slot
        if lease in self._given_up:
            await self.release(lease)

    async def release(self, lease: str) -> None:
        """Give the slot of a lease back, or do not wait for one any more."""
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

    async def sign(self, worker: str) -> None:
        """Take note that a worker is alive."""
        self._seen[worker] = anyio.current_time()

    async def _watch_workers(self) -> None:
        while self._workers:
            await asyncio.sleep(self._until_dead / 4)
            dead = {
                worker for worker, seen in self._seen.items() if anyio.current_time() - seen > self._until_dead
            }
            for lease in [lease for lease, worker in self._workers.items() if worker in dead]:
                await self.release(lease)
            for worker in dead:
                del self._seen[worker]
