"""Repeats a request that failed, as the options, the service and the deadline allow."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.rate_limit import RateLimiter
from rerank_core.remote.service import RemoteModel

T = TypeVar("T")

_logger = logging.getLogger("rerank_core")

_LONGEST_PAUSE_SECONDS = 60.0
_backoff = wait_random_exponential(multiplier=0.5, max=20.0)


async def send_with_retries(
    attempt: Callable[[], Awaitable[T | RequestFailure]],
    scorer: RemoteModel,
    limiter: RateLimiter,
    *,
    deadline: float,
    is_over: Callable[[], bool] = lambda: False,
    before_retry: Callable[[], None] = lambda: None,
) -> tuple[T | RequestFailure, int]:
    """Return the outcome of the last attempt, and how many there were.

    Args:
        attempt: sends the request once.
        scorer: whose request it is.
        limiter: pauses for as long as the service asks.
        deadline: when no further attempt may begin, as anyio counts time.
        is_over: whether the call has failed already, so that no further attempt begins.
        before_retry: called before each repetition.
    """
    most = scorer.options.max_retries + 1

    def stop(state: RetryCallState) -> bool:
        return (
            state.attempt_number >= most
            or is_over()
            or (_failure(state).retry_after or 0.0) > _LONGEST_PAUSE_SECONDS
            or anyio.current_time() + state.upcoming_sleep >= deadline
        )

    def before_sleep(state: RetryCallState) -> None:
        failure = _failure(state)
        before_retry()
        if failure.retry_after is not None:
            limiter.pause(failure.retry_after)
        _logger.warning(
            "%s: attempt %d of %d failed (%s), next in %.2f s",
            scorer.name,
            state.attempt_number,
            most,
            failure.short,
            state.upcoming_sleep,
        )

    retrying = AsyncRetrying(
        sleep=anyio.sleep,
        retry=retry_if_result(lambda outcome: isinstance(outcome, RequestFailure) and outcome.may_pass),
        wait=_wait,
        stop=stop,
        before_sleep=before_sleep,
        retry_error_callback=_failure,
    )
    outcome: T | RequestFailure = await retrying(attempt)
    return outcome, int(retrying.statistics["attempt_number"])


def _wait(state: RetryCallState) -> float:
    """Return how long the service asks to wait; the usual time where it says nothing, 0 or a past date."""
    return _failure(state).retry_after or _backoff(state)


def _failure(state: RetryCallState) -> RequestFailure:
    outcome = None if state.outcome is None else state.outcome.result()
    return outcome if isinstance(outcome, RequestFailure) else RequestFailure("invalid")
