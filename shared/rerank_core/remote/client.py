"""What every client of a service needs: a key, an address, and what an exception of httpx means."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
import httpx
from pydantic import SecretStr

from rerank_core.errors import AuthenticationError, ConfigurationError, MissingKeyError
from rerank_core.remote.body import IDENTITY, ReplyTooLargeError, fetch
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import HttpReply
from rerank_core.remote.service import RemoteOptions


def first_variable(names: Sequence[str]) -> str | None:
    """Return the value of the first of these environment variables that is set and not blank."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def find_key(given: SecretStr | str | None, variables: Sequence[str], *, required: bool = True) -> SecretStr:
    """Return the key: the one given, else the first environment variable that is set; empty for none.

    Raises:
        MissingKeyError: there is none and one is required; names the variables.
        AuthenticationError: it cannot be sent.
    """
    key = check_key(given or "") or SecretStr(first_variable(variables) or "")
    if not key and required:
        where = f"set the environment variable {' or '.join(variables)}, or give api_key=" if variables else ""
        raise MissingKeyError(f"no key: {where or 'give api_key='}")
    return check_key(key)


def check_key(key: SecretStr | str) -> SecretStr:
    """Return a key without white space around it.

    Raises:
        AuthenticationError: no HTTP header can carry it.
    """
    key = SecretStr((key if isinstance(key, str) else key.get_secret_value()).strip())
    if not key.get_secret_value().isascii() or not key.get_secret_value().isprintable():
        raise AuthenticationError("the key holds characters that no HTTP header can carry: copy it again")
    return key


async def call_for_key(function: Callable[[], Any]) -> SecretStr:
    """Return the key that a function returns, or that its awaitable gives; it may block, so a thread runs it.

    Raises:
        AuthenticationError: it returns no key.
    """
    key = await anyio.to_thread.run_sync(function, abandon_on_cancel=True)
    if inspect.isawaitable(key):
        key = await key
    if not isinstance(key, (SecretStr, str)) or not key:
        raise AuthenticationError(f"the function that api_key= names returned a {type(key).__name__}, no key")
    return check_key(key)


def join_address(base_url: str, path: str) -> str:
    """Return an endpoint's address; what the base's end and the path's beginning have in common is there once.

    >>> join_address("https://host/v1", "/v1/rerank"), join_address("https://host", "/v1/rerank")
    ('https://host/v1/rerank', 'https://host/v1/rerank')
    """
    folders = path.split("/")
    for count in range(len(folders), 1, -1):
        common = "/".join(folders[:count])
        if base_url.endswith(common):
            return base_url + path[len(common) :]
    return base_url + path


def check_address(address: object) -> str:
    """Return an address without its last slash.

    Raises:
        ConfigurationError: it is no http or https address, or holds a password, a query or a fragment, which
            would show in names and logs.
    """
    text = address if isinstance(address, str) else ""
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url holds a user, a password, a query or a fragment: give the bare address, "
            "and the key as api_key="
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"base_url is {address!r}: give an address such as 'http://127.0.0.1:8080'")
    return text.rstrip("/")


def lower_names(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """Return headers by lower-case names."""
    return {name.lower(): value for name, value in (headers or {}).items()}


class HttpClient:
    """Sends requests by the client that the options name, or else by one of its own.

    Attributes:
        client: the one that sends.
    """

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
        """Post JSON, or get what is at an address where there is no content; the options' headers win.

        Raises:
            ReplyTooLargeError: a body of success has more than ``most`` bytes.
        """
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
        response, body = await fetch(self.client, request, most)
        return HttpReply(response.status_code, lower_names(response.headers), body)

    async def aclose(self) -> None:
        """Close the connections, but for those of the user's own client."""
        if self._own:
            await self.client.aclose()


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
