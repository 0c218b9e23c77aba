"""A reranker as a FastAPI application; needs the extra ``serve``.

It answers in the formats of Cohere, Jina AI and Text Embeddings Inference, so that their clients can use a local
model. Run it under uvicorn, or mount it into another application or a Ray Serve deployment.
Authentication, quotas and metrics are a gateway's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any
from uuid import uuid4

import anyio
from pydantic import BaseModel, BeforeValidator, Field

from rerank_core import errors
from rerank_core._support.checks import check_count, check_seconds
from rerank_core._support.extras import check_installed, require
from rerank_core.reranker import Reranker
from rerank_core.types import Ranking

check_installed("fastapi", extra="serve", purpose="rerank_tools.serve")

from fastapi import FastAPI, Request  # noqa: E402
from fastapi.exceptions import RequestValidationError  # noqa: E402
from fastapi.middleware.trustedhost import TrustedHostMiddleware  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from starlette.datastructures import Headers  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.types import ASGIApp, Message, Receive, Scope, Send  # noqa: E402

__all__ = ["LOCAL_HOSTS", "RerankRequest", "TeiRequest", "create_app", "limit_headers"]

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""What the header ``Host`` may be by default, so that no web page reaches the server by a name of its own."""

_STATUS = {
    errors.ConfigurationError: 400,
    errors.RequestTooLargeError: 413,
    errors.RateLimitError: 429,
    errors.ScorerTimeoutError: 503,
    errors.ScorerUnavailableError: 503,
}

_Query = Annotated[str, Field(pattern=r"\S", description="Not blank.")]


