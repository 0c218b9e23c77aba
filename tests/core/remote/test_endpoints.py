"""Every endpoint's row over a real socket: what is sent, and what its own kind of answer means."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.loopback import Loopback, score
from support.providers import KEY, MODELS, SIGNED, TOLERANCES, scorer_of

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    RateLimitError,
    RequestTooLargeError,
    Reranker,
    ScorerError,
    ScorerUnavailableError,
    load_scorer,
)
from rerank_core.policies import Windowed

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it"]
PATHS = {
    "azure": "/azure/providers/cohere/v2/rerank",
    "cohere": "/cohere/v2/rerank",
    "dashscope": "/dashscope/compatible-api/v1/reranks",
    "deepinfra": "/deepinfra/v1/inference/Qwen/Qwen3-Reranker-8B",
    "elasticsearch": "/elasticsearch/_inference/rerank/my-endpoint",
    "http": "/http/rerank",
    "infinity": "/infinity/rerank",
    "isaacus": "/isaacus/v1/rerankings",
    "litellm": "/litellm/rerank",
    "mixedbread": "/mixedbread/v1/reranking",
    "nvidia": "/nvidia/v1/ranking",
    "pinecone": "/pinecone/rerank",
    "tei": "/tei/rerank",
    "vertex": "/vertex/v1/projects/my-project/locations/global/rankingConfigs/default_ranking_config:rank",
    "watsonx": "/watsonx/ml/v1/text/rerank?version=2024-05-31",
    "zeroentropy": "/zeroentropy/v1/models/rerank",
}
"""Where a provider's endpoint is, if not at ``/v1/rerank``."""
DOCUMENTS = {
    "isaacus": "texts",
    "mixedbread": "input",
    "elasticsearch": "input",
    "nvidia": "passages",
    "tei": "texts",
    "vertex": "records",
    "watsonx": "inputs",
}
TOPS = {"mixedbread": "top_k", "vertex": "topN", "voyage": "top_k"} | dict.fromkeys(
    ("deepinfra", "nvidia", "tei", "watsonx"), ""
)
MODEL_KEYS = {"deepinfra": "", "elasticsearch": "", "tei": "", "watsonx": "model_id"}
WRAPPED = {
    "nvidia": lambda index, text: {"text": text},
    "pinecone": lambda index, text: {"text": text},
    "vertex": lambda index, text: {"id": str(index), "content": text},
    "watsonx": lambda index, text: {"text": text},
}
FIELDS: dict[str, dict[str, Any]] = {
    "dashscope": {},
    "nvidia": {"truncate": "END"},
    "pinecone": {"return_documents": False, "parameters": {"truncate": "END"}},
    "tei": {"raw_scores": False, "truncate": True},
    "vertex": {"ignoreRecordDetailsInResponse": True},
    "vllm": {"truncate_prompt_tokens": -1},
    "voyage": {"truncation": True},
    "watsonx": {"project_id": "my-project-id", "parameters": {"truncate_input_tokens": 512}},
    "zeroentropy": {"latency": "fast"},
    **{
        provider: {"return_documents": False}
        for provider in ("fireworks", "infinity", "jina", "sglang", "siliconflow", "xinference")
    },
}
AUTHORIZATION = {"elasticsearch": f"ApiKey {KEY}", "pinecone": None}


@pytest.mark.parametrize("provider", sorted(set(MODELS) - SIGNED))  # see test_bedrock.py, test_oci.py
def test_each_provider_gets_its_own_format(loopback: Loopback, provider: str) -> None:
    """Path, key, query, documents and how many results, under the provider's names, and nothing else."""
    loopback.plan()
    ranking = Reranker(scorer_of(provider, loopback)).rerank(QUERY, TEXTS)
    tolerance = TOLERANCES.get(provider, 1e-9)
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in TEXTS], abs=tolerance)
    (request,) = loopback.stats()["requests"]
    assert request["path"] == PATHS.get(provider, f"/{provider}/v1/rerank")
    assert request["headers"].get("authorization") == AUTHORIZATION.get(provider, f"Bearer {KEY}")
    wrap = WRAPPED.get(provider, lambda index, text: text)
    expected = {
        {"deepinfra": "queries"}.get(provider, "query"): {
            "deepinfra": [QUERY],
            "nvidia": {"text": QUERY},
        }.get(provider, QUERY),
        DOCUMENTS.get(provider, "documents"): [wrap(index, text) for index, text in enumerate(TEXTS)],
        MODEL_KEYS.get(provider, "model"): MODELS[provider],
        TOPS.get(provider, "top_n"): len(TEXTS),
        **FIELDS.get(provider, {}),
    }
    assert request["body"] == {name: value for name, value in expected.items() if name}


