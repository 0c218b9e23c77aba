"""The application: routes, the token, metrics, and what the API says of itself."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from time import perf_counter
from typing import Any

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rerank_core.reranker import Reranker
from rerank_tools.serve._metrics import CONTENT_TYPE, Metrics
from rerank_tools.serve._openapi import description
from rerank_tools.serve._wire import COHERE, JINA, Format
from rerank_tools.serve._work import Desk, RefusedError, answer
from rerank_tools.serve.limits import ServerLimits

__all__ = ["create_app"]

_GONE = 499
"""What web servers log for a client that did not wait; nobody reads the answer."""


def create_app(
    reranker: Reranker,
    *,
    limits: ServerLimits = ServerLimits(),  # noqa: B008 - frozen
    token: str | SecretStr | None = None,
) -> Starlette:
    """Return an ASGI application that ranks by HTTP.

    ``POST /v2/rerank`` as Cohere's, ``POST /v1/rerank`` as Jina AI's, ``GET /health``, ``GET /metrics`` for
    Prometheus and ``GET /openapi.json``. The model is loaded before the first request is taken, and ``/health``
    answers from then on. A client that disconnects cancels its work.

    Args:
        reranker: what ranks; its selection, timeout and model hold for every request, and a request's ``top_n``
            comes before its own.
        limits: what the server takes.
        token: what the two rerank routes ask for as ``Authorization: Bearer …``; None for no question.
    """
    server = _Server(reranker, limits, token.get_secret_value() if isinstance(token, SecretStr) else token)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - Starlette's signature
        await reranker.awarm_up()
        yield
        await reranker.aclose()

    return Starlette(
        routes=[
            *(Route(wire.path, server.ranks(wire), methods=["POST"]) for wire in (COHERE, JINA)),
            Route("/health", server.health, methods=["GET"]),
            Route("/metrics", server.metrics, methods=["GET"]),
            Route("/openapi.json", server.openapi, methods=["GET"]),
        ],
        lifespan=lifespan,
    )


class _Server:
    def __init__(self, reranker: Reranker, limits: ServerLimits, token: str | None) -> None:
        self._reranker = reranker
        self._desk = Desk(limits)
        self._token = None if token is None else token.encode()
        self._metrics = Metrics()

    def ranks(self, wire: Format) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of one wire format."""

        async def handle(request: Request) -> Response:
            started = perf_counter()
            try:
                response = await self._rank(request, wire)
            except RefusedError as refusal:
                response = JSONResponse(wire.error(refusal.message), refusal.status, refusal.headers)
            except ClientDisconnect:
                response = Response(status_code=_GONE)
            self._metrics.answered(wire.path, response.status_code, perf_counter() - started)
            return response

        return handle

    async def _rank(self, request: Request, wire: Format) -> Response:
        self._authorise(request)
        with self._desk.admitted():
            body, ranking = await answer(request, wire, self._reranker, self._desk.limits)
        self._metrics.consumed(ranking.usage)
        return JSONResponse(body)

    def _authorise(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # In constant time, so that the answer's delay does not spell the token.
        right = secrets.compare_digest(given.strip().encode(), self._token)
        if scheme.lower() != "bearer" or not right:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong: send Authorization: Bearer <token>",
                {"WWW-Authenticate": "Bearer"},
            )

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        return JSONResponse({"status": "ok", "model": self._reranker.scorer.name})

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        self._metrics.active(self._desk.active)
        return Response(self._metrics.page(), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        return JSONResponse(description(token=self._token is not None))
