"""From an HTTP reply to (index, score) pairs, or to the error that says what went wrong. Pure."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal

from rerank_core.errors import (
    AuthenticationError,
    InvalidResponseError,
    RateLimitError,
    RequestTooLargeError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)

__all__ = [
    "HttpReply",
    "ParsedReply",
    "RequestFailure",
    "ResponseFormat",
    "find_number",
    "parse_json",
    "read_refusal",
    "read_reply",
    "read_retry_after",
    "scores_by_index",
]

_RETRIED = frozenset({408, 409, 425, 429})
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-debug-trace-id")
_REQUEST_ID = re.compile(r"[\w.:/=+-]{1,100}")
_MAX_MESSAGE_CHARS = 200
_QUOTE_CHARS = 12
_MAX_COMPARED_CHARS = 1_000_000

_REFUSED_KEY = (AuthenticationError, "check the key, its permissions and the account's plan")
_UNAVAILABLE = (ScorerUnavailableError, "try again later, or see the service's status page")
_ERROR_BY_KIND: dict[str, tuple[type[ScorerError], str]] = {
    "connection": (ScorerUnavailableError, "check base_url, the network and proxies, and that the service is up"),
    "invalid": (InvalidResponseError, "check base_url and the service; nothing can be ranked from that"),
    "timeout": (ScorerTimeoutError, "give a longer timeout, or send fewer or shorter documents"),
    "too_large": (
        RequestTooLargeError,
        "set documents_per_request to what the service takes, or cut the documents",
    ),
}
_ERROR_BY_STATUS: dict[int, tuple[type[ScorerError], str]] = {
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


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP reply as it came; ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """Field names of a service's JSON response; paths are keys joined by dots.

    Attributes:
        results: path of the list of results; empty where the response is that list.
        score: key of a result's score.
        tokens: path of the number of tokens.
        search_units: path of the number of search units.
        tokens_header: header with the number of tokens, lower-case.
        too_large: statuses that mean more documents or tokens than the service takes.
    """

    results: str = "results"
    score: str = "relevance_score"
    tokens: str = "usage.total_tokens"
    search_units: str = "meta.billed_units.search_units"
    tokens_header: str | None = None
    too_large: frozenset[int] = frozenset({413})


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """A reply's pairs of index and score, not yet checked, and the usage that it reports (None: not reported)."""

    rows: Sequence[tuple[object, object]]
    tokens: int | None = None
    search_units: float | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why a request brought no scores.

    Attributes:
        kind: ``status``: the service refused; ``timeout``, ``connection``: no reply came; ``too_large``: more
            than the service takes; ``invalid``: a reply that cannot be read.
        status: HTTP status, None where no reply came.
        message: what is known, for people; the service's own message may quote the request, see
            :meth:`without_quotes`.
        retry_after: seconds that the service asks to wait, None where it does not.
        request_id: the service's name for the request.
    """

    kind: Literal["connection", "invalid", "status", "timeout", "too_large"]
    status: int | None = None
    message: str = ""
    retry_after: float | None = None
    request_id: str | None = None

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        if self.kind == "status":
            return self.status is not None and (self.status in _RETRIED or self.status >= 500)
        return self.kind in ("connection", "timeout")

    def without_quotes(self, private: Sequence[str]) -> RequestFailure:
        """Return the failure without its message where that holds a piece of a private string.

        Services repeat what they refuse (a validation error often holds the whole input), so a message is only
        passed on when no private string is in it, and no twelve characters of it are in a private string, and
        never where comparing would take longer than some milliseconds.
        """
        message = self.message
        if self.kind not in ("status", "too_large") or not message:
            return self  # our own words
        if sum(map(len, private)) > _MAX_COMPARED_CHARS:
            return replace(self, message="")
        last = max(1, len(message) - _QUOTE_CHARS + 1)
        windows = [message[start : start + _QUOTE_CHARS] for start in range(last)]
        for text in private:
            if text and (text in message or any(window in text for window in windows)):
                return replace(self, message="")
        return self

    def to_error(self, attempts: int) -> ScorerError:
        """Return the exception for a request that failed for good; repeats the message, so remove quotes first."""
        kind, fix = self._class_and_fix()
        facts = [f"{attempts} attempt{'s' if attempts != 1 else ''}"]
        if self.status is not None:
            facts.insert(0, f"status {self.status}{_phrase(self.status)}")
        if self.retry_after is not None:
            facts.append(f"it asks to wait {self.retry_after:g} s")
        if self.request_id is not None:
            facts.append(f"request id {self.request_id}")
        message = f": {self.message}" if self.message else ""
        error = kind(f"failed{message} ({', '.join(facts)}); {fix}")
        error.attempts, error.status, error.request_id = attempts, self.status, self.request_id
        return error

    def _class_and_fix(self) -> tuple[type[ScorerError], str]:
        if self.kind != "status" or self.status is None:
            return _ERROR_BY_KIND[self.kind]
        if self.status >= 500:
            return _UNAVAILABLE
        if self.status < 400:
            return ScorerError, "check base_url: a redirect is not followed, because the key would go with it"
        refused = (ScorerError, "check the model's name and the options")
        return _ERROR_BY_STATUS.get(self.status, _UNAVAILABLE if self.may_pass else refused)


def read_reply(reply: HttpReply, response_format: ResponseFormat) -> ParsedReply | RequestFailure:
    """Return a reply's indices and scores, or what is wrong with it."""
    payload = parse_json(reply.body)
    if not 200 <= reply.status < 300:
        return read_refusal(reply.status, reply.headers, payload, too_large=response_format.too_large)
    request_id = _request_id(reply.headers)

    def invalid(message: str) -> RequestFailure:
        return RequestFailure("invalid", reply.status, message, request_id=request_id)

    if payload is None:
        return invalid("the reply is not JSON")
    rows = payload if isinstance(payload, list) else _find(payload, response_format.results)
    if not isinstance(rows, list):
        return invalid(f"the reply has no list{response_format.results and f' at {response_format.results!r}'}")
    score = response_format.score
    if not all(isinstance(row, dict) and "index" in row and score in row for row in rows):
        return invalid(f"a result without 'index' or {score!r}")
    tokens = find_number(payload, response_format.tokens)
    if response_format.tokens_header is not None:
        tokens = _number(reply.headers.get(response_format.tokens_header))
    return ParsedReply(
        [(row["index"], row[score]) for row in rows],
        None if tokens is None else int(tokens),
        find_number(payload, response_format.search_units),
        request_id,
    )


