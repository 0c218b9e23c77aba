"""Sends a request when its turn comes, and again where that may help."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from rerank_core._call.asking import answer_deadline
from rerank_core.errors import ScorerError
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.service import RemoteModel, RemoteOptions, Transport

T = TypeVar("T")

_logger = logging.getLogger("rerank_core")

_WINDOW_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 60.0
_backoff = wait_random_exponential(multiplier=0.5, max=20.0)


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

        async def attempt() -> T | RequestFailure:
            nonlocal key
            async with self.limiter.slot(tokens):
                with anyio.move_on_after(options.timeout):
                    try:
                        key = await scorer.fetch_key()
                    except Exception as exc:
                        # Its message stays out: it may quote the key.
                        return RequestFailure("key", message=f"api_key= raised {type(exc).__name__}")
                    return await send(key)
            return RequestFailure("timeout", message=f"no answer within timeout={options.timeout} s")

        def stop(state: RetryCallState) -> bool:
            asked = _failure(state).retry_after or 0.0
            is_late = asked > _LONGEST_PAUSE_SECONDS or anyio.current_time() + state.upcoming_sleep >= deadline
            return state.attempt_number > options.max_retries or is_late or not begin_retry()

        def before_sleep(state: RetryCallState) -> None:
            self.limiter.pause(_failure(state).retry_after or 0.0)
            _logger.warning(
                "%s: attempt %d of %d failed (%s), next in %.2f s",
                scorer.name,
                state.attempt_number,
                options.max_retries + 1,
                _failure(state).short,
                state.upcoming_sleep,
            )

        retrying = AsyncRetrying(
            sleep=anyio.sleep,
            retry=retry_if_result(lambda outcome: isinstance(outcome, RequestFailure) and outcome.may_pass),
            wait=lambda state: _failure(state).retry_after or _backoff(state),
            stop=stop,
            before_sleep=before_sleep,
            retry_error_callback=_failure,
        )
        outcome: T | RequestFailure = await retrying(attempt)
        attempts = int(retrying.statistics["attempt_number"])
        if isinstance(outcome, RequestFailure):
            return outcome.without_quotes(key.get_secret_value(), private()).to_error(attempts), attempts
        return outcome, attempts


def _failure(state: RetryCallState) -> RequestFailure:
    outcome = None if state.outcome is None else state.outcome.result()
    return outcome if isinstance(outcome, RequestFailure) else RequestFailure("invalid")
