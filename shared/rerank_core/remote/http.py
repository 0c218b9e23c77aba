"""The scorer for every rerank endpoint that speaks JSON over HTTP; :mod:`.endpoints` lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar, get_args

import httpx

from rerank_core.errors import ConfigurationError
from rerank_core.remote.client import failure_of
from rerank_core.remote.endpoints import ENDPOINTS, Endpoint
from rerank_core.remote.options import RemoteOptions
from rerank_core.remote.response import HttpReply, ParsedReply, RequestFailure, ResponseFormat, read_reply
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import Transport
from rerank_core.scorer import Scale

__all__ = ["HttpOptions", "HttpScorer"]

_Row = TypeVar("_Row", Endpoint, ResponseFormat)


@dataclass(frozen=True, kw_only=True)
class HttpOptions(RemoteOptions):
    """Options of :class:`HttpScorer`.

    Attributes:
        endpoint: how to talk to the server: a name or a row of
            :data:`~rerank_core.remote.endpoints.ENDPOINTS`. The options below change it.
        path: of the endpoint, after the address, such as ``"/v2/rerank"``.
        documents_key: request key of the documents.
        top_key: request key of how many results to return; empty to send none.
        results_key: where the response keeps the list of results, keys joined by dots; empty where it is that
            list.
        score_key: key of a result's score.
        tokens_key: where the response keeps the number of tokens, keys joined by dots.
        score_scale: what the server returns: ``"probability"``, ``"logit"`` or ``"cosine"``.
    """

    endpoint: Endpoint | str = "http"
    path: str | None = None
    documents_key: str | None = None
    top_key: str | None = None
    results_key: str | None = None
    score_key: str | None = None
    tokens_key: str | None = None
    score_scale: Scale | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_scale not in (None, *get_args(Scale)):
            raise ConfigurationError(
                f"score_scale is {self.score_scale!r}: give one of {', '.join(get_args(Scale))}"
            )


class HttpScorer(RemoteScorer):
    """A rerank model behind an HTTP endpoint.

    ``model`` is the model's name, the server's address, or both:
    ``"http://127.0.0.1:8000#BAAI/bge-reranker-v2-m3"``. Without a name the server uses what it serves.
    """

    Options: ClassVar[type[RemoteOptions]] = HttpOptions
    options: HttpOptions

    def __init__(self, model: str = "", **options: Any) -> None:
        given = model.strip() if isinstance(model, str) else ""
        if given.startswith(("http://", "https://")):
            options["base_url"], _, given = given.partition("#")
        self.endpoint = self.service = _find_endpoint(options)
        self.provider = self.endpoint.provider
        super().__init__(given, **options)
        self.name = f"{self.provider}:{given or self.base_url}"
        self.scale = self.options.score_scale or self.model_facts.scale or self.endpoint.scale

    def open_transport(self) -> Transport:
        """Return an HTTP client."""
        return _HttpTransport(self)

    def _check_model(self) -> None:
        if not self.options.base_url and not self.service.base_url:
            raise ConfigurationError(f"has no address: give '{self.provider}:http://host:port' or base_url=")
        if self.service.key_required:
            super()._check_model()


class _HttpTransport:
    def __init__(self, scorer: HttpScorer) -> None:
        self._endpoint = endpoint = scorer.endpoint
        base_url = scorer.base_url or ""
        versioned = base_url.endswith("/v1") and endpoint.path.startswith("/v1/")
        self._url = (base_url.removesuffix("/v1") if versioned else base_url) + endpoint.path
        self._body = {**endpoint.body, **({"model": scorer.model} if scorer.model else {})}
        connections = scorer.options.max_concurrency
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {scorer.secret()}"} if scorer.secret() else {},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=scorer.options.timeout,
        )

    async def send(self, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        endpoint = self._endpoint
        body = {**self._body, "query": query, endpoint.documents: texts}
        if endpoint.top:
            body[endpoint.top] = len(texts)
        try:
            response = await self._client.post(self._url, json=body)
        except httpx.HTTPError as exc:
            return failure_of(exc)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return read_reply(HttpReply(response.status_code, headers, response.content), endpoint.response)

    async def aclose(self) -> None:
        await self._client.aclose()


def _find_endpoint(options: dict[str, Any]) -> Endpoint:
    """Return the row that the options name, with the fields that other options change."""
    row = options.get("endpoint", "http")
    if not isinstance(row, Endpoint):
        if row not in ENDPOINTS:
            raise ConfigurationError(f"endpoint is {row!r}: give one of {', '.join(ENDPOINTS)}")
        row = ENDPOINTS[row]
    fields = {"results": "results_key", "score": "score_key", "tokens": "tokens_key"}
    response = _with(row.response, fields, options)
    fields = {"path": "path", "documents": "documents_key", "top": "top_key"}
    return replace(_with(row, fields, options), response=response)


def _with(row: _Row, fields: dict[str, str], options: dict[str, Any]) -> _Row:
    given = {field: options[name] for field, name in fields.items() if options.get(name) is not None}
    return replace(row, **given)
