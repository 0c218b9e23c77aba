"""A request's way through the server: admitted, read, checked, ranked, and given up when its client is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeVar

import anyio
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from rerank_core.errors import (
    ConfigurationError,
    RateLimitError,
    RequestTooLargeError,
    RerankError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)
from rerank_core.reranker import Reranker
from rerank_core.types import Ranking
from rerank_tools.serve._wire import Format
from rerank_tools.serve.limits import ServerLimits

__all__ = ["Desk", "RefusedError", "answer"]

T = TypeVar("T")

_STATUS: tuple[tuple[type[RerankError], HTTPStatus], ...] = (
    (ConfigurationError, HTTPStatus.BAD_REQUEST),
    (RequestTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (RateLimitError, HTTPStatus.TOO_MANY_REQUESTS),
    (ScorerTimeoutError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ScorerUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_MOST_PROBLEMS = 3


class RefusedError(RerankError):
    """A request that is not answered: the status, the message and the headers that say why."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class Desk:
    """Admits as many requests as the limits say; belongs to one event loop."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.active = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold one of the places.

        Raises:
            RefusedError: all of them are taken.
        """
        if self.active >= self.limits.requests:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.active} requests wait already: try again",
                {"Retry-After": str(self.limits.retry_after_seconds)},
            )
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


async def answer(
    request: Request, wire: Format, reranker: Reranker, limits: ServerLimits
) -> tuple[Any, Ranking[str]]:
    """Return the body of the answer, and the ranking that it was made of.

    Raises:
        RefusedError: the request is bad or too large, or the scorer failed.
        ClientDisconnect: the client is gone, and the work was cancelled.
    """
    body = await _body(request, limits.body_bytes)
    try:
        parsed = wire.request.model_validate_json(body)
    except ValidationError as exc:
        raise RefusedError(HTTPStatus.BAD_REQUEST, _problems(exc)) from None
    texts = parsed.texts()
    if len(texts) > limits.documents:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(texts)} documents: this server takes {limits.documents} a request, send several",
        )
    selection = replace(reranker.selection, top_n=parsed.top_n) if parsed.top_n else reranker.selection
    try:
        ranking = await _unless_gone(request, lambda: reranker.arerank(parsed.query, texts, selection=selection))
        if ranking.error is not None:
            raise ranking.error
    except RerankError as exc:
        status = next((status for kind, status in _STATUS if isinstance(exc, kind)), None)
        waiting = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        headers = {"Retry-After": str(limits.retry_after_seconds)} if waiting else None
        raise RefusedError(status or HTTPStatus.INTERNAL_SERVER_ERROR, str(exc), headers) from exc
    return wire.answer(parsed, ranking), ranking


async def _body(request: Request, limit: int) -> bytes:
    too_large = RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {limit} bytes: send fewer documents",
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _problems(error: ValidationError) -> str:
    """Say where the body is wrong, without repeating what it holds."""
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'the body'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


async def _unless_gone(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Await the work, and cancel it when the client disconnects."""
    results: list[T] = []
    failures: list[Exception] = []

    async def run() -> None:
        try:
            results.append(await work())
        except Exception as exc:  # in a task group it would come out wrapped
            failures.append(exc)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while (await request.receive())["type"] != "http.disconnect":
            continue
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    if not results:
        raise ClientDisconnect
    return results[0]