def test_pinecones_key_and_version_are_headers(loopback: Loopback) -> None:
    """Its own names for both."""
    loopback.plan()
    Reranker(scorer_of("pinecone", loopback)).rerank(QUERY, TEXTS)
    headers = loopback.stats()["requests"][0]["headers"]
    assert (headers["api-key"], headers["x-pinecone-api-version"]) == (KEY, "2026-07")


def test_vertex_names_the_project_that_pays(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment; without it the error names the variable."""
    loopback.plan()
    Reranker(scorer_of("vertex", loopback)).rerank(QUERY, TEXTS)
    assert loopback.stats()["requests"][0]["headers"]["x-goog-user-project"] == "my-project"
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    with pytest.raises(ConfigurationError, match="set the environment variable GOOGLE_CLOUD_PROJECT"):
        load_scorer("vertex:semantic-ranker-default-004", api_key=KEY)


def test_ties_of_rounded_scores_keep_the_first_stages_order(loopback: Loopback) -> None:
    """Vertex AI rounds to two decimals."""
    texts = [f"nothing {number}" for number in range(200)]
    loopback.plan()
    ranking = Reranker(scorer_of("vertex", loopback)).rerank(QUERY, texts)
    order = [ranked.index for ranked in ranking]
    assert order == sorted(range(200), key=lambda index: (-(ranking.scores[index] or 0.0), index))
    assert len(set(ranking.scores)) < 200


def test_nvidias_address_says_hosted_or_ones_own(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosted path names the model and needs a key; a NIM of one's own needs neither."""
    hosted: Any = load_scorer("nvidia:nvidia/llama-nemotron-rerank-1b-v2", api_key=KEY)
    assert hosted.url == "https://ai.api.nvidia.com/v1/retrieval/nvidia/llama-nemotron-rerank-1b-v2/reranking"
    with pytest.raises(AuthenticationError, match="NVIDIA_API_KEY"):
        load_scorer("nvidia:nvidia/llama-nemotron-rerank-1b-v2")
    loopback.plan()
    monkeypatch.setenv("NVIDIA_BASE_URL", loopback.url("nvidia") + "/v1")
    own: Any = load_scorer("nvidia:nvidia/llama-nemotron-rerank-1b-v2")
    assert len(Reranker(own).rerank(QUERY, TEXTS)) == 3
    assert loopback.stats()["requests"][0]["path"] == PATHS["nvidia"]


@pytest.mark.parametrize(
    ("provider", "tokens", "search_units", "cost", "estimated"),
    [
        ("azure", 21, 1.0, 0.002, False),
        ("contextual", None, 0.0, None, True),
        ("dashscope", 21, 0.0, 21 * 0.069e-6, False),
        ("deepinfra", 21, 0.0, 0.0021, False),
        ("isaacus", 21, 0.0, None, False),
        ("jina", 21, 0.0, 21 * 0.05e-6, False),
        ("litellm", 21, 1.0, 0.0063, False),
        ("openrouter", 21, 1.0, 0.0042, False),
        ("pinecone", None, 1.0, None, False),
        ("vertex", None, 1.0, 0.001, True),
        ("xinference", 21, 1.0, None, False),
        ("zeroentropy", 21, 0.0, 21 * 0.025e-6, False),
    ],
)
def test_what_a_service_reports_counts_before_our_estimate(
    loopback: Loopback, provider: str, tokens: int | None, search_units: float, cost: float | None, estimated: bool
) -> None:
    """Tokens, units and cost, wherever it keeps them; its own cost before the list price."""
    loopback.plan()
    usage = Reranker(scorer_of(provider, loopback)).rerank(QUERY, TEXTS).usage
    assert (usage.search_units, usage.estimated) == (search_units, estimated)
    assert tokens is None or usage.tokens == tokens
    assert usage.cost == (None if cost is None else pytest.approx(cost))


@pytest.mark.parametrize(
    ("provider", "model"),
    [("jina", "jina-reranker-v3.5"), ("jina", "jina-reranker-v3"), ("vllm", "jinaai/jina-reranker-v3")],
)
def test_a_cosine_below_0_is_a_score(loopback: Loopback, provider: str, model: str) -> None:
    """Listwise models of Jina return cosines, on every server, and are never split silently."""
    loopback.plan()
    reranker = Reranker(scorer_of(provider, loopback, model))
    assert reranker.rerank(QUERY, TEXTS).scores == pytest.approx([score(QUERY, text) for text in TEXTS])
    with pytest.raises(RequestTooLargeError, match="64 texts"):
        reranker.rerank(QUERY, [f"text {number}" for number in range(65)])


def test_llamacpps_probabilities_get_no_sigmoid(loopback: Loopback) -> None:
    """It returns logits, but for Qwen3-Reranker a softmax over yes and no."""
    rows = [{"index": 0, "relevance_score": 0.9971}, {"index": 1, "relevance_score": 0.0072},
            {"index": 2, "relevance_score": 0.0}]  # fmt: skip
    loopback.plan(reply={"results": rows})
    scorer = scorer_of("llamacpp", loopback, "Qwen3-Reranker-0.6B-Q8_0")
    assert Reranker(scorer).rerank(QUERY, TEXTS).scores == pytest.approx((0.9971, 0.0072, 0.0))


def test_logits_that_look_like_probabilities_are_doubted_once(
    loopback: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the option."""
    rows = [{"index": index, "relevance_score": 0.1 * index} for index in range(3)]
    loopback.plan(reply={"results": rows})
    reranker = Reranker(scorer_of("llamacpp", loopback, "an-unknown-model"))
    for _ in range(3):
        reranker.rerank(QUERY, TEXTS)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "score_scale='probability'" in record.getMessage()


def test_probabilities_that_are_none_are_refused_with_the_option(loopback: Loopback) -> None:
    """A server that passes logits through, as LiteLLM does NIM's."""
    rows = [{"index": index, "relevance_score": 7.5 - index} for index in range(3)]
    loopback.plan(reply={"results": rows})
    with pytest.raises(InvalidResponseError, match="score_scale="):
        Reranker(scorer_of("litellm", loopback)).rerank(QUERY, TEXTS)
    logits = Reranker(scorer_of("litellm", loopback, score_scale="logit")).rerank(QUERY, TEXTS)
    assert logits.scores == pytest.approx((0.99945, 0.99850, 0.99593), abs=1e-5)


def test_a_400_about_length_says_what_helps(loopback: Loopback) -> None:
    """vLLM's own words, where its truncation was switched off."""
    message = "This model's maximum context length is 512 tokens. However, you requested 700 tokens."
    loopback.plan(always="400", message=message)
    scorer = scorer_of("vllm", loopback, body={"truncate_prompt_tokens": None})
    with pytest.raises(RequestTooLargeError, match="maximum context length is 512 tokens.*Windowed"):
        Reranker(scorer).rerank(QUERY, TEXTS)
    assert "truncate_prompt_tokens" not in loopback.stats()["requests"][0]["body"]


def test_windows_are_as_large_as_the_served_model_reads(loopback: Loopback) -> None:
    """vLLM says so under /v1/models; it is asked once."""
    served = {"id": MODELS["vllm"], "max_model_len": 60}
    loopback.plan(models={"object": "list", "data": [{"id": "another", "max_model_len": 9}, served]})
    reranker = Reranker(Windowed(scorer_of("vllm", loopback)))
    for _ in range(2):
        reranker.rerank(QUERY, [" ".join(f"word{number}" for number in range(200)), "short"])
    stats = loopback.stats()
    assert stats["counts"]["models"] == 1
    sent = [len(text) for request in stats["requests"] for text in request["body"]["documents"]]
    assert max(sent) <= 60 * 3
    assert len(sent) > 10


@pytest.mark.parametrize("models", [None, {"data": []}, {"data": [{"id": "x"}]}, {"data": "x"}])
def test_a_server_that_says_no_length_is_asked_once(loopback: Loopback, models: Any) -> None:
    """An answer of any other kind is none."""
    loopback.plan(models=models)
    reranker = Reranker(Windowed(scorer_of("vllm", loopback)))
    assert len(reranker.rerank(QUERY, TEXTS)) == 3
    assert len(reranker.rerank(QUERY, TEXTS)) == 3
    assert loopback.stats()["counts"]["models"] == 1


@pytest.mark.parametrize(
    ("reply", "error", "attempts"),
    [
        ({"code": "InvalidApiKey", "message": "Invalid API-key provided."}, AuthenticationError, 1),
        ({"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded."}, RateLimitError, 2),
        ({"code": "InternalError.Timeout", "message": "An internal timeout."}, ScorerUnavailableError, 2),
        ({"code": "InvalidParameter", "message": "Range of input length."}, ScorerError, 1),
        ({"error": {"code": 502, "message": "Upstream failed."}}, ScorerUnavailableError, 2),
        ({"code": 0}, InvalidResponseError, 1),
    ],
)
def test_an_error_with_status_200_is_the_error_that_it_says(
    loopback: Loopback, reply: dict[str, Any], error: type[ScorerError], attempts: int
) -> None:
    """As DashScope and OpenRouter send them; repeated where that may help."""
    loopback.plan(reply=reply)
    with pytest.raises(error) as caught:
        Reranker(scorer_of("dashscope", loopback, max_retries=1)).rerank(QUERY, TEXTS)
    assert type(caught.value) is error
    assert caught.value.attempts == attempts
    assert str(reply.get("message", "")) in str(caught.value)


def test_the_hubs_token_goes_to_the_hubs_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text Embeddings Inference on an Inference Endpoint needs it, one's own server must not see it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    own: Any = load_scorer("tei:http://127.0.0.1:8080")
    hub: Any = load_scorer("tei:https://x.eu-west-1.aws.endpoints.huggingface.cloud")
    assert (own._key.get_secret_value(), hub._key.get_secret_value()) == ("", "hf_secret")
    monkeypatch.setenv("TEI_API_KEY", "tei_secret")
    assert load_scorer("tei:http://127.0.0.1:8080")._key.get_secret_value() == "tei_secret"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("azure", "AZURE_AI_API_BASE"),
        ("contextual", "CONTEXTUAL_AI_BASE_URL"),
        ("elasticsearch", "ELASTICSEARCH_URL"),
        ("isaacus", "ISAACUS_BASE_URL"),
        ("mixedbread", "MIXEDBREAD_BASE_URL"),
        ("together", "TOGETHER_BASE_URL"),
        ("watsonx", "WATSONX_URL"),
        ("zeroentropy", "ZEROENTROPY_BASE_URL"),
    ],
)
def test_the_address_may_come_from_the_environment(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, provider: str, variable: str
) -> None:
    """From the variable that the provider's own SDK reads."""
    loopback.plan()
    monkeypatch.setenv(variable, loopback.url(provider))
    assert len(Reranker(scorer_of(provider, loopback, base_url=None)).rerank(QUERY, TEXTS)) == 3


