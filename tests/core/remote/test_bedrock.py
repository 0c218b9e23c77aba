"""Amazon Bedrock: boto3's own client signs, and the service on loopback checks each signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.loopback import Loopback, score
from support.providers import MODELS, scorer_of

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    MissingKeyError,
    RateLimitError,
    RequestTooLargeError,
    Reranker,
    ScorerError,
    load_scorer,
)

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it"]
ARN = "arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"


def rank(loopback: Loopback, model: str | None = None, texts: list[str] = TEXTS, **options: Any) -> Any:
    """Rank texts by a new scorer."""
    return Reranker(scorer_of("bedrock", loopback, model, **options)).rerank(QUERY, texts)


def test_the_request_is_boto3s_own(loopback: Loopback) -> None:
    """Its address, fields and headers; the service answers only where the signature is right."""
    loopback.plan()
    ranking = rank(loopback, body={"top_k": 3})
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in TEXTS])
    (request,) = loopback.stats()["requests"]
    assert request["path"] == "/bedrock/rerank"
    assert "Boto3/" in request["headers"]["user-agent"]
    assert "/us-west-2/bedrock/aws4_request" in request["headers"]["authorization"]
    assert request["body"] == {
        "queries": [{"type": "TEXT", "textQuery": {"text": QUERY}}],
        "sources": [
            {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}
            for text in TEXTS
        ],
        "rerankingConfiguration": {
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": {
                "numberOfResults": 3,
                "modelConfiguration": {"modelArn": ARN, "additionalModelRequestFields": {"top_k": 3}},
            },
        },
    }


@pytest.mark.parametrize(
    ("model", "options", "region", "arn"),
    [
        ("amazon.rerank-v1:0", {}, "us-west-2", "arn:aws:bedrock:us-west-2::foundation-model/amazon.rerank-v1:0"),
        (
            "amazon.rerank-v1:0",
            {"region": "eu-central-1"},
            "eu-central-1",
            "arn:aws:bedrock:eu-central-1::foundation-model/amazon.rerank-v1:0",
        ),
        (ARN.replace("us-west-2", "ca-central-1"), {}, "ca-central-1", ARN.replace("us-west-2", "ca-central-1")),
        (
            MODELS["bedrock"],
            {"region": "us-gov-west-1"},
            "us-gov-west-1",
            "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/cohere.rerank-v3-5:0",
        ),
    ],
)
def test_the_region_is_the_options_the_arns_or_the_configurations(
    loopback: Loopback, model: str, options: dict[str, Any], region: str, arn: str
) -> None:
    """In the signature and in the model's ARN."""
    loopback.plan()
    rank(loopback, model, **options)
    (request,) = loopback.stats()["requests"]
    assert f"/{region}/bedrock/" in request["headers"]["authorization"]
    configuration = request["body"]["rerankingConfiguration"]["bedrockRerankingConfiguration"]
    assert configuration["modelConfiguration"]["modelArn"] == arn


def test_more_than_1000_documents_take_several_requests(loopback: Loopback) -> None:
    """In multiples of the 100 that one search covers, by which the cost is estimated."""
    loopback.plan()
    texts = [f"document {number} leak" for number in range(2150)]
    ranking = rank(loopback, texts=texts)
    assert sorted(len(request["body"]["sources"]) for request in loopback.stats()["requests"]) == [550, 800, 800]
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in texts])
    assert ranking.usage.cost == pytest.approx(22 * 0.002)
    assert ranking.usage.estimated


def test_an_arn_has_its_models_price(loopback: Loopback) -> None:
    """Whatever the region."""
    loopback.plan()
    assert rank(loopback, ARN).usage.cost == pytest.approx(0.002)


def test_32000_characters_of_a_text_are_sent_and_a_longer_query_is_refused(loopback: Loopback) -> None:
    """The service would refuse the whole request."""
    loopback.plan()
    texts = ["a" * 31_999 + "bc", "short"]
    ranking = rank(loopback, "amazon.rerank-v1:0", texts)
    (request,) = loopback.stats()["requests"]
    sources = [source["inlineDocumentSource"]["textDocument"]["text"] for source in request["body"]["sources"]]
    assert sources == ["a" * 31_999 + "b", "short"]
    assert ranking.usage.truncated == 1
    with pytest.raises(RequestTooLargeError, match="query of 32000 characters, and got 32001"):
        Reranker(scorer_of("bedrock", loopback)).rerank("q" * 32_001, TEXTS)


