"""Every rerank endpoint that speaks JSON over HTTP, one row each: hosted services, and servers that one runs.

A hosted service needs no more than its row here; a list price goes into :data:`rerank_core.pricing.PRICES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rerank_core.model_facts import Limits, ModelFacts, find_model_facts
from rerank_core.remote.endpoint import Endpoint

__all__ = ["ENDPOINTS"]

_ANY_MODEL = ModelFacts(instructions="{instruction}\n{query}")
_FOLLOWS_32K = ModelFacts(Limits(pair=32_000), instructions=_ANY_MODEL.instructions)
_NO_DOCUMENTS = {"return_documents": False}


def _hosted(provider: str, base_url: str | None, *keys: str, models: Any = (), **row: Any) -> Endpoint:
    """Return the row of a service with a key; of its models either names or facts by name."""
    if not isinstance(models, Mapping):
        models = {model: find_model_facts(model) or ModelFacts() for model in models}
    return Endpoint(provider=provider, base_url=base_url, key_variables=keys, models=models, **row)


def _served(provider: str, *keys: str, **row: Any) -> Endpoint:
    """Return the row of a kind of server that one runs, whatever model it serves."""
    return Endpoint(provider=provider, key_variables=keys, **{"key_required": False, "default": _ANY_MODEL, **row})


_SERVERS = (
    # Any other server: Cohere's shape. LocalAI, GPUStack and Prime Intellect want an address that ends in /v1.
    _served("http", path="/rerank"),
    _served(
        "elasticsearch",  # the model is the inference endpoint's id; the scale depends on what stands behind it
        "ELASTICSEARCH_API_KEY",
        "ES_API_KEY",
        address_variables=("ELASTICSEARCH_URL",),
        path="/_inference/rerank/{model}",
        auth="Authorization: ApiKey {key}",
        model="",
        documents="input",
        results="rerank",
    ),
    _served("infinity", "INFINITY_API_KEY", path="/rerank", body=_NO_DOCUMENTS),
    _served("litellm", "LITELLM_API_KEY", "LITELLM_PROXY_API_KEY", path="/rerank"),
    # llama-server returns raw logits, but of Qwen3-Reranker a softmax over yes and no (node-llama-cpp#617).
    _served("llamacpp", "LLAMA_API_KEY", scale="logit", scales={"qwen3-reranker*": "probability"}),
    _served("sglang", "SGLANG_API_KEY", results="", score="score", instruction="instruct", body=_NO_DOCUMENTS),
    _served(
        "tei",
        "TEI_API_KEY",
        keys_by_host={".endpoints.huggingface.cloud": "HF_TOKEN"},
        path="/rerank",
        model="",
        documents="texts",
        top="",
        body={"raw_scores": False, "truncate": True},
        limits=Limits(documents=32),
        results="",
        score="score",
        too_large=frozenset({413, 422}),
    ),
    _served(
        "vllm",
        "VLLM_API_KEY",
        "HOSTED_VLLM_API_KEY",
        instruction="instruction",
        body={"truncate_prompt_tokens": -1},  # to the model's length; by default one long document fails all
        too_long="maximum context length",
        context_path="/v1/models",
    ),
    _served("xinference", "XINFERENCE_API_KEY", body=_NO_DOCUMENTS),
)

_COHERE_LIMITS = Limits(documents=1000, multiple=100)
_HOSTED = (
    _hosted(
        "azure",  # Azure AI Foundry's Cohere models; an Entra token as api_key=function
        None,
        "AZURE_AI_API_KEY",
        address_variables=("AZURE_AI_API_BASE",),
        path="/providers/cohere/v2/rerank",
        limits=_COHERE_LIMITS,
        models=(
            "cohere-rerank-v4.0-fast",
            "cohere-rerank-v4.0-pro",
            "cohere-rerank-v5-fast",
            "cohere-rerank-v5-pro",
        ),
    ),
    _hosted(
        "contextual",
        "https://api.contextual.ai",
        "CONTEXTUAL_API_KEY",
        "CONTEXTUAL_AI_API_KEY",
        address_variables=("CONTEXTUAL_AI_BASE_URL",),
        instruction="instruction",
        limits=Limits(tokens=400_000, pair=8_000),
        default=_ANY_MODEL,
        models=dict.fromkeys(
            (
                "ctxl-rerank-v1-instruct",
                "ctxl-rerank-v2-instruct-multilingual",
                "ctxl-rerank-v2-instruct-multilingual-mini",
            ),
            _ANY_MODEL,
        ),
    ),
    _hosted(
        "dashscope",  # outside China base_url="https://<workspace>.ap-southeast-1.maas.aliyuncs.com"
        "https://dashscope.aliyuncs.com",
        "DASHSCOPE_API_KEY",
        path="/compatible-api/v1/reranks",
        instruction="instruct",
        error_codes={
            "InvalidApiKey": 401,
            "AccessDenied": 403,
            "Arrearage": 402,
            "ModelNotFound": 404,
            "Throttling": 429,
            "AllocationQuota": 429,
            "InternalError": 500,
            "ServiceUnavailable": 503,
        },
        models={
            "gte-rerank-v2": ModelFacts(Limits(documents=500, tokens=30_000)),
            "qwen3-rerank": replace(_ANY_MODEL, limits=Limits(documents=500, tokens=120_000, document=4_000)),
            "qwen3.7-text-rerank": replace(_ANY_MODEL, limits=Limits(pair=32_768)),
        },
        default=_ANY_MODEL,
    ),
    _hosted(
        "deepinfra",
        "https://api.deepinfra.com",
        "DEEPINFRA_API_KEY",
        path="/v1/inference/{model}",
        model="",
        query="queries",
        query_wrapper="[]",
        top="",
        results="scores",
        score="",
        models=("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B"),
    ),
    _hosted(
        "fireworks",
        "https://api.fireworks.ai/inference",
        "FIREWORKS_API_KEY",
        body=_NO_DOCUMENTS,
        results="data",
        models=("accounts/fireworks/models/qwen3-reranker-8b",),
    ),
    _hosted(
        "isaacus",
        "https://api.isaacus.com",
        "ISAACUS_API_KEY",
        address_variables=("ISAACUS_BASE_URL",),
        path="/v1/rerankings",
        documents="texts",
        score="score",
        models=("kanon-2-reranker",),
    ),
    _hosted(
        "jina",
        "https://api.jina.ai",
        "JINA_API_KEY",
        "JINAAI_API_KEY",
        "JINA_AI_API_KEY",
        body=_NO_DOCUMENTS,
        models=(
            "jina-reranker-m0",
            "jina-reranker-v2-base-multilingual",
            "jina-reranker-v3",
            "jina-reranker-v3.5",
        ),
    ),
    _hosted(
        "mixedbread",
        "https://api.mixedbread.com",
        "MXBAI_API_KEY",
        "MIXEDBREAD_API_KEY",
        address_variables=("MIXEDBREAD_BASE_URL",),
        path="/v1/reranking",
        documents="input",
        top="top_k",
        results="data",
        score="score",
        models={
            "mxbai-rerank-base-v1": ModelFacts(Limits(pair=512)),
            "mxbai-rerank-large-v1": ModelFacts(Limits(pair=512)),
            "mxbai-rerank-base-v2": ModelFacts(Limits(pair=8_000)),
            "mxbai-rerank-large-v2": ModelFacts(Limits(pair=8_000)),
        },
    ),
    _hosted("novita", "https://api.novita.ai/openai", "NOVITA_API_KEY", models=("baai/bge-reranker-v2-m3",)),
    _hosted(
        "nvidia",  # at an address of one's own a NIM, which needs no key
        "https://ai.api.nvidia.com",
        "NVIDIA_API_KEY",
        "NVIDIA_NIM_API_KEY",
        address_variables=("NVIDIA_BASE_URL",),
        path="/v1/retrieval/{model}/reranking",
        own_path="/v1/ranking",
        query_wrapper="text",
        documents="passages",
        document_wrapper="text",
        top="",
        body={"truncate": "END"},
        limits=Limits(documents=512),
        results="rankings",
        score="logit",
        scale="logit",
        models=("nvidia/llama-nemotron-rerank-1b-v2", "nvidia/llama-nemotron-rerank-500m-v2"),
    ),
    _hosted(
        "openrouter",  # its nvidia models may return logits (unconfirmed): score_scale= says so
        "https://openrouter.ai/api",
        "OPENROUTER_API_KEY",
        models={
            "cohere/rerank-5-fast": ModelFacts(),
            "cohere/rerank-5-pro": ModelFacts(),
            "cohere/rerank-v3.5": ModelFacts(),
            "mongodb/rerank-2.5": _FOLLOWS_32K,
            "mongodb/rerank-2.5-lite": _FOLLOWS_32K,
            "mongodb/rerank-3": _FOLLOWS_32K,
            "mongodb/rerank-3-lite": _FOLLOWS_32K,
            "qwen/qwen3-reranker-8b": find_model_facts("qwen3-reranker-8b") or ModelFacts(),
        },
    ),
    _hosted(
        "pinecone",
        "https://api.pinecone.io",
        "PINECONE_API_KEY",
        path="/rerank",
        auth="Api-Key: {key}",
        headers={"X-Pinecone-Api-Version": "2026-07"},
        document_wrapper="text",
        body={**_NO_DOCUMENTS, "parameters": {"truncate": "END"}},
        results="data",
        score="score",
        models={
            "bge-reranker-v2-m3": ModelFacts(Limits(documents=100, pair=1024)),
            "cohere-rerank-4-fast": ModelFacts(Limits(documents=200)),  # as cohere-rerank-3.5 (unconfirmed)
        },
    ),
    _hosted("scaleway", "https://api.scaleway.ai", "SCW_SECRET_KEY"),
    _hosted(
        "siliconflow",  # outside China base_url="https://api.siliconflow.com" (unconfirmed, as is the field)
        "https://api.siliconflow.cn",
        "SILICONFLOW_API_KEY",
        instruction="instruction",
        body=_NO_DOCUMENTS,
        models=(
            "BAAI/bge-reranker-v2-m3",
            "Qwen/Qwen3-Reranker-0.6B",
            "Qwen/Qwen3-Reranker-4B",
            "Qwen/Qwen3-Reranker-8B",
        ),
    ),
    _hosted(
        "together",  # dedicated endpoints only: there is no serverless reranker any more
        "https://api.together.ai",
        "TOGETHER_API_KEY",
        "TOGETHERAI_API_KEY",
        address_variables=("TOGETHER_BASE_URL",),
    ),
    _hosted(
        "vertex",  # needs a token: api_key=function, see google.auth.default(); rounds scores to two decimals
        "https://discoveryengine.googleapis.com",
        "GOOGLE_ACCESS_TOKEN",
        path="/v1/projects/{GOOGLE_CLOUD_PROJECT}/locations/global/rankingConfigs/default_ranking_config:rank",
        headers={"X-Goog-User-Project": "{GOOGLE_CLOUD_PROJECT}"},
        documents="records",
        document_wrapper="content",
        document_id="id",
        top="topN",
        body={"ignoreRecordDetailsInResponse": True},
        limits=Limits(documents=200, multiple=100),
        results="records",
        index="id",
        score="score",
        models=("semantic-ranker-default-004", "semantic-ranker-fast-004"),
    ),
    _hosted(
        "watsonx",  # needs an IAM token: api_key=function; body={"space_id": …, "project_id": None} for a space
        None,
        "WATSONX_TOKEN",
        address_variables=("WATSONX_URL", "WATSONX_API_BASE"),
        path="/ml/v1/text/rerank?version=2024-05-31",
        model="model_id",
        documents="inputs",
        document_wrapper="text",
        top="",
        body={"project_id": "{WATSONX_PROJECT_ID}", "parameters": {"truncate_input_tokens": 512}},
        score="score",
        scale="logit",
        models={"cross-encoder/ms-marco-minilm-l-12-v2": ModelFacts(Limits(pair=512))},
    ),
    _hosted(
        "zeroentropy",
        "https://api.zeroentropy.dev",
        "ZEROENTROPY_API_KEY",
        address_variables=("ZEROENTROPY_BASE_URL",),
        path="/v1/models/rerank",
        body={"latency": "fast"},  # else large requests are queued for 10 to 20 s
        models=("zerank-1", "zerank-1-small", "zerank-2"),
    ),
)
ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType({row.provider: row for row in (*_SERVERS, *_HOSTED)})
"""The rows by the name that stands before the colon."""
