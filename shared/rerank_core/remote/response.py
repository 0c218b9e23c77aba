"""From an HTTP reply to pairs of index and score. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerank_core.errors import InvalidResponseError
from rerank_core.remote.failure import RequestFailure, find_request_id, find_value, read_refusal, to_number
from rerank_core.types import Passage

_TOKENS = (
    "usage.total_tokens",
    "usage.input_tokens",
    "meta.tokens.input_tokens",
    "meta.billed_units.total_tokens",
    "total_tokens",
    "input_tokens",
)
_SEARCH_UNITS = ("meta.billed_units.search_units", "usage.search_units", "usage.rerank_units")
_COSTS = ("usage.cost", "inference_status.cost")
_TOKENS_HEADER = "x-compute-tokens"  # Text Embeddings Inference
_LARGE_BYTES = 100_000
BYTES_PER_STEP = 100
"""Of JSON, read in a microsecond."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP reply as it came; ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class ResponseFormat:
    """Field names of a service's JSON responses; paths are keys joined by dots.

    Attributes:
        results: path of the list of results; empty where the response is that list.
        index: key of a result's position in the request; under another key than ``index`` it may be a string.
        score: key of a result's score; empty where the list holds the scores, in the order of the request.
        tokens: path of the number of tokens, where it is not one of the usual ones.
        too_large: statuses that mean more documents or tokens than the service takes.
        too_long: words in the message of a 400 that mean a document is longer than the model reads.
        error_codes: statuses by the beginning of an error's code, for services whose errors have status 200.
    """

    results: str = "results"
    index: str = "index"
    score: str = "relevance_score"
    tokens: str = ""
    too_large: frozenset[int] = frozenset({413})
    too_long: str = ""
    error_codes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """A reply's pairs of index and score, not yet checked, and the usage that it reports, None where it does not.

    Attributes:
        cost: US dollars.
        passages: by index, the passage that the score is about.
        requests: how many it took, where a reply comes in pages.
        next_page: the token that asks for the next page.
    """

    rows: Sequence[tuple[object, object]]
    tokens: int | None = None
    search_units: float | None = None
    cost: float | None = None
    request_id: str | None = None
    passages: Mapping[int, Passage] = field(default_factory=dict)
    requests: int = 1
    next_page: object = None


def read_reply(reply: HttpReply, form: ResponseFormat) -> ParsedReply | RequestFailure:
    """Return a reply's indices and scores, or what is wrong with it."""
    payload = parse_json(reply.body)
    if not 200 <= reply.status < 300:
        return read_refusal(reply.status, reply.headers, payload, too_large=form.too_large, too_long=form.too_long)
    request_id = find_request_id(reply.headers)

    def invalid(message: str) -> RequestFailure:
        return RequestFailure("invalid", reply.status, message, request_id=request_id)

    if payload is None:
        return invalid("the reply is not JSON")
    results = payload if isinstance(payload, list) else find_value(payload, form.results)
    if not isinstance(results, list):
        status = _status_of_code(payload, form)
        if status is not None:
            return read_refusal(status, reply.headers, payload)
        return invalid(f"the reply has no list{form.results and f' at {form.results!r}'}")
    if form.score:
        if not all(isinstance(row, dict) and form.index in row and form.score in row for row in results):
            return invalid(f"a result without {form.index!r} or {form.score!r}")
        rows = [(row[form.index], row[form.score]) for row in results]
    else:
        rows = list(enumerate(results))
    if form.index != "index":
        rows = [(_whole_number(index), score) for index, score in rows]
    tokens = find_count(dict(reply.headers), _TOKENS_HEADER)
    if tokens is None:
        tokens = find_count(payload, *((form.tokens,) if form.tokens else _TOKENS))
    return ParsedReply(
        rows,
        tokens=tokens,
        search_units=find_number(payload, *_SEARCH_UNITS),
        cost=find_cost(reply.headers, payload, *_COSTS),
        request_id=request_id,
        next_page=find_value(payload, "nextToken"),
    )


def _status_of_code(payload: object, form: ResponseFormat) -> int | None:
    """Return the status that the code of an error with status 200 stands for, None where there is no code."""
    for path in ("error.code", "code"):
        code = find_value(payload, path)
        if isinstance(code, int) and 400 <= code < 600:
            return code
        if isinstance(code, str) and code:
            return next((status for known, status in form.error_codes.items() if code.startswith(known)), 400)
    return None


def _whole_number(index: object) -> object:
    return int(index) if isinstance(index, str) and index.isdecimal() and len(index) < 10 else index


def parse_json(body: bytes | str) -> Any:
    """Return a JSON document's value, None where it is none."""
    try:
        # Functions of Python's between objects and numbers let other threads run.
        hooks: Any = {"object_hook": _keep, "parse_float": _to_float} if len(body) > _LARGE_BYTES else {}
        return json.loads(body, **hooks)
    except (ValueError, RecursionError):
        return None


def _keep(value: dict[str, Any]) -> dict[str, Any]:
    return value


def _to_float(digits: str) -> float:
    return float(digits)


def find_number(payload: object, *paths: str) -> float | None:
    """Return the count at the first of these paths of keys or attributes that has one, None where none has."""
    return next((number for path in paths if (number := to_number(find_value(payload, path))) is not None), None)


def find_count(payload: object, *paths: str) -> int | None:
    """Return the whole number at the first of these paths that has a count."""
    number = find_number(payload, *paths)
    return None if number is None else int(number)


def find_cost(headers: Mapping[str, str], payload: object, *paths: str) -> float | None:
    """Return what a reply says that it cost, in US dollars: LiteLLM's header, or the count at one of the paths."""
    cost = to_number(headers.get("x-litellm-response-cost"))
    return find_number(payload, *paths) if cost is None else cost


def scores_by_index(rows: Iterable[tuple[object, object]], *, expected: int) -> list[object]:
    """Return scores in the order of the request, matched by index, which is checked; they themselves are not."""
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
