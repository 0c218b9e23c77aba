"""How many requests may be under way, and how many a minute."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

_WINDOW_SECONDS = 60.0


class _Window:
    """At most ``limit`` units in any 60 seconds."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._spent: deque[tuple[float, int]] = deque()
        self._total = 0

    def delay(self, now: float, amount: int) -> float:
        """Return how many seconds from now ``amount`` more units fit; more than the limit fit an empty window."""
        if self._limit is None:
            return 0.0
        while self._spent and self._spent[0][0] <= now - _WINDOW_SECONDS:
            self._total -= self._spent.popleft()[1]
        excess = self._total + min(amount, self._limit) - self._limit
        for spent_at, units in self._spent:
            if excess <= 0:
                return 0.0
            excess -= units
            if excess <= 0:
                return spent_at + _WINDOW_SECONDS - now
        return 0.0

    def spend(self, now: float, amount: int) -> None:
        if self._limit is not None:
            self._spent.append((now, amount))
            self._total += amount


class RateLimiter:
    """Lets requests through in the order they came, as the limits allow; belongs to one event loop.

    Args:
        concurrency: requests under way at once, at least 1.
        requests_per_minute: requests begun in any 60 seconds; None for no limit.
        tokens_per_minute: tokens sent in any 60 seconds; None for no limit. A request of more than that
            waits until nothing else was sent for 60 seconds.
    """

    def __init__(
        self, concurrency: int, *, requests_per_minute: int | None = None, tokens_per_minute: int | None = None
    ) -> None:
        self._slots = anyio.Semaphore(concurrency)
        self._turn = anyio.Lock()
        self._requests = _Window(requests_per_minute)
        self._tokens = _Window(tokens_per_minute)
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        """Let no request through for this long, whoever's it is."""
        self._paused_until = max(self._paused_until, anyio.current_time() + seconds)

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Wait for this request's turn, and hold one of the slots while it is under way."""
        async with self._slots:
            async with self._turn:
                while (delay := self._delay(tokens)) > 0.0:  # noqa: ASYNC110 - a pause may come meanwhile
                    await anyio.sleep(delay)
                now = anyio.current_time()
                self._requests.spend(now, 1)
                self._tokens.spend(now, tokens)
            yield

    def _delay(self, tokens: int) -> float:
        now = anyio.current_time()
        return max(self._paused_until - now, self._requests.delay(now, 1), self._tokens.delay(now, tokens))
