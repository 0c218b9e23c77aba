"""Voyage AI's rerank models, through Voyage AI's own SDK."""

from __future__ import annotations

import asyncio
import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr

from rerank_core._support.extras import check_installed, require
from rerank_core.errors import AuthenticationError, ConfigurationError
from rerank_core.remote._httpx import failure_of
from rerank_core.remote.response import Failure, Reply, Wire
from rerank_core.remote.scorer import ModelFacts, RemoteScorer, Service, Transport
from rerank_core.remote.splitting import Limits

__all__ = ["SERVICE", "VoyageScorer"]

_INSTRUCTIONS = "{instruction}\n{query}"
_KEY_FILE = "VOYAGE_API_KEY_PATH"
_LARGE_BYTES = 2**20
"""From here on aiohttp wants a stream: it would write bytes at once, and hold up the loop."""


def _facts(pair: int | None, instructions: str | None = _INSTRUCTIONS) -> ModelFacts:
    return ModelFacts(Limits(documents=1000, tokens=600_000, pair=pair), instructions)


SERVICE = Service(
    "voyage",
    key_variables=(_KEY_FILE, "VOYAGE_API_KEY"),
    wire=Wire(results="data"),
    models=MappingProxyType(
        {
            "rerank-2": _facts(16_000, None),
            "rerank-2-lite": _facts(8_000, None),
            "rerank-2.5": _facts(32_000),
            "rerank-2.5-lite": _facts(32_000),
            "rerank-3": _facts(None),
            "rerank-3-lite": _facts(None),
        }
    ),
    default=ModelFacts(Limits(documents=1000, tokens=600_000), _INSTRUCTIONS),
)


@dataclass(frozen=True)
class VoyageScorer(RemoteScorer):
    """A rerank model of Voyage AI, such as ``rerank-2.5``.

    A request holds at most 1,000 documents and 600,000 tokens, the query counted once a document. The key is
    ``api_key``, else the content of the file that ``VOYAGE_API_KEY_PATH`` names, else ``VOYAGE_API_KEY``.
    Models from rerank-2.5 on follow an ``instruction``.

    Attributes:
        truncation: let Voyage cut pairs of query and document that are too long; otherwise it refuses them.

    Raises:
        AuthenticationError: there is no key, or the file cannot be read.
        ConfigurationError: an option is out of its range, or the model follows no instruction.
        MissingExtraError: the SDK is not installed.
    """

    truncation: bool = True

    def __post_init__(self) -> None:
        check_installed("voyageai", extra="voyage", purpose="voyage:")
        if not isinstance(self.truncation, bool):
            raise ConfigurationError(f"truncation is {self.truncation!r}: give True or False")
        super().__post_init__()

    @property
    def service(self) -> Service:
        """Voyage AI."""
        return SERVICE

    def find_key(self) -> SecretStr:
        """Return the key, from the options, the key file or the environment, as the SDK looks for it."""
        path = os.environ.get(_KEY_FILE)
        if self.api_key is None and path:
            return _key_in(Path(path), self.name)
        return super().find_key()

    def open_transport(self) -> Transport:
        """Return a client of Voyage AI's SDK."""
        return _VoyageTransport(self)


def _key_in(path: Path, scorer: str) -> SecretStr:
    try:
        key = SecretStr(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        key = SecretStr("")
    if not key:
        raise AuthenticationError(
            f"{scorer} has no key: {_KEY_FILE} names {path}, which cannot be read or is empty"
        )
    return key


class _VoyageTransport:
    def __init__(self, scorer: VoyageScorer) -> None:
        self._sdk: Any = require("voyageai", extra="voyage", purpose=scorer.name)
        self._aiohttp: Any = require("aiohttp", extra="voyage", purpose=scorer.name)
        self._client: Any = self._sdk.AsyncClient(
            scorer.secret(), max_retries=0, timeout=scorer.timeout, base_url=_versioned(scorer.base_url)
        )
        self._options = {"model": scorer.model, "truncation": scorer.truncation}
        self._connections = scorer.max_concurrency
        self._session: Any = None
        self._proxy_for = functools.cache(_proxy_for)

    async def send(self, query: str, texts: Sequence[str]) -> Reply | Failure:
        if self._session is None:
            # Made here, because it belongs to the running loop. The SDK alone would open one for each request.
            connector = self._aiohttp.TCPConnector(limit=self._connections)
            self._session = self._aiohttp.ClientSession(connector=connector)
        tap = _Tap(self._session, self._proxy_for)
        token = self._sdk.aiosession.set(tap)
        failure: Failure | None = None
        try:
            await self._client.rerank(query, list(texts), top_k=len(texts), **self._options)
        except Exception as exc:
            failure = self._failure_of(exc)
        finally:
            self._sdk.aiosession.reset(token)
        # Whatever the SDK made of it, the reply itself says more: see _Tap.
        return tap.reply or failure or Failure("invalid", message="the client sent nothing")

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _failure_of(self, error: Exception) -> Failure:
        if isinstance(error, (self._sdk.error.Timeout, asyncio.TimeoutError)):
            return Failure("timeout", message="no answer in time")
        if isinstance(error, (self._sdk.error.APIConnectionError, self._aiohttp.ClientError, OSError)):
            cause = error.__cause__ or error
            return Failure("connection", message=f"no connection, or it broke ({type(cause).__name__})")
        return failure_of(error)


def _versioned(address: str | None) -> str | None:
    """Return an address as the SDK wants it: ending in ``/v1``."""
    return address if address is None or address.endswith("/v1") else f"{address}/v1"


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for an address; the SDK looks for none.

    aiohttp's own ``trust_env`` would also replace the key by what a netrc file holds.
    """
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


class _Tap:
    """What the SDK takes for its aiohttp session, for one request: keeps the reply as it came.

    The SDK loses the status of 501 and 520 upwards, takes index -1 for the last document, and wraps every result
    in two objects, which takes four fifths of a call's processor time. So it is shown an empty list, and results
    are read from the reply, once and checked.
    """

    def __init__(self, session: Any, proxy_for: Callable[[str], str | None]) -> None:
        self._session = session
        self._proxy_for = proxy_for
        self.reply: Reply | None = None

    async def request(self, *, url: str, data: bytes, **options: Any) -> _Shown:
        stream = data if len(data) <= _LARGE_BYTES else io.BytesIO(data)
        options = {**options, "proxy": options.get("proxy") or self._proxy_for(url), "allow_redirects": False}
        async with self._session.request(url=url, data=stream, **options) as response:
            body = await response.read()
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.reply = Reply(response.status, headers, body)
        return _Shown(response.status, headers, body)


class _Shown:
    """As much of an aiohttp response as the SDK looks at."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {"Content-Type": headers.get("content-type", "")}
        self._body = body if status != 200 else b'{"data": [], "usage": {"total_tokens": 0}}'

    async def read(self) -> bytes:
        return self._body

    def release(self) -> None:
        """Nothing is held."""
