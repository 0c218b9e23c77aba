"""Cohere's rerank models, through Cohere's own SDK."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx

from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_core.remote._httpx import failure_of, reply_of
from rerank_core.remote.response import Failure, Reply, Wire
from rerank_core.remote.scorer import ModelFacts, RemoteScorer, Service, Transport
from rerank_core.remote.splitting import Limits

if TYPE_CHECKING:
    import cohere

__all__ = ["SERVICE", "CohereScorer"]

_LIMITS = Limits(documents=1000, multiple=100, document=4096)
_KNOWN = ModelFacts(_LIMITS)

SERVICE = Service(
    "cohere",
    key_variables=("CO_API_KEY", "COHERE_API_KEY"),
    wire=Wire(tokens="meta.tokens.input_tokens"),
    models=MappingProxyType(
        {
            "rerank-english-v2.0": ModelFacts(_LIMITS, successor="rerank-v3.5"),
            "rerank-english-v3.0": _KNOWN,
            "rerank-multilingual-v2.0": ModelFacts(_LIMITS, successor="rerank-v3.5"),
            "rerank-multilingual-v3.0": _KNOWN,
            "rerank-v3.5": _KNOWN,
            "rerank-v4.0-fast": _KNOWN,
            "rerank-v4.0-pro": _KNOWN,
            "rerank-v5.0-fast": _KNOWN,
            "rerank-v5.0-pro": _KNOWN,
        }
    ),
    default=ModelFacts(Limits(documents=1000, multiple=100)),
)

_reply: ContextVar[list[Reply] | None] = ContextVar("rerank_core_cohere_reply", default=None)


@dataclass(frozen=True)
class CohereScorer(RemoteScorer):
    """A rerank model of Cohere, such as ``rerank-v3.5``.

    A request holds at most 1,000 documents, as Cohere recommends, and a multiple of 100 where the call needs
    several, because 100 documents make one search unit. The key is ``api_key``, else ``CO_API_KEY``, else
    ``COHERE_API_KEY``; the address ``base_url`` (without ``/v1``), else ``CO_API_URL``, else Cohere's.

    Attributes:
        max_tokens_per_doc: tokens of a document that are read, at least 1; Cohere's default is 4,096.

    Raises:
        AuthenticationError: there is no key.
        ConfigurationError: an option is out of its range, or ``instruction`` is given, which no model follows.
        MissingExtraError: the SDK is not installed.
    """

    max_tokens_per_doc: int | None = None

    def __post_init__(self) -> None:
        check_installed("cohere", extra="cohere", purpose="cohere:")
        tokens = self.max_tokens_per_doc
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
            raise ConfigurationError(f"max_tokens_per_doc is {tokens!r}: give a whole number of at least 1")
        super().__post_init__()

    @property
    def service(self) -> Service:
        """Cohere."""
        return SERVICE

    @property
    def facts(self) -> ModelFacts:
        """What is known about the model, with the options that change it."""
        facts = super().facts
        if self.max_tokens_per_doc is None:
            return facts
        return replace(facts, limits=replace(facts.limits, document=self.max_tokens_per_doc))

    def open_transport(self) -> Transport:
        """Return a client of Cohere's SDK."""
        return _CohereTransport(self)


class _CohereTransport:
    def __init__(self, scorer: CohereScorer) -> None:
        sdk: Any = require("cohere", extra="cohere", purpose=scorer.name)
        self._http = _Tapped(timeout=scorer.timeout)
        address = scorer.base_url or os.environ.get("CO_API_URL")
        self._client: cohere.AsyncClientV2 = sdk.AsyncClientV2(
            scorer.secret(),
            **({"base_url": address} if address else {}),
            timeout=scorer.timeout,
            httpx_client=self._http,
        )
        self._options: dict[str, Any] = {"model": scorer.model}
        if scorer.max_tokens_per_doc is not None:
            self._options["max_tokens_per_doc"] = scorer.max_tokens_per_doc

    async def send(self, query: str, texts: Sequence[str]) -> Reply | Failure:
        replies: list[Reply] = []
        token = _reply.set(replies)
        failure: Failure | None = None
        try:
            await self._client.rerank(
                query=query,
                documents=texts,
                top_n=len(texts),
                request_options={"max_retries": 0},
                **self._options,
            )
        except Exception as exc:
            failure = failure_of(exc)
        finally:
            _reply.reset(token)
        # Whatever the SDK made of it, the reply itself says more: see _Tapped.
        return replies[-1] if replies else failure or Failure("invalid", message="the client sent nothing")

    async def aclose(self) -> None:
        await self._http.aclose()


class _Tapped(httpx.AsyncClient):
    """Keeps each reply as it came, and shows the SDK an empty list of results.

    The SDK builds a model of every result, which takes four fifths of a call's processor time, and checks none of
    them: missing scores become None. So results are read from the reply, once and checked.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        response = await super().send(request, **options)
        replies = _reply.get()
        if replies is None:
            return response
        replies.append(reply_of(response))
        if not response.is_success:
            return response
        return httpx.Response(response.status_code, content=_EMPTY, request=request)


_EMPTY = json.dumps({"id": "", "results": [], "meta": None}).encode()
