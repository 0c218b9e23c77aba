"""The HTTP client: requests and replies of limited size, written and read beside the event loop if large."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio
import httpx

from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import HttpReply
from rerank_core.remote.service import RemoteOptions

IDENTITY = {"Accept-Encoding": "identity"}
"""Asks for replies that are not compressed: few bytes could hold any number of them."""

_BASE_BYTES = 65_536
_BYTES_PER_TEXT = 1024
_ECHO_FACTOR = 3  # JSON escapes: "\u00e9" is six bytes for two
_LARGEST_BYTES = 64 * 1024 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class ReplyTooLargeError(Exception):
    """A reply is larger than an answer to the request can be."""


def max_reply_bytes(query: str, texts: Sequence[str]) -> int:
    """Return the most bytes that a reply may have: a kilobyte per text, and an echo of all texts.

    >>> max_reply_bytes("query", ["text"] * 1000)
    1101551
    """
    echo = sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for text in (query, *texts))
    return min(_BASE_BYTES + _BYTES_PER_TEXT * len(texts) + _ECHO_FACTOR * echo, _LARGEST_BYTES)


def encode_json(fields: Mapping[str, Any]) -> bytes:
    """Return a request's body, in many small steps, so that other threads are not held up."""
    return "".join(_ENCODER.iterencode(fields)).encode()


class HttpClient:
    """Sends requests by the client that the options name, or else by one of its own."""

    def __init__(self, options: RemoteOptions) -> None:
        connections = options.max_concurrency
        self._own = options.http_client is None
        self.client = options.http_client or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        )
        self._headers, self._timeout = options.headers, options.timeout

    async def fetch(
        self, url: str, headers: Mapping[str, str], most: int, content: bytes | None = None
    ) -> HttpReply:
        """Post JSON, or get what is at an address where there is no content; the options' headers win."""
        together = httpx.Headers(IDENTITY)
        for further in ({} if content is None else {"Content-Type": "application/json"}, headers, self._headers):
            together.update(further)  # whatever the case of their names
        request = self.client.build_request(
            "GET" if content is None else "POST",
            url,
            content=content,
            headers=together,
            timeout=self._timeout,
        )
        return await self.send_request(request, most)

    async def send_request(self, request: httpx.Request, most: int) -> HttpReply:
        """Send a request; refuse a success of more than ``most`` bytes, and leave out the body of such an error.

        A cancelled call never costs the client a connection: httpcore 1.0 keeps one for ever, unusable, whose
        request is cancelled between two of its steps. So it is cancelled only while it waits for something.
        """
        task = asyncio.create_task(self._send(request, most))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Nobody else asks how it ended, and asyncio would log that.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            _cancel_when_waiting(task)
            with anyio.CancelScope(shield=True):  # an anyio scope cancels every further wait too
                await asyncio.wait({task})
            raise
        return task.result()

    async def _send(self, request: httpx.Request, most: int) -> HttpReply:
        response = await self.client.send(request, stream=True, follow_redirects=False)
        pieces, encoding = response.aiter_raw(), response.headers.get("content-encoding", "")
        if response.is_stream_consumed:  # by a hook of the user's own client, which decompressed it
            pieces, encoding = response.aiter_bytes(), ""
        try:
            body = await read_body(pieces, encoding, most)
        except ReplyTooLargeError:
            if response.is_success:
                raise
            body = b""
        finally:
            await response.aclose()
        return HttpReply(response.status_code, response.headers, body)

    async def aclose(self) -> None:
        """Close the connections, but for those of the user's own client."""
        if self._own:
            await self.client.aclose()


def _cancel_when_waiting(task: asyncio.Task[Any]) -> None:
    """Cancel a task as soon as it waits for something that has not come, rather than for its turn."""
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is not None and not waiter.done():
        task.cancel()
    elif not task.done():
        task.get_loop().call_soon(_cancel_when_waiting, task)


async def read_body(pieces: AsyncIterator[bytes], encoding: str, most: int) -> bytes:
    """Return a body of so many bytes at most, decompressed no further than that."""
    decoder = zlib.decompressobj(47) if encoding.lower() in ("gzip", "deflate") else None
    if decoder is None and encoding.lower() not in ("", "identity"):
        raise httpx.DecodingError("not asked for")
    body = bytearray()
    async for piece in pieces:
        try:
            # One byte more than fits shows that it is too large; the rest is never made.
            body += piece if decoder is None else decoder.decompress(piece, most + 1 - len(body))
        except zlib.error as exc:
            raise httpx.DecodingError("broken") from exc
        if len(body) > most:
            raise ReplyTooLargeError
    if decoder is not None and not decoder.eof:
        raise httpx.DecodingError("cut off")
    return bytes(body)


def failure_of(error: Exception) -> RequestFailure:
    """Return what an exception of httpx, or of a client on top of it, means; its message stays out."""
    if isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
        return RequestFailure("timeout", message="no connection in time", was_sent=False)
    if isinstance(error, (httpx.TimeoutException, TimeoutError, asyncio.TimeoutError)):
        return RequestFailure("timeout", message="no answer in time")
    if isinstance(error, ReplyTooLargeError):
        return RequestFailure("invalid", message="the reply is larger than an answer to the request can be")
    if isinstance(error, httpx.DecodingError):
        return RequestFailure("invalid", message="the reply's content encoding is broken")
    if isinstance(error, (httpx.TransportError, OSError)):
        was_sent = not isinstance(error, (httpx.ConnectError, ConnectionRefusedError))
        return RequestFailure(
            "connection", message=f"no connection, or it broke ({type(error).__name__})", was_sent=was_sent
        )
    return RequestFailure("invalid", message=f"the client raised {type(error).__name__} at {_place(error)}")


def _place(error: Exception) -> str:
    """Return the file and line that raised: enough to look it up, without what the message may quote."""
    traceback = error.__traceback__
    if traceback is None:
        return "an unknown place"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
