"""Sends a request when its turn comes, and again where that may help."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import anyio
from pydantic import SecretStr

from rerank_core._call.asking import answer_deadline
from rerank_core.errors import ScorerError
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.service import RemoteModel, RemoteOptions, Transport

T = TypeVar("T")

_logger = logging.getLogger("rerank_core")

_WINDOW_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_OWN_PAUSE_SECONDS = 20.0


def _backoff(attempt: int) -> float:
    """Return how long to wait after an attempt, with jitter, so that clients do not all come back at once."""
    longest = min(_FIRST_PAUSE_SECONDS * 2 ** min(attempt - 1, 10), _LONGEST_OWN_PAUSE_SECONDS)
    return random.uniform(0.0, longest)  # noqa: S311 - no secret


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
    """Lets requests through in the order they came, as the limits allow; belongs to one event loop."""

    def __init__(self, options: RemoteOptions) -> None:
        self._slots = anyio.Semaphore(options.max_concurrency)
        self._turn = anyio.Lock()
        self._requests = _Window(options.requests_per_minute)
        self._tokens = _Window(options.tokens_per_minute)
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


@dataclass(slots=True)
class ClientSession:
    """What belongs to one event loop: the client with its connections, and the limiter."""

    loop: asyncio.AbstractEventLoop
    transport: Transport
    limiter: RateLimiter
    scale_doubted: bool = False
    """Whether it was said that the scores do not look like the scale's."""

    async def send(
        self,
        scorer: RemoteModel,
        send: Callable[[SecretStr], Awaitable[T | RequestFailure]],
        *,
        tokens: int,
        private: Callable[[], Sequence[str]],
        begin_retry: Callable[[], bool],
    ) -> tuple[T | ScorerError, int]:
        """Return a service's answer, and how many attempts it took.

        An error is returned, not raised, so that no traceback holds a key or a text.

        Args:
            scorer: whose key, timeout and number of retries hold.
            send: sends the request of about so many ``tokens`` once.
            private: returns what no error may quote.
            begin_retry: called before each repetition; False where the call is over, so that there is none.
        """
        options, deadline, key = scorer.options, answer_deadline(), SecretStr("")
        most = options.max_retries + 1
        for attempt in count(1):
            outcome: T | RequestFailure
            outcome = RequestFailure("timeout", message=f"no answer within timeout={options.timeout} s")
            async with self.limiter.slot(tokens):
                with anyio.move_on_after(options.timeout):
                    try:
                        key = await scorer.fetch_key()
                    except Exception as exc:
                        # Its message stays out: it may quote the key.
                        outcome = RequestFailure("key", message=f"api_key= raised {type(exc).__name__}")
                    else:
                        outcome = await send(key)
            if not isinstance(outcome, RequestFailure):
                return outcome, attempt
            asked = outcome.retry_after or 0.0
            pause = asked or _backoff(attempt)
            is_late = asked > _LONGEST_PAUSE_SECONDS or anyio.current_time() + pause >= deadline
            if not outcome.may_pass or attempt >= most or is_late or not begin_retry():
                return outcome.without_quotes(key.get_secret_value(), private()).to_error(attempt), attempt
            self.limiter.pause(asked)
            _logger.warning(
                "%s: attempt %d of %d failed (%s), next in %.2f s",
                scorer.name,
                attempt,
                most,
                outcome.short,
                pause,
            )
            await anyio.sleep(pause)
        raise AssertionError("it returns")
