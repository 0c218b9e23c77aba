"""Scorers of every provider, talking to the loopback service."""

from __future__ import annotations

import os
from typing import Any

from support.loopback import AWS_KEY, AWS_SECRET, Loopback

from rerank_core import Scorer, load_scorer

__all__ = ["KEY", "MODELS", "SIGNED", "TOLERANCES", "scorer_of"]

KEY = "key-Zq7PvT4mXw9LrB2n"
"""What the tests use for a key: no piece of it may show anywhere."""

MODELS = {
    "azure": "cohere-rerank-v4.0-fast",
    "bedrock": "cohere.rerank-v3-5:0",
    "cohere": "rerank-v3.5",
    "contextual": "ctxl-rerank-v2-instruct-multilingual",
    "dashscope": "qwen3-rerank",
    "deepinfra": "Qwen/Qwen3-Reranker-8B",
    "elasticsearch": "my-endpoint",
    "fireworks": "accounts/fireworks/models/qwen3-reranker-8b",
    "http": "any-model",
    "infinity": "BAAI/bge-reranker-v2-m3",
    "isaacus": "kanon-2-reranker",
    "jina": "jina-reranker-v2-base-multilingual",
    "litellm": "any-model",
    "llamacpp": "BAAI/bge-reranker-v2-m3",
    "mixedbread": "mxbai-rerank-large-v2",
    "novita": "baai/bge-reranker-v2-m3",
    "nvidia": "nvidia/llama-nemotron-rerank-1b-v2",
    "oci": "cohere.rerank-v4.0-fast",
    "openrouter": "cohere/rerank-v3.5",
    "pinecone": "bge-reranker-v2-m3",
    "scaleway": "any-model",
    "sglang": "Qwen/Qwen3-Reranker-8B",
    "siliconflow": "Qwen/Qwen3-Reranker-8B",
    "tei": "",
    "together": "any-model",
    "vertex": "semantic-ranker-default-004",
    "vllm": "Qwen/Qwen3-Reranker-0.6B",
    "voyage": "rerank-2.5",
    "watsonx": "cross-encoder/ms-marco-minilm-l-12-v2",
    "xinference": "bge-reranker-v2-m3",
    "zeroentropy": "zerank-2",
}
"""A model of each provider, by what stands before the colon."""


# What some services need beside a key.
os.environ.update(
    {
        "AWS_ACCESS_KEY_ID": AWS_KEY,
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "OCI_COMPARTMENT_ID": "ocid1.compartment.oc1..aaaatest",
        "WATSONX_PROJECT_ID": "my-project-id",
    }
)

SIGNED = {"bedrock", "oci"}
"""Providers that have credentials in place of a key."""

TOLERANCES = {"vertex": 0.006}
"""How far a provider's scores may be from the service's, where it rounds them."""


def scorer_of(provider: str, loopback: Loopback, model: str | None = None, **options: Any) -> Scorer:
    """Return a provider's scorer that asks the loopback service."""
    if provider not in SIGNED:
        options = {"api_key": KEY, **options}
    name = f"{provider}:{MODELS[provider] if model is None else model}"
    return load_scorer(name, **{"base_url": loopback.url(provider), "timeout": 20.0, **options})
