"""Bodies of requests and replies: never larger than expected, and made and read beside the event loop if large."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

IDENTITY = {"Accept-Encoding": "identity"}
"""Asks for replies that are not compressed: few bytes could hold any number of them."""

_BASE_BYTES = 65_536
_BYTES_PER_TEXT = 1024
_ECHO_FACTOR = 3  # JSON escapes: "\u00e9" is six bytes for two
_LARGEST_BYTES = 64 * 1024 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class ReplyTooLargeError(Exception):
    """A reply is larger than an answer to the request can be."""


@dataclass(slots=True)
class ExpectedReply:
    """The reply to a request that an SDK sends for us.

    The SDK gets an empty one: it would read it on the event loop, a result in 25 µs, and checks no type.

    Attributes:
        max_bytes: the most that the body of a success may have.
        body: that body.
    """

    max_bytes: int
    body: bytes = b""


def max_reply_bytes(query: str, texts: Sequence[str]) -> int:
    """Return the most bytes that a reply may have: a kilobyte per text, and an echo of all texts.

    >>> max_reply_bytes("query", ["text"] * 1000)
    1101551
    """
    echo = sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for text in (query, *texts))
    return min(_BASE_BYTES + _BYTES_PER_TEXT * len(texts) + _ECHO_FACTOR * echo, _LARGEST_BYTES)


async def read_body(response: httpx.Response, most: int) -> bytes:
    """Return the body of a streamed response, see :class:`BodyReader`; close it where the body is too large."""
    try:
        if response.is_stream_consumed:  # by a hook of the user's own client, which decompressed it
            reader = BodyReader("", most)
            reader.add(response.content)
            return reader.finish()
        reader = BodyReader(response.headers.get("content-encoding", ""), most)
        async for chunk in response.aiter_raw():
            reader.add(chunk)
        return reader.finish()
    finally:
        await response.aclose()


async def fetch(client: httpx.AsyncClient, request: httpx.Request, most: int) -> tuple[httpx.Response, bytes]:
    """Send a request and return the response and its body; an error's body is empty where it is too large.

    A cancelled call never costs the client a connection: httpcore 1.0 keeps one for ever, unusable, whose request
    is cancelled between two of its steps. So the request is cancelled only while it waits for something.

    Raises:
        ReplyTooLargeError: a body of success has more than ``most`` bytes.
    """
    task = asyncio.create_task(_fetch(client, request, most))
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


async def _fetch(client: httpx.AsyncClient, request: httpx.Request, most: int) -> tuple[httpx.Response, bytes]:
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        return response, await read_body(response, most)
    except ReplyTooLargeError:
        if response.is_success:
            raise
        return response, b""


def _cancel_when_waiting(task: asyncio.Task[Any]) -> None:
    """Cancel a task as soon as it waits for something that has not come, rather than for its turn."""
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is not None and not waiter.done():
        task.cancel()
    elif not task.done():
        task.get_loop().call_soon(_cancel_when_waiting, task)


class BodyReader:
    """Puts a body together from its pieces, and decompresses it as far as it is not too large.

    Args:
        encoding: the reply's ``Content-Encoding``.
        most: bytes that it may have, before and after decompression.

    Raises:
        httpx.DecodingError: the encoding is none of ``gzip``, ``deflate`` and none at all.
    """

    def __init__(self, encoding: str, most: int) -> None:
        self._body = bytearray()
        self._most = most
        self._decoder = zlib.decompressobj(47) if encoding.lower() in ("gzip", "deflate") else None
        if self._decoder is None and encoding.lower() not in ("", "identity"):
            raise httpx.DecodingError("not asked for")

    def add(self, chunk: bytes) -> None:
        """Add a piece.

        Raises:
            ReplyTooLargeError: the body has more bytes than it may.
            httpx.DecodingError: the compression is broken.
        """
        if self._decoder is not None:
            try:
                # One byte more than fits shows that it is too large; the rest is never made.
                chunk = self._decoder.decompress(chunk, self._most + 1 - len(self._body))
            except zlib.error as exc:
                raise httpx.DecodingError("broken") from exc
        if len(self._body) + len(chunk) > self._most:
            raise ReplyTooLargeError
        self._body += chunk

    def finish(self) -> bytes:
        """Return the body.

        Raises:
            httpx.DecodingError: compressed data is cut off.
        """
        if self._decoder is not None and not self._decoder.eof:
            raise httpx.DecodingError("cut off")
        return bytes(self._body)


def encode_json(fields: Mapping[str, Any]) -> bytes:
    """Return a request's body, in many small steps, so that other threads are not held up."""
    return "".join(_ENCODER.iterencode(fields)).encode()