def test_a_service_without_an_address_names_the_variable() -> None:
    """Every resource at Azure has its own."""
    with pytest.raises(ConfigurationError, match="AZURE_AI_API_BASE"):
        load_scorer("azure:cohere-rerank-v4.0-fast", api_key=KEY)


@pytest.mark.parametrize("address", ["{}/v1", "{}/v1/", "{}"])
def test_any_server_of_the_usual_shape_is_http(loopback: Loopback, address: str) -> None:
    """LocalAI, GPUStack and others, with or without ``/v1`` in the address."""
    loopback.plan()
    scorer = load_scorer(f"http:{address.format(loopback.url('localai'))}#some-model", api_key=KEY)
    assert len(Reranker(scorer).rerank(QUERY, TEXTS)) == 3
    path = loopback.stats()["requests"][0]["path"]
    assert path == ("/localai/v1/rerank" if "v1" in address else "/localai/rerank")


def test_listwise_is_an_option(loopback: Loopback) -> None:
    """For a model that nobody here knows: a call that needs several requests is refused."""
    loopback.plan()
    scorer = scorer_of("http", loopback, listwise=True, documents_per_request=2, score_scale="cosine")
    with pytest.raises(RequestTooLargeError, match="2 texts"):
        Reranker(scorer).rerank(QUERY, TEXTS)
    assert Reranker(scorer).rerank(QUERY, TEXTS[:1]).scores[0] == pytest.approx((1 + score(QUERY, TEXTS[0])) / 2)