def _to_int(number: object) -> object:
    """Return 60.0 as 60, which is the same number in JSON."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


class _Text(BaseModel, strict=True):
    text: str


class RerankRequest(BaseModel, strict=True):
    """Body of ``/v2/rerank`` and ``/v1/rerank``; other fields, such as ``model``, are ignored."""

    query: _Query
    documents: list[str | _Text] = Field(min_length=1)
    top_n: Annotated[int | None, Field(ge=1), BeforeValidator(_to_int)] = None
    return_documents: bool = True


class TeiRequest(BaseModel, strict=True):
    """Body of ``/rerank``; other fields are ignored."""

    query: _Query
    texts: list[str] = Field(min_length=1)


def create_app(
    reranker: Reranker,
    *,
    max_documents: int = 1000,
    max_bytes: int = 16 * 2**20,
    body_seconds: float = 10.0,
    allowed_hosts: Sequence[str] = LOCAL_HOSTS,
) -> FastAPI:
    """Return an application that ranks by HTTP.

    ``POST /v2/rerank`` as Cohere's, ``/v1/rerank`` as Jina AI's, ``/rerank`` as TEI's; ``GET /health`` and
    ``/openapi.json``. A client that disconnects cancels its work. Requests of web pages (with ``Origin``) are
    refused. Unless it is mounted into another one, the application loads the model before its first request.

    Args:
        reranker: what ranks; its selection, timeout and model apply, but a request's ``top_n`` replaces its own.
        max_documents: documents of one request, at least 1; more is status 413.
        max_bytes: bytes of one request's body, at least 1; more is status 413.
        body_seconds: seconds until the whole body must have arrived, above 0; later is status 408.
        allowed_hosts: what the header ``Host`` may be; ``["*"]`` behind a gateway that checks it.

    Raises:
        ConfigurationError: a limit is out of its range.
    """
    check_count("max_documents", max_documents)
    check_count("max_bytes", max_bytes)
    check_seconds("body_seconds", body_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await reranker.awarm_up()
        yield
        await reranker.aclose()

    # No documentation pages: they would load scripts from elsewhere.
    app = FastAPI(
        title="rerank-bridge",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"default": {"description": "Not ranked: message and detail say why.", "content": {}}},
    )
    app.add_middleware(_Gate, max_bytes=max_bytes, body_seconds=body_seconds)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)

    async def rank(query: str, documents: Sequence[str | _Text], top_n: int | None) -> Ranking[str]:
        if len(documents) > max_documents:
            raise errors.RequestTooLargeError(f"{len(documents)} documents: send at most {max_documents}")
        texts = [document if isinstance(document, str) else document.text for document in documents]
        selection = replace(reranker.selection, top_n=top_n) if top_n else reranker.selection
        ranking = await reranker.arerank(query, texts, selection=selection)
        if ranking.error is not None:  # a passthrough has no scores to send
            raise ranking.error
        return ranking

    @app.post("/v2/rerank")
    async def rerank_as_cohere(body: RerankRequest) -> dict[str, Any]:
        ranking = await rank(body.query, body.documents, body.top_n)
        results = [{"index": row.index, "relevance_score": row.score} for row in ranking]
        return {"id": str(uuid4()), "results": results, "meta": {"billed_units": {"search_units": 0.0}}}

    @app.post("/v1/rerank")
    async def rerank_as_jina(body: RerankRequest) -> dict[str, Any]:
        ranking = await rank(body.query, body.documents, body.top_n)
        results: list[dict[str, Any]] = [{"index": row.index, "relevance_score": row.score} for row in ranking]
        for result, row in zip(results, ranking, strict=True):
            if body.return_documents:
                result["document"] = {"text": row.document}
        usage = {"total_tokens": ranking.usage.tokens}
        return {"model": ranking.model, "object": "list", "usage": usage, "results": results}

    @app.post("/rerank")
    async def rerank_as_tei(body: TeiRequest) -> list[dict[str, Any]]:
        return [{"index": row.index, "score": row.score} for row in await rank(body.query, body.texts, None)]

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": reranker.scorer.name}

    @app.exception_handler(errors.RerankError)
    async def write_error(_: Request, error: errors.RerankError) -> JSONResponse:
        return _problem(next((_STATUS[kind] for kind in _STATUS if isinstance(error, kind)), 500), str(error))

    @app.exception_handler(HTTPException)
    async def write_refusal(_: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def write_problems(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where the body is wrong, without its content.
        problems = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        return _problem(400, "; ".join(problems[:3]) + f"; and {len(problems) - 3} more" * (len(problems) > 3))

    return app


def limit_headers(seconds: float) -> type[asyncio.Protocol]:
    """Return what uvicorn's option ``http`` takes to close connections whose headers do not arrive in time.

    Args:
        seconds: from the connection, or from a later request's first byte, until the headers are there; above 0.
            uvicorn itself waits for ever, and answers others 503 meanwhile.

    Raises:
        ConfigurationError: it is out of its range.
    """
    check_seconds("seconds", seconds)
    base: Any = require("uvicorn.protocols.http.auto", extra="serve", purpose="limit_headers").AutoHTTPProtocol

    class LimitedHeaders(base):  # type: ignore[misc]
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.check_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.check_headers()

        def check_headers(self) -> None:
            if not (self.cycle is None or self.cycle.response_complete):
                self.end_timer()
            elif self.timer is None:  # shutdown() closes a connection without a request under way
                self.timer = self.loop.call_later(seconds, self.shutdown)

        def end_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            self.end_timer()
            super().connection_lost(exc)

    return LimitedHeaders


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    retry = {"Retry-After": "1"} if status in (429, 503) else {}
    return JSONResponse({"message": message, "detail": message}, status, {**retry, **(headers or {})})


class _Gate:
    """Checks headers and reads the body before the application sees a request; cancels it on disconnect."""

    def __init__(self, app: ASGIApp, max_bytes: int, body_seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            message = await self._read(Headers(scope=scope), receive)
        except HTTPException as refusal:
            await _problem(refusal.status_code, refusal.detail)(scope, receive, send)
            return
        messages = [message]

        async def replay() -> Message:
            if not messages:
                await anyio.sleep_forever()
            return messages.pop()

        async def cancel_on_disconnect() -> None:
            while (await receive())["type"] != "http.disconnect":
                continue
            work.cancel()

        with anyio.CancelScope() as work:
            watcher = asyncio.create_task(cancel_on_disconnect())
            try:
                await self._app(scope, replay, send)
            finally:
                watcher.cancel()

    async def _read(self, headers: Headers, receive: Receive) -> Message:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "send the content type application/json")
        if "origin" in headers:
            raise HTTPException(403, "requests of web pages are refused")
        announced = headers.get("content-length", "")
        size, body = int(announced) if announced.isdecimal() else 0, bytearray()
        with anyio.move_on_after(self._body_seconds):
            while size <= self._max_bytes:
                message = await receive()
                body += message.get("body", b"")
                size = max(size, len(body))
                if not message.get("more_body", False):  # the end of the body, or the client is gone
                    return {**message, "body": bytes(body)}
            raise HTTPException(413, f"the body has more than {self._max_bytes} bytes: send fewer documents")
        raise HTTPException(408, f"the body did not arrive within {self._body_seconds:g} s")
