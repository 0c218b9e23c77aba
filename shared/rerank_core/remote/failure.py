"""Why a request brought no scores, and the exception that says so. Pure."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any, Literal

from rerank_core._support.tables import UNSAFE_CHARACTERS
from rerank_core.errors import (
    AuthenticationError,
    InvalidResponseError,
    RateLimitError,
    RequestTooLargeError,
    RerankError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)

_RETRIED = frozenset({408, 409, 424, 425, 429})
_NOT_DONE = frozenset({501, 503, 529})  # from 500 on, the statuses that mean that nothing was done
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-debug-trace-id", "x-amzn-requestid", "opc-request-id")
_REQUEST_ID = re.compile(r"[\w.:/=+-]{1,100}")
_MAX_MESSAGE_CHARS = 200
_QUOTE_CHARS = 12
_KEY_QUOTE_CHARS = 6
_MAX_COMPARED_CHARS = 1_000_000

_REFUSED_KEY = (AuthenticationError, "check the key, its permissions and the account's plan")
_UNAVAILABLE = (ScorerUnavailableError, "try again later, or see the service's status page")
_REFUSED = (ScorerError, "check the model's name and the options")
_REDIRECT = (ScorerError, "check base_url: a redirect is not followed, because the key would go with it")
_ERRORS: Mapping[str | int | None, tuple[type[ScorerError], str]] = {
    "connection": (ScorerUnavailableError, "check base_url, the network and proxies, and that the service is up"),
    "invalid": (InvalidResponseError, "check base_url and the service; nothing can be ranked from that"),
    "key": (AuthenticationError, "see to the function that api_key= names, or to what keeps the credentials"),
    "timeout": (ScorerTimeoutError, "give a longer timeout, or send fewer or shorter documents"),
    "too_large": (
        RequestTooLargeError,
        "set documents_per_request to what the service takes, or cut the documents",
    ),
    "too_long": (RequestTooLargeError, "cut the documents, or wrap the scorer in rerank_core.policies.Windowed"),
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
"""By the kind of failure, or the status where the service refused: the exception, and what to do."""


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why a request brought no scores.

    Attributes:
        kind: ``too_large``: more documents than the service takes, ``too_long``: a longer one; ``invalid``: a
            reply that cannot be read; ``key``: what returns the key or the credentials failed.
        status: None where no reply came; of an error with status 200 what its code means.
        message: the service's own one may quote the request, see :meth:`without_quotes`.
        retry_after: seconds that the service asks to wait.
        was_sent: whether the request may have reached the service.
        requests: how many were sent, where an answer comes in pages.
    """

    kind: Literal["connection", "invalid", "key", "status", "timeout", "too_large", "too_long"]
    status: int | None = None
    message: str = ""
    retry_after: float | None = None
    request_id: str | None = None
    was_sent: bool = True
    requests: int = 1

    @property
    def may_be_billed(self) -> bool:
        """Whether the service may have done the work: its answer was lost, or could not be read."""
        if self.kind == "status":
            return (self.status or 0) >= 500 and self.status not in _NOT_DONE
        return self.kind in ("connection", "invalid", "timeout") and self.was_sent

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        if self.kind == "status":
            return (self.status or 0) >= 500 or self.status in _RETRIED
        return self.kind in ("connection", "timeout")

    @property
    def short(self) -> str:
        """The kind, and the status where there is one, for logs."""
        return self.kind if self.status is None else f"{self.kind} {self.status}"

    def without_quotes(self, key: str, private: Sequence[str]) -> RequestFailure:
        """Return the failure without its message and request id where they hold a piece of something private.

        Services repeat what they refuse (a validation error often holds the whole input). So a message is dropped
        that holds a private string or twelve characters of one, or that would take long to compare.
        """
        is_theirs = self.kind in ("status", "too_large", "too_long")  # otherwise it is in our own words
        too_long = sum(map(len, private)) > _MAX_COMPARED_CHARS

        def is_private(said: str) -> bool:
            return quotes_key(said, key) or too_long or _quotes(said, private)

        return replace(
            self,
            message="" if is_theirs and is_private(self.message) else self.message,
            request_id=None if self.request_id is None or is_private(self.request_id) else self.request_id,
        )

    def to_error(self, attempts: int) -> ScorerError:
        """Return the exception for a request that failed for good; repeats the message, so remove quotes first."""
        unknown = _UNAVAILABLE if self.may_pass else _REDIRECT if (self.status or 400) < 400 else _REFUSED
        kind, fix = _ERRORS.get(self.status if self.kind == "status" else self.kind, unknown)
        facts = [f"{attempts} attempt{'s' if attempts != 1 else ''}"]
        if self.status is not None:
            phrase = responses.get(self.status, "")
            facts.insert(0, f"status {self.status} {phrase}".rstrip())
        if self.retry_after is not None:
            facts.append(f"it asks to wait {self.retry_after:g} s")
        if self.request_id is not None:
            facts.append(f"request id {self.request_id}")
        message = f": {self.message}" if self.message else ""
        error = kind(f"failed{message} ({', '.join(facts)}); {fix}")
        error.attempts, error.status, error.request_id = attempts, self.status, self.request_id
        return error


