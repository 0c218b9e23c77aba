"""From an HTTP reply to rows of (index, score), or to what went wrong. Pure."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from rerank_core.errors import InvalidResponseError

__all__ = ["Answer", "Failure", "Reply", "Wire", "read_reply", "retry_after", "scores_by_index"]

_RETRIED = frozenset({408, 409, 425, 429})
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-debug-trace-id")
_REQUEST_ID = re.compile(r"[\w.:/=+-]{1,100}")
_MESSAGE_CHARS = 200
_QUOTE_CHARS = 12
_MOST_COMPARED_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer as it came; ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Wire:
    """Where a service's answers keep what.

    Attributes:
        results: path of the list of results, its keys joined by dots; empty where the answer is that list.
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
class Answer:
    """An answer's rows of (index, score), unchecked, and the usage that came with it (None: not reported)."""

    rows: Sequence[tuple[object, object]]
    tokens: int | None = None
    search_units: float | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request brought no answer.

    Attributes:
        kind: ``status``: the service refused; ``timeout``, ``connection``: no reply came; ``too_large``: more
            than the service takes; ``invalid``: a reply that is no answer.
        status: HTTP status, None where no reply came.
        message: what is known, for people; from :func:`read_reply` it may quote the request, see
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

    def without_quotes(self, private: Sequence[str]) -> Failure:
        """Return the failure without its message where that holds a piece of a private string.

        Services repeat what they refuse (a validation error often holds the whole input), so a message is only
        passed on when no private string is in it, and no twelve characters of it are in a private string, and
        never where comparing would take longer than some milliseconds.
        """
        message = self.message
        if self.kind not in ("status", "too_large") or not message:
            return self  # our own words
        if sum(map(len, private)) > _MOST_COMPARED_CHARS:
            return replace(self, message="")
        last = max(1, len(message) - _QUOTE_CHARS + 1)
        windows = [message[start : start + _QUOTE_CHARS] for start in range(last)]
        for text in private:
            if text and (text in message or any(window in text for window in windows)):
                return replace(self, message="")
        return self


def read_reply(reply: Reply, wire: Wire) -> Answer | Failure:
    """Return a reply's rows, or what is wrong with it."""
    request_id = _request_id(reply.headers)
    payload = _payload(reply.body)
    if not 200 <= reply.status < 300:
        return Failure(
            "too_large" if reply.status in wire.too_large else "status",
            reply.status,
            _message(payload),
            retry_after(reply.headers),
            request_id,
        )
    if payload is None:
        return Failure("invalid", reply.status, "the reply is not JSON", request_id=request_id)
    rows = payload if isinstance(payload, list) else _at(payload, wire.results)
    if not isinstance(rows, list):
        where = f"no list at {wire.results!r}" if wire.results else "no list"
        return Failure("invalid", reply.status, f"the reply has {where}", request_id=request_id)
    if not all(isinstance(row, dict) and "index" in row and wire.score in row for row in rows):
        message = f"a result without 'index' or {wire.score!r}"
        return Failure("invalid", reply.status, message, request_id=request_id)
    tokens = reply.headers.get(wire.tokens_header) if wire.tokens_header else _at(payload, wire.tokens)
    search_units = _number(_at(payload, wire.search_units))
    whole_tokens = _number(tokens)
    return Answer(
        [(row["index"], row[wire.score]) for row in rows],
        None if whole_tokens is None else int(whole_tokens),
        search_units,
        request_id,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
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


def _payload(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _at(payload: Any, path: str) -> Any:
    for key in path.split("."):
        payload = payload.get(key) if isinstance(payload, dict) else None
    return payload


def _number(value: Any) -> float | None:
    """Return a count that a service reported, None where it is none: usage is worth no failed call."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _message(payload: Any) -> str:
    """Return what an error's body says, where it says it in one of the usual places."""
    for key in ("message", "detail", "error"):
        value = _at(payload, key)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:_MESSAGE_CHARS]
    return ""


def _request_id(headers: Mapping[str, str]) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name, "")
        if _REQUEST_ID.fullmatch(value):
            return value
    return None


def scores_by_index(rows: Iterable[tuple[object, object]], *, expected: int) -> list[object]:
    """Return the scores of an answer in the order of the request, matched by index, not yet checked themselves.

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