def read_refusal(
    status: int | None,
    headers: Mapping[str, str],
    payload: object,
    *,
    too_large: frozenset[int] = frozenset({413}),
) -> RequestFailure:
    """Return why a service refused a request, of its status, its headers (in lower case) and its JSON body."""
    if status is None or 200 <= status < 300:
        return RequestFailure("invalid", status, "the reply cannot be read", request_id=_request_id(headers))
    kind: Literal["status", "too_large"] = "too_large" if status in too_large else "status"
    return RequestFailure(kind, status, _message(payload), read_retry_after(headers), _request_id(headers))


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a reply asks to wait: a number or a date (RFC 9110), None where it says nothing."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


def parse_json(body: bytes | str) -> Any:
    """Return a JSON document's value, None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def find_number(payload: object, path: str) -> float | None:
    """Return the count at a path of keys or attributes, None where there is none.

    Nothing is raised, because a call shall not fail for its usage.
    """
    return _number(_find(payload, path))


def _find(payload: Any, path: str) -> Any:
    for key in path.split("."):
        payload = payload.get(key) if isinstance(payload, dict) else getattr(payload, key, None)
    return payload


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _message(payload: object) -> str:
    """Return what an error's body says, where it says it in one of the usual places."""
    for key in ("message", "detail", "error"):
        value = payload.get(key) if isinstance(payload, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:_MAX_MESSAGE_CHARS]
    return ""


def _request_id(headers: Mapping[str, str]) -> str | None:
    values = (headers.get(name, "") for name in _REQUEST_ID_HEADERS)
    return next((value for value in values if _REQUEST_ID.fullmatch(value)), None)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def scores_by_index(rows: Iterable[tuple[object, object]], *, expected: int) -> list[object]:
    """Return scores in the order of the request, matched by index; the scores themselves are not checked.

    Raises:
        InvalidResponseError: an index that is no whole number, out of range, or there twice; or one missing.
    """
    scores: dict[int, object] = {}
    for index, score in rows:
        if isinstance(index, bool) or not isinstance(index, int):
            raise InvalidResponseError(
                f"returned an index that is a {type(index).__name__}: nothing can be ranked from that"
            )
        if not 0 <= index < expected:
            raise InvalidResponseError(f"returned index {index} for {expected} texts: it does not exist")
        if index in scores:
            raise InvalidResponseError(f"returned index {index} twice: one of the two must be wrong")
        scores[index] = score
    if len(scores) != expected:
        raise InvalidResponseError(
            f"returned {len(scores)} scores for {expected} texts: nothing can be ranked from that"
        )
    return [scores[index] for index in range(expected)]