def test_a_page_that_names_itself_as_the_next_one_ends_the_answer(loopback: Loopback) -> None:
    """Not one request for each text."""
    loopback.plan(reply={"results": [{"index": 0, "relevanceScore": 0.5}], "nextToken": "again"})
    with pytest.raises(InvalidResponseError):
        rank(loopback, texts=[f"text {number}" for number in range(50)])
    assert loopback.stats()["counts"]["requests"] == 2


def test_fields_that_json_cannot_hold_are_no_matter_of_credentials() -> None:
    """As boto3's error of another class made them."""
    with pytest.raises(ConfigurationError, match="body holds what JSON cannot"):
        load_scorer("bedrock:cohere.rerank-v3-5:0", body={"top_k": object()})


def test_pages_are_followed(loopback: Loopback) -> None:
    """Each is a request of its own, signed by itself."""
    loopback.plan(page=4)
    texts = [f"text {number} about a leak" for number in range(10)]
    ranking = rank(loopback, texts=texts)
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in texts])
    assert [request["body"].get("nextToken") for request in loopback.stats()["requests"]] == [None, "4", "8"]
    assert ranking.usage.requests == 3


def test_a_page_that_fails_is_counted(loopback: Loopback) -> None:
    """With the pages before it."""
    loopback.plan(page=4, faults=[None, "400"])
    with pytest.raises(ScorerError) as caught:
        rank(loopback, texts=[f"text {number}" for number in range(10)])
    assert caught.value.usage is not None
    assert caught.value.usage.requests == loopback.stats()["counts"]["requests"] == 2


def test_throttling_is_retried_by_us_alone(loopback: Loopback) -> None:
    """As often as ``max_retries`` says, after the time that the service asks for."""
    loopback.plan(faults=["429-retry-after", "503"])
    assert rank(loopback).usage.retries == 2
    loopback.plan(always="429")
    with pytest.raises(RateLimitError, match="2 attempts"):
        rank(loopback, max_retries=1)
    assert loopback.stats()["counts"]["requests"] == 2


def test_a_session_token_is_signed_and_never_shown(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a message that holds it."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-abcdefghij")
    loopback.plan()
    assert len(rank(loopback)) == 3
    assert loopback.stats()["requests"][0]["headers"]["x-amz-security-token"] == "token-abcdefghij"
    loopback.plan(always="403", message="no such token: token-abcdefghij")
    with pytest.raises(AuthenticationError) as caught:
        rank(loopback)
    assert "abcdef" not in str(caught.value)


def test_a_wrong_secret_is_an_authentication_error(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service says that the signature is not the one that it calculated."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    loopback.plan()
    with pytest.raises(AuthenticationError, match="signature"):
        rank(loopback)


def test_credentials_come_from_a_profile(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the region, too."""
    config = tmp_path / "config"
    config.write_text(
        "[profile work]\nregion = eu-west-3\naws_access_key_id = AKIAEXAMPLE\n"
        "aws_secret_access_key = aws-Zq7PvT4mXw9LrB2n\n",
        encoding="utf-8",
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    loopback.plan()
    assert len(rank(loopback, profile="work")) == 3
    assert "/eu-west-3/" in loopback.stats()["requests"][0]["headers"]["authorization"]
    with pytest.raises(AuthenticationError, match=r"\(ProfileNotFound\): check profile="):
        rank(loopback, profile="play")


def test_what_is_missing_is_named(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, the region, and an ARN's parts; a key is refused."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(ConfigurationError, match="no api_key="):
        load_scorer("bedrock:amazon.rerank-v1:0", api_key="key")
    with pytest.raises(ConfigurationError, match="is no ARN"):
        load_scorer("bedrock:arn:aws")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigurationError, match="no region: give region=, or set AWS_DEFAULT_REGION"):
        rank(loopback)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(MissingKeyError, match=r"^bedrock:.* set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        rank(loopback, region="us-west-2")


def test_credentials_that_cannot_be_fetched_are_an_authentication_error(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that gives them fails; its output stays out of the message."""
    config = tmp_path / "config"
    config.write_text("[default]\ncredential_process = false secret-output\n", encoding="utf-8")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(AuthenticationError, match="CredentialRetrievalError") as caught:
        rank(loopback)
    assert "secret-output" not in str(caught.value)
