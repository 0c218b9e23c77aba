"""Scorers of every provider, talking to the loopback service."""

from __future__ import annotations

from typing import Any

from support.loopback import Loopback

from rerank_core import Scorer, load_scorer

__all__ = ["KEY", "MODELS", "scorer_of"]

KEY = "key-Zq7PvT4mXw9LrB2n"
"""What the tests use for a key: no piece of it may show anywhere."""

MODELS = {
    "cohere": "rerank-v3.5",
    "http": "any-model",
    "infinity": "BAAI/bge-reranker-v2-m3",
    "jina": "jina-reranker-v2-base-multilingual",
    "litellm": "any-model",
    "llamacpp": "BAAI/bge-reranker-v2-m3",
    "mixedbread": "mxbai-rerank-large-v2",
    "openrouter": "cohere/rerank-v3.5",
    "tei": "",
    "together": "any-model",
    "vllm": "Qwen/Qwen3-Reranker-0.6B",
    "voyage": "rerank-2.5",
}
"""A model of each provider, by what stands before the colon."""


def scorer_of(provider: str, loopback: Loopback, model: str | None = None, **options: Any) -> Scorer:
    """Return a provider's scorer that asks the loopback service."""
    name = f"{provider}:{MODELS[provider] if model is None else model}"
    return load_scorer(name, **{"api_key": KEY, "base_url": loopback.url(provider), "timeout": 20.0, **options})
