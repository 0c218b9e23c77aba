"""Voyage AI's rerank models, through Voyage AI's own SDK."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr

from rerank_core._call.event_loop import arun_for_sdk
from rerank_core._support.checks import check_choice
from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, MissingKeyError
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.remote.access import check_key, join_address
from rerank_core.remote.client import IDENTITY, ReplyTooLargeError, failure_of, max_reply_bytes, read_body
from rerank_core.remote.failure import RequestFailure, read_refusal
from rerank_core.remote.response import ParsedReply, find_count, parse_json
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions, Service, Transport

__all__ = ["SERVICE", "VoyageOptions", "VoyageScorer"]

_FOLLOWS = ModelFacts(instructions="{instruction}\n{query}")
_FOLLOWS_32K = replace(_FOLLOWS, limits=Limits(pair=32_000))
_KEY_FILE = "VOYAGE_API_KEY_PATH"
_ADDRESS = "https://api.voyageai.com/v1"  # or MongoDB's, for keys that begin with "al-": the SDK chooses
_STATUSES_OF_SDK = frozenset({502, 503, 504})

_max_bytes: ContextVar[int | None] = ContextVar("rerank_core_voyage_max_bytes", default=None)
"""The most bytes that the reply to our own request under way may have; None in requests of the user's own."""

SERVICE = Service(
    provider="voyage",
    key_variables=(_KEY_FILE, "VOYAGE_API_KEY"),
    limits=Limits(documents=1000, tokens=600_000),
    models=MappingProxyType(
        {
            "rerank-2": ModelFacts(Limits(pair=16_000)),
            "rerank-2-lite": ModelFacts(Limits(pair=8_000)),
            "rerank-2.5": _FOLLOWS_32K,
            "rerank-2.5-lite": _FOLLOWS_32K,
            "rerank-3": _FOLLOWS_32K,
            "rerank-3-lite": _FOLLOWS_32K,
        }
    ),
    default=_FOLLOWS,
)


@dataclass(frozen=True, kw_only=True)
class VoyageOptions(RemoteOptions):
    """Options of :class:`VoyageScorer`.

    Attributes:
        truncation: let Voyage cut pairs of query and document that are too long; otherwise it refuses them.
    """

    truncation: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("truncation", self.truncation, (True, False))
        if self.body or self.http_client is not None:
            raise ConfigurationError(
                "Voyage AI's SDK takes neither body= nor http_client=: send without it, by "
                "'http:https://api.voyageai.com/v1#<model>' with format={'results': 'data', 'top': 'top_k'}"
            )


class VoyageScorer(RemoteScorer):
    """A rerank model of Voyage AI, such as ``rerank-2.5``.

    A request holds at most 1,000 documents and 600,000 tokens, the query counted once per document. The key is
    ``api_key``, else the content of the file that ``VOYAGE_API_KEY_PATH`` names, else ``VOYAGE_API_KEY``.
    Models from rerank-2.5 on follow an ``instruction``.
    """

    Options: ClassVar[type[RemoteOptions]] = VoyageOptions
    options: VoyageOptions
    provider = "voyage"
    service = SERVICE
    sdk = "voyageai"

    def open_transport(self) -> Transport:
        """Return a client of Voyage AI's SDK."""
        return _VoyageTransport(self)

    def _find_key(self) -> SecretStr:
        """Return the key, from the options, the key file or the environment, as the SDK looks for it."""
        path = os.environ.get(_KEY_FILE)
        if self.options.api_key is not None or not path:
            return super()._find_key()
        try:
            key = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            key = ""
        if not key.strip():
            raise MissingKeyError(f"no key: {_KEY_FILE} names {path}, which cannot be read or is empty")
        return check_key(key)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether the SDK's logger says it: it logs texts, so of our requests only warnings, unless it has a level."""
    return _max_bytes.get() is None or record.levelno >= logging.WARNING or bool(logging.getLogger("voyage").level)


