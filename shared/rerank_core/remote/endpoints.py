"""Every rerank endpoint that speaks JSON over HTTP, one row each: hosted services, and servers that one runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rerank_core.model_facts import Limits, ModelFacts, find_model_facts
from rerank_core.remote.response import ResponseFormat
from rerank_core.remote.service import Service
from rerank_core.scorer import Scale

__all__ = ["ENDPOINTS", "Endpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Service):
    """How to talk to a service or a kind of server.

    Attributes:
        path: of the endpoint, after the address.
        documents: request key of the documents.
        top: request key of how many results to return; empty where there is none.
        body: further request keys, the same in every request.
        response: field names of its responses.
        scale: of its scores, for models that have no scale of their own.
    """

    path: str = "/v1/rerank"
    documents: str = "documents"
    top: str = "top_n"
    body: Mapping[str, Any] = field(default_factory=dict)
    response: ResponseFormat = field(default_factory=ResponseFormat)
    scale: Scale = "probability"


_ANY_SERVED = ModelFacts(instructions="{instruction}\n{query}")
_NO_DOCUMENTS = {"return_documents": False}
_TEI = ResponseFormat(results="", score="score", tokens_header="x-compute-tokens", too_large=frozenset({413, 422}))


def _hosted(provider: str, base_url: str, *keys: str, **row: Any) -> Endpoint:
    """Return the row of a service with an address of its own and a key."""
    return Endpoint(provider=provider, base_url=base_url, key_variables=keys, **row)


def _served(provider: str, *keys: str, **row: Any) -> Endpoint:
    """Return the row of a kind of server that one runs, whatever model it serves."""
    row = {"default": _ANY_SERVED, **row}
    return Endpoint(provider=provider, key_variables=keys, key_required=False, **row)


def _known(*models: str) -> dict[str, ModelFacts]:
    return {model: find_model_facts(model) or ModelFacts() for model in models}


_ROWS = (
    _served("http", path="/rerank"),
    _served("infinity", "INFINITY_API_KEY", path="/rerank", body=_NO_DOCUMENTS),
    _hosted(
        "jina",
        "https://api.jina.ai",
        "JINA_API_KEY",
        "JINAAI_API_KEY",
        "JINA_AI_API_KEY",
        body=_NO_DOCUMENTS,
        models=_known("jina-reranker-m0", "jina-reranker-v2-base-multilingual", "jina-reranker-v3"),
    ),
    _served("litellm", "LITELLM_API_KEY", path="/rerank"),
    _served("llamacpp", "LLAMA_API_KEY", scale="logit"),
    _hosted(
        "mixedbread",
        "https://api.mixedbread.com",
        "MXBAI_API_KEY",
        "MIXEDBREAD_API_KEY",
        path="/v1/reranking",
        documents="input",
        top="top_k",
        response=ResponseFormat(results="data", score="score"),
    ),
    _hosted("openrouter", "https://openrouter.ai/api", "OPENROUTER_API_KEY"),
    _served(
        "tei",
        path="/rerank",
        documents="texts",
        top="",
        body={"raw_scores": False, "truncate": True},
        response=_TEI,
        limits=Limits(documents=32),
    ),
    _hosted("together", "https://api.together.xyz", "TOGETHER_API_KEY"),
    _served("vllm", "VLLM_API_KEY"),
)
ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType({row.provider: row for row in _ROWS})
"""The rows by the name that stands before the colon."""
