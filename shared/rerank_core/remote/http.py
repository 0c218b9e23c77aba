"""Every rerank endpoint that speaks JSON over HTTP: Jina, Mixedbread, and servers that one runs oneself.

What differs from server to server is one row of :data:`PRESETS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import httpx

from rerank_core.errors import ConfigurationError
from rerank_core.remote._access import checked_address
from rerank_core.remote._httpx import failure_of, reply_of
from rerank_core.remote.response import Failure, Reply, Wire
from rerank_core.remote.scorer import ModelFacts, RemoteScorer, Service, Transport
from rerank_core.remote.splitting import Limits
from rerank_core.scorer import Scale

__all__ = ["PRESETS", "HttpScorer", "Preset"]

_Row = TypeVar("_Row", "Preset", Wire)

_BEFORE_QUERY = "{instruction}\n{query}"
_QWEN3 = ModelFacts(instructions="<Instruct>: {instruction}\n<Query>: {query}")
_PLAIN = ModelFacts()
_SERVED = {
    "BAAI/bge-reranker-base": _PLAIN,
    "BAAI/bge-reranker-large": _PLAIN,
    "BAAI/bge-reranker-v2-m3": _PLAIN,
    "Qwen/Qwen3-Reranker-0.6B": _QWEN3,
    "Qwen/Qwen3-Reranker-4B": _QWEN3,
    "Qwen/Qwen3-Reranker-8B": _QWEN3,
}
_ANY_SERVED = ModelFacts(instructions=_BEFORE_QUERY)


@dataclass(frozen=True, slots=True)
class Preset:
    """How to talk to a kind of server.

    Attributes:
        service: its name, keys, models, and how its answers read.
        base_url: its address; None where every user has another one.
        path: of the endpoint, after the address.
        documents: request key of the documents.
        top: request key of how many results to return; empty where there is none.
        scale: of the scores.
        body: further request keys, the same in every request.
    """

    service: Service
    base_url: str | None = None
    path: str = "/v1/rerank"
    documents: str = "documents"
    top: str = "top_n"
    scale: Scale = "probability"
    body: Mapping[str, Any] = field(default_factory=dict)


def _served(provider: str, *keys: str, **service: Any) -> Service:
    options = {"models": _SERVED, "default": _ANY_SERVED, **service}
    return Service(provider, keys, key_required=False, **options)


_NO_DOCUMENTS = {"return_documents": False}
_TEI_WIRE = Wire(results="", score="score", tokens_header="x-compute-tokens", too_large=frozenset({413, 422}))
_JINA_MODELS = {
    "jina-reranker-m0": ModelFacts(Limits(pair=10_240)),
    "jina-reranker-v2-base-multilingual": ModelFacts(Limits(pair=1024)),
    "jina-reranker-v3": ModelFacts(Limits(documents=64, tokens=131_072), listwise=True, cosine=True),
}
_JINA_KEYS = ("JINA_API_KEY", "JINAAI_API_KEY", "JINA_AI_API_KEY")
_TEI = _served("tei", wire=_TEI_WIRE, models={}, default=ModelFacts(Limits(documents=32), _BEFORE_QUERY))
_MXBAI = Service("mixedbread", ("MXBAI_API_KEY", "MIXEDBREAD_API_KEY"), wire=Wire(results="data", score="score"))

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "http": Preset(_served("http"), path="/rerank"),
        "infinity": Preset(_served("infinity", "INFINITY_API_KEY"), path="/rerank", body=_NO_DOCUMENTS),
        "jina": Preset(
            Service("jina", _JINA_KEYS, models=_JINA_MODELS), "https://api.jina.ai", body=_NO_DOCUMENTS
        ),
        "litellm": Preset(_served("litellm", "LITELLM_API_KEY"), path="/rerank"),
        "llamacpp": Preset(_served("llamacpp", "LLAMA_API_KEY"), scale="logit"),
        "mixedbread": Preset(_MXBAI, "https://api.mixedbread.com", "/v1/reranking", "input", "top_k"),
        "openrouter": Preset(Service("openrouter", ("OPENROUTER_API_KEY",)), "https://openrouter.ai/api"),
        "tei": Preset(
            _TEI, path="/rerank", documents="texts", top="", body={"raw_scores": False, "truncate": True}
        ),
        "together": Preset(Service("together", ("TOGETHER_API_KEY",)), "https://api.together.xyz"),
        "vllm": Preset(_served("vllm", "VLLM_API_KEY")),
    }
)
"""Servers that are known, by the name that stands before the colon."""


@dataclass(frozen=True)
class HttpScorer(RemoteScorer):
    """A rerank model behind an HTTP endpoint.

    ``model`` is the model's name, the server's address, or both: ``"http://127.0.0.1:8000#BAAI/bge-reranker-v2-m3"``.
    Without a name the server uses what it serves.

    Attributes:
        preset: how to talk to the server: a name or a row of :data:`PRESETS`. The options below change it.
        path: of the endpoint, after the address, such as ``"/v2/rerank"``.
        documents_key: request key of the documents.
        top_key: request key of how many results to return; empty to send none.
        results_key: where the answer keeps the list of results, keys joined by dots; empty where it is that list.
        score_key: key of a result's score.
        tokens_key: where the answer keeps the number of tokens, keys joined by dots.
        score_scale: ``"logit"`` where the server returns raw logits, else ``"probability"``.

    Raises:
        AuthenticationError: a hosted provider, and no key.
        ConfigurationError: an option is out of its range, or the server's address is missing.
    """

    preset: Preset | str = "http"
    path: str | None = None
    documents_key: str | None = None
    top_key: str | None = None
    results_key: str | None = None
    score_key: str | None = None
    tokens_key: str | None = None
    score_scale: Scale | None = None
    scale: Scale = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.score_scale not in (None, *get_args(Scale)):
            raise ConfigurationError(
                f"score_scale is {self.score_scale!r}: give one of {', '.join(get_args(Scale))}"
            )
        self._set("scale", self._row.scale)
        super().__post_init__()

    @property
    def service(self) -> Service:
        """The kind of server."""
        return self._row.service

    @property
    def _row(self) -> Preset:
        """The preset, with the options that change it."""
        row: Preset | None = self.__dict__.get("_changed_row")
        if row is None:
            row = _preset(self.preset)
            wire = _changed(
                row.service.wire, results=self.results_key, score=self.score_key, tokens=self.tokens_key
            )
            row = _changed(
                row, path=self.path, documents=self.documents_key, top=self.top_key, scale=self.score_scale
            )
            row = replace(row, service=replace(row.service, wire=wire))
            self.__dict__["_changed_row"] = row
        return row

    def scorer_name(self) -> str:
        """Return the scorer's name, after taking the address and the model's name apart."""
        provider = self.service.provider
        given = self.model.strip() if isinstance(self.model, str) else ""
        address, _, model = given.partition("#") if given.startswith(("http://", "https://")) else ("", "", given)
        if address:
            self._set("base_url", address)
        self._set("model", model)
        base_url = self.base_url or self._row.base_url
        if base_url is None:
            raise ConfigurationError(
                f"{provider}: has no address: give '{provider}:http://host:port' or base_url="
            )
        if not model and self.service.key_required:
            raise ConfigurationError(f"{provider}: names no model: give '{provider}:<model>'")
        self._set("base_url", checked_address(base_url, scorer=provider))
        return f"{provider}:{model or self.base_url}"

    def open_transport(self) -> Transport:
        """Return an HTTP client."""
        return _HttpTransport(self, self._row)


class _HttpTransport:
    def __init__(self, scorer: HttpScorer, preset: Preset) -> None:
        base_url = scorer.base_url or ""
        versioned = base_url.endswith("/v1") and preset.path.startswith("/v1/")
        self._url = (base_url.removesuffix("/v1") if versioned else base_url) + preset.path
        self._preset = preset
        self._body: dict[str, Any] = {**preset.body, **({"model": scorer.model} if scorer.model else {})}
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {scorer.secret()}"} if scorer.secret() else {},
            limits=httpx.Limits(
                max_connections=scorer.max_concurrency, max_keepalive_connections=scorer.max_concurrency
            ),
            timeout=scorer.timeout,
        )

    async def send(self, query: str, texts: Sequence[str]) -> Reply | Failure:
        body = {**self._body, "query": query, self._preset.documents: texts}
        if self._preset.top:
            body[self._preset.top] = len(texts)
        try:
            return reply_of(await self._client.post(self._url, json=body))
        except httpx.HTTPError as exc:
            return failure_of(exc)

    async def aclose(self) -> None:
        await self._client.aclose()


def _preset(preset: Preset | str) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ConfigurationError(f"preset is {preset!r}: give one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _changed(row: _Row, **changes: Any) -> _Row:
    return replace(row, **{name: value for name, value in changes.items() if value is not None})