def quotes_key(said: str, key: str) -> bool:
    """Tell whether a text holds six letters and digits of a key in a row, whatever is between them.

    >>> quotes_key("no such key: sk-12 34-5x", "sk-12345"), quotes_key("the key that ends in 45", "sk-12345")
    (True, False)
    """
    said, key = (re.sub(r"[\W_]", "", text).lower() for text in (said, key))
    return bool(key) and any(window in said for window in _windows(key, _KEY_QUOTE_CHARS))


def _quotes(said: str, private: Sequence[str]) -> bool:
    windows = _windows(said, _QUOTE_CHARS)
    return any(text and (text in said or any(window in text for window in windows)) for text in private)


def _windows(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(max(1, len(text) - size + 1))]


def read_refusal(
    status: int | None,
    headers: Mapping[str, str],
    payload: object,
    *,
    too_large: frozenset[int] = frozenset({413}),
    too_long: str = "",
) -> RequestFailure:
    """Return why a service refused a request; a status of success, or None, is a reply that cannot be read.

    ``headers`` are by lower-case names, ``payload`` is the parsed body; for the others see
    :class:`~rerank_core.remote.response.ResponseFormat`.
    """
    if status is None or 200 <= status < 300:
        return RequestFailure("invalid", status, "the reply cannot be read", request_id=find_request_id(headers))
    message = _message(payload)
    kind: Literal["status", "too_large", "too_long"] = "too_large" if status in too_large else "status"
    if status == 400 and too_long and too_long in message:
        kind = "too_long"
    return RequestFailure(kind, status, message, read_retry_after(headers), find_request_id(headers))


@contextmanager
def errors_by_status() -> Iterator[None]:
    """Raise what the HTTP status of another client's exception means; other exceptions pass through."""
    try:
        yield
    except RerankError:
        raise
    except Exception as exc:
        status = find_value(exc, "status_code") or find_value(exc, "response.status_code")
        if not isinstance(status, int) or not 300 <= status < 600:
            raise
        raise read_refusal(status, {}, None).to_error(1) from exc


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a reply asks to wait: a number or a date (RFC 9110), None where it says nothing."""
    milliseconds = to_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("retry-after")
    seconds = to_number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


def to_number(value: object) -> float | None:
    """Return a count that a service reported, None where it is none: a call shall not fail for its usage."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def find_value(payload: Any, path: str) -> Any:
    """Return what is at a path of keys or attributes, None where there is nothing."""
    for key in path.split("."):
        payload = payload.get(key) if isinstance(payload, dict) else getattr(payload, key, None)
    return payload


def _message(payload: object) -> str:
    """Return what an error's body says in one of the usual places, without what could control a terminal."""
    for key in ("message", "detail", "error"):
        value = payload.get(key) if isinstance(payload, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            return UNSAFE_CHARACTERS.sub("\ufffd", " ".join(value.split()))[:_MAX_MESSAGE_CHARS]
    return ""


def find_request_id(headers: Mapping[str, Any]) -> str | None:
    """Return the service's name for a request, of the headers in lower case."""
    values = (headers.get(name) for name in _REQUEST_ID_HEADERS)
    return next((value for value in values if isinstance(value, str) and _REQUEST_ID.fullmatch(value)), None)
