"""What a scorer needs in a worker of a cluster: a share of the cores, and the cluster's limiter."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from rerank_core._optional import require
from rerank_core.policies.base import Policy
from rerank_core.scorers._limiter import Limiter
from rerank_core.scorers._local import LocalScorer
from rerank_core.scorers.base import Scorer

__all__ = ["NAMESPACE", "LimiterActor", "prepared"]

NAMESPACE = "rerank-bridge"
"""Namespace of the limiters' actors, so that all jobs of a cluster meet the same ones."""

_MANY = 10_000
_SPARE_SECONDS = 30.0


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
        options: Any = scorer
        return scorer if options.threads is not None else replace(options, threads=cores)
    from rerank_core.scorers._remote import RemoteScorer  # brings pydantic

    if isinstance(scorer, RemoteScorer):
        limits = {
            "concurrency": scorer.max_concurrency,
            "requests_per_minute": scorer.requests_per_minute,
            "tokens_per_minute": scorer.tokens_per_minute,
        }
        scorer.share_limiter(partial(_ClusterTurns, f"{scorer.name} {scorer.base_url}", limits, scorer.timeout))
    return scorer


class _ClusterTurns:
    """A limiter of which the cluster has one, in a named actor; asked by each worker.

    Should the actor die with the job that began it, the next request begins another, which knows of no request
    before it.
    """

    def __init__(self, service: str, limits: dict[str, Any], timeout: float) -> None:
        key = hashlib.blake2b(repr((service, sorted(limits.items()))).encode(), digest_size=8).hexdigest()
        self._name = f"limiter-{key}"
        self._limits = limits
        self._lease_seconds = timeout + _SPARE_SECONDS
        self._own = anyio.Semaphore(limits["concurrency"])
        self._ray = require("ray", extra="ray", purpose="one limiter for a cluster")
        self._actor = self._found()

    def pause(self, seconds: float) -> None:
        """Let no request of the cluster through for this long."""
        self._actor.pause.remote(seconds)

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Wait for this request's turn in the cluster, and hold a slot while it is under way."""
        lease = uuid.uuid4().hex
        async with self._own:  # so that no worker fills the actor's queue
            try:
                await self._acquire(lease, tokens)
                yield
            finally:
                self._actor.release.remote(lease)

    async def _acquire(self, lease: str, tokens: int) -> None:
        actor = self._actor
        try:
            await actor.acquire.remote(lease, tokens)
        except self._ray.exceptions.RayActorError:
            if self._actor is actor:  # else another request has begun a new one
                self._actor = await anyio.to_thread.run_sync(self._found)
            await self._actor.acquire.remote(lease, tokens)

    def _found(self) -> Any:
        options = {"name": self._name, "namespace": NAMESPACE, "get_if_exists": True}
        actor = self._ray.remote(LimiterActor).options(num_cpus=0, max_concurrency=_MANY, **options)
        return actor.remote(self._limits, self._lease_seconds)


class LimiterActor:
    """A limiter as an actor: who holds a slot has a lease, which ends by itself where its holder died.

    Args:
        limits: options of :class:`~rerank_core.scorers._limiter.Limiter`.
        lease_seconds: longer than a request may take.
    """

    def __init__(self, limits: dict[str, Any], lease_seconds: float) -> None:
        self._limiter = Limiter(limits.pop("concurrency"), **limits)
        self._lease_seconds = lease_seconds
        self._waiting: set[str] = set()
        self._given_up: set[str] = set()
        self._held: dict[str, tuple[AbstractAsyncContextManager[None], asyncio.TimerHandle]] = {}
        self._ends: set[asyncio.Task[None]] = set()

    async def acquire(self, lease: str, tokens: int) -> None:
        """Wait for a slot, and hold it for a lease."""
        self._waiting.add(lease)
        slot = self._limiter.slot(tokens)
        await slot.__aenter__()
        self._waiting.discard(lease)
        timer = asyncio.get_running_loop().call_later(self._lease_seconds, self._expire, lease)
        self._held[lease] = slot, timer
        if lease in self._given_up:
            self._given_up.discard(lease)
            await self.release(lease)

    async def release(self, lease: str) -> None:
        """Give the slot of a lease back, or do not wait for one any more."""
        if lease in self._waiting:
            self._given_up.add(lease)
        slot, timer = self._held.pop(lease, (None, None))
        if slot is not None and timer is not None:
            timer.cancel()
            await slot.__aexit__(None, None, None)

    async def pause(self, seconds: float) -> None:
        """Let no request through for this long."""
        self._limiter.pause(seconds)

    def _expire(self, lease: str) -> None:
        end = asyncio.ensure_future(self.release(lease))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
