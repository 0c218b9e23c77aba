"""From what went wrong to the exception that says so."""

from __future__ import annotations

from http import HTTPStatus

from rerank_core.errors import (
    AuthenticationError,
    InvalidResponseError,
    RateLimitError,
    RequestTooLargeError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)
from rerank_core.remote.response import Failure

__all__ = ["error_of"]

_BY_KIND: dict[str, tuple[type[ScorerError], str]] = {
    "connection": (ScorerUnavailableError, "check base_url, the network and proxies, and that the service is up"),
    "invalid": (InvalidResponseError, "check base_url and the service; nothing can be ranked from that"),
    "timeout": (ScorerTimeoutError, "give a longer timeout, or send fewer or shorter documents"),
    "too_large": (
        RequestTooLargeError,
        "set documents_per_request to what the service takes, or cut the documents",
    ),
}
_REFUSED_KEY = (AuthenticationError, "check the key, its permissions and the account's plan")
_BY_STATUS: dict[int, tuple[type[ScorerError], str]] = {
    401: _REFUSED_KEY,
    402: _REFUSED_KEY,
    403: _REFUSED_KEY,
    404: (ScorerError, "check the model's name and base_url"),
    408: (ScorerTimeoutError, "send fewer or shorter documents, or try again later"),
    429: (
        RateLimitError,
        "set requests_per_minute, tokens_per_minute or max_concurrency to what your plan allows",
    ),
    498: _REFUSED_KEY,
}
_UNAVAILABLE = (ScorerUnavailableError, "try again later, or see the service's status page")
_ELSEWHERE = (ScorerError, "check base_url: a redirect is not followed, because the key would go with it")
_REFUSED = (ScorerError, "check the model's name and the options")


def error_of(failure: Failure, *, scorer: str, attempts: int) -> ScorerError:
    """Return the exception for a request that failed for good, with its attempts, status and request id.

    Args:
        failure: what came of the last attempt; its message is repeated, so it must quote nothing private.
        scorer: the scorer's name.
        attempts: how often the request was sent.
    """
    kind, fix = _class_and_fix(failure)
    facts = [f"{attempts} attempt{'s' if attempts != 1 else ''}"]
    if failure.status is not None:
        facts.insert(0, f"status {failure.status}{_phrase(failure.status)}")
    if failure.retry_after is not None:
        facts.append(f"it asks to wait {failure.retry_after:g} s")
    if failure.request_id is not None:
        facts.append(f"request id {failure.request_id}")
    message = f": {failure.message}" if failure.message else ""
    error = kind(f"{scorer} failed{message} ({', '.join(facts)}); {fix}")
    error.attempts = attempts
    error.status = failure.status
    error.request_id = failure.request_id
    return error


def _class_and_fix(failure: Failure) -> tuple[type[ScorerError], str]:
    if failure.kind != "status" or failure.status is None:
        return _BY_KIND[failure.kind]
    if failure.status >= 500:
        return _UNAVAILABLE
    if failure.status < 400:
        return _ELSEWHERE
    if failure.may_pass:
        return _BY_STATUS.get(failure.status, _UNAVAILABLE)
    return _BY_STATUS.get(failure.status, _REFUSED)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