async def _read_limited(response: Any) -> bytes:
    try:
        encoding = response.headers.get("Content-Encoding", "")
        return await read_body(response.content.iter_any(), encoding, _max_bytes.get() or 0)
    except ReplyTooLargeError:
        if response.status < 300:
            raise
        return b""
    finally:
        response.close() if not response.content.at_eof() else response.release()


class _VoyageTransport:
    def __init__(self, scorer: VoyageScorer) -> None:
        self._sdk: Any = require("voyageai", extra="voyage", purpose=scorer.name)
        self._aiohttp: Any = require("aiohttp", extra="voyage", purpose=scorer.name)
        logging.getLogger("voyage").addFilter(_is_shown)  # once: adding it again does nothing
        options = scorer.options
        self._address = join_address(scorer.base_url, "/v1") if scorer.base_url else None
        self._timeout = options.timeout
        self._headers = options.headers
        self._options = {"model": scorer.model, "truncation": options.truncation}
        self._connections = options.max_concurrency
        self._session: Any = None

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        return await arun_for_sdk(self._ask(key, query, texts))

    async def _ask(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        if self._session is None:
            self._session = self._open_session()
        client = self._sdk.AsyncClient(
            key.get_secret_value(), max_retries=0, timeout=self._timeout, base_url=self._address
        )
        # The SDK's own switch: without a session given it opens one for each request. The context is this task's.
        self._sdk.aiosession.set(self._session)
        _max_bytes.set(max_reply_bytes(query, texts))
        try:
            reply = await client.rerank(query, list(texts), top_k=len(texts), **self._options)
            # The SDK checks no type, so what it returns may be anything.
            rows = [(result.index, result.relevance_score) for result in reply.results]
            return ParsedReply(rows, tokens=find_count(reply, "total_tokens"))
        except Exception as exc:
            return self._read_error(exc)

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await arun_for_sdk(session.close())

    def _open_session(self) -> Any:
        """Return connections for the SDKs' loop, through the environment's proxy; the SDK looks for none.

        aiohttp's own ``trust_env`` would also replace the key by what a netrc file holds. What the SDK takes for
        success, redirects and statuses such as 501, 520 and 529, is raised here, with its status.
        """
        aiohttp = self._aiohttp
        parts = urlsplit(self._address or _ADDRESS)

        async def refuse_status(response: Any) -> None:
            if response.status > 500 and response.status not in _STATUSES_OF_SDK:
                response.raise_for_status()

        async def refuse_redirect(_session: Any, _context: Any, redirect: Any) -> None:
            redirect.response.close()
            raise aiohttp.ClientResponseError(redirect.response.request_info, (), status=redirect.response.status)

        class Response(aiohttp.ClientResponse):  # type: ignore[misc, name-defined]
            async def read(self) -> bytes:
                if not hasattr(self, "limited_body"):
                    self.limited_body = await _read_limited(self)
                return self.limited_body

        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(refuse_redirect)
        return aiohttp.ClientSession(
            headers={**IDENTITY, **self._headers},
            auto_decompress=False,
            response_class=Response,
            connector=aiohttp.TCPConnector(limit=self._connections),
            proxy=None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme),
            raise_for_status=refuse_status,
            trace_configs=[tracing],
        )

    def _read_error(self, error: Exception) -> RequestFailure:
        errors = self._sdk.error
        cause = error.__cause__ if isinstance(error, errors.APIConnectionError) else error
        if isinstance(error, errors.Timeout):
            return RequestFailure("timeout", message="no answer in time")
        if isinstance(cause, self._aiohttp.ClientResponseError) and cause.status >= 300:
            return read_refusal(cause.status, cause.headers or {}, None)
        if isinstance(error, errors.APIConnectionError) or isinstance(cause, self._aiohttp.ClientError):
            message = f"no connection, or it broke ({type(cause or error).__name__})"
            was_sent = not isinstance(cause, self._aiohttp.ClientConnectorError)
            return RequestFailure("connection", message=message, was_sent=was_sent)
        if isinstance(error, errors.VoyageError):
            payload = error.json_body or parse_json(error.http_body or "")
            return read_refusal(error.http_status, error.headers or {}, payload)
        return failure_of(error)
