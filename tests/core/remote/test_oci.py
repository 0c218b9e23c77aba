"""OCI Generative AI: Oracle's own SDK signs, and the service on loopback verifies each signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from support.loopback import Loopback, oci_folder, score
from support.providers import scorer_of

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    MissingKeyError,
    RateLimitError,
    Reranker,
    ScorerUnavailableError,
    load_scorer,
)

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it – überall"]
ENDPOINT = "ocid1.generativeaiendpoint.oc1.us-chicago-1.aaaatest"


def rank(loopback: Loopback, model: str | None = None, texts: list[str] = TEXTS, **options: Any) -> Any:
    """Rank texts by a new scorer."""
    return Reranker(scorer_of("oci", loopback, model, **options)).rerank(QUERY, texts)


def write_config(folder: Path, *, without: str = "", **changes: str) -> str:
    """Write a profile ``work`` with all entries of the usual one but these; return the file."""
    lines = (oci_folder() / "config").read_text(encoding="utf-8").splitlines()[1:]
    entries = dict(line.split("=", 1) for line in lines) | changes
    text = "\n".join(f"{name}={value}" for name, value in entries.items() if name != without)
    (folder / "config").write_text(f"[work]\n{text}\n", encoding="utf-8")
    return str(folder / "config")


def test_the_request_is_what_oracles_sdk_would_send(loopback: Loopback) -> None:
    """Its address, fields and headers; the service answers only where the signature is right."""
    loopback.plan()
    ranking = rank(loopback, body={"maxChunksPerDocument": 3}, max_tokens_per_doc=512)
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in TEXTS])
    (request,) = loopback.stats()["requests"]
    assert request["path"] == "/oci/20231130/actions/rerankText"
    assert "Oracle-PythonSDK/" in request["headers"]["user-agent"]
    assert request["headers"]["accept-encoding"] == "identity"
    assert request["body"] == {
        "input": QUERY,
        "documents": TEXTS,
        "topN": 3,
        "compartmentId": "ocid1.compartment.oc1..aaaatest",
        "servingMode": {"servingType": "ON_DEMAND", "modelId": "cohere.rerank-v4.0-fast"},
        "maxTokensPerDocument": 512,
        "maxChunksPerDocument": 3,
    }


def test_an_endpoint_is_asked_by_its_ocid(loopback: Loopback) -> None:
    """A dedicated one, in another compartment."""
    loopback.plan()
    assert len(rank(loopback, ENDPOINT, compartment_id="ocid1.compartment.oc1..other")) == 3
    (request,) = loopback.stats()["requests"]
    assert request["body"]["servingMode"] == {"servingType": "DEDICATED", "endpointId": ENDPOINT}
    assert request["body"]["compartmentId"] == "ocid1.compartment.oc1..other"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        (None, "inference.generativeai.us-chicago-1.oci.oraclecloud.com"),
        ("eu-frankfurt-1", "inference.generativeai.eu-frankfurt-1.oci.oraclecloud.com"),
    ],
)
def test_the_region_makes_the_address(loopback: Loopback, region: str | None, host: str) -> None:
    """The option's, or the configuration's; no header is there twice, which no signature covers."""
    requests: list[httpx.Request] = []

    async def keep(request: httpx.Request) -> None:
        requests.append(request)
        raise httpx.ConnectError("no network here")

    client = httpx.AsyncClient(event_hooks={"request": [keep]})
    with pytest.raises(ScorerUnavailableError):
        rank(loopback, base_url=None, region=region, http_client=client, max_retries=0, headers={"ACCEPT": "*/*"})
    (request,) = requests
    assert (request.url.host, request.headers["host"]) == (host, host)
    assert request.headers.get_list("content-type") == ["application/json"]
    assert request.headers.get_list("accept") == ["*/*"]


def test_more_than_1000_documents_take_several_requests(loopback: Loopback) -> None:
    """As Cohere recommends."""
    loopback.plan()
    texts = [f"document {number} leak" for number in range(2150)]
    ranking = rank(loopback, texts=texts)
    assert max(len(request["body"]["documents"]) for request in loopback.stats()["requests"]) <= 1000
    assert ranking.scores == pytest.approx([score(QUERY, text) for text in texts])


def test_throttling_is_retried_by_us_alone(loopback: Loopback) -> None:
    """As often as ``max_retries`` says; each time the request is signed anew, and its id is in the error."""
    loopback.plan(faults=["429-retry-after", "503"])
    assert rank(loopback).usage.retries == 2
    ids = {request["headers"]["opc-request-id"] for request in loopback.stats()["requests"]}
    assert len(ids) == 3
    loopback.plan(always="429", headers={"opc-request-id": "A1/B2/C3", "x-request-id": ""})
    with pytest.raises(RateLimitError, match="2 attempts, request id A1/B2/C3"):
        rank(loopback, max_retries=1)
    assert loopback.stats()["counts"]["requests"] == 2


def test_another_key_is_an_authentication_error(loopback: Loopback, tmp_path: Path) -> None:
    """The service says that the signature is not right."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    protected = serialization.BestAvailableEncryption(b"open sesame")
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protected
    )
    (tmp_path / "key.pem").write_bytes(key)
    file = write_config(tmp_path, key_file=str(tmp_path / "key.pem"), pass_phrase="open sesame")
    loopback.plan()
    with pytest.raises(AuthenticationError, match="signature") as caught:
        rank(loopback, config_file=file, profile="work")
    assert "sesame" not in str(caught.value)
    file = write_config(tmp_path, key_file=str(tmp_path / "key.pem"), pass_phrase="guessed-wrong")
    with pytest.raises(AuthenticationError, match=r"\(InvalidPrivateKey\)") as caught:
        rank(loopback, config_file=file, profile="work")
    assert "guessed" not in str(caught.value)


def test_a_profile_of_another_file_is_used(loopback: Loopback, tmp_path: Path) -> None:
    """With the region from the environment where the profile has none."""
    file = write_config(tmp_path, without="region")
    loopback.plan()
    with pytest.raises(ConfigurationError, match="^oci:.* has no region: give region=, or set OCI_REGION"):
        rank(loopback, config_file=file, profile="work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCI_REGION", "us-chicago-1")
        assert len(rank(loopback, config_file=file, profile="work")) == 3


def test_what_is_missing_is_named(loopback: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The compartment, the file, the profile, and what the profile lacks; a key is refused."""
    with pytest.raises(ConfigurationError, match="no api_key=: run 'oci setup config'"):
        load_scorer("oci:cohere.rerank-v4.0-fast", api_key="key")
    with pytest.raises(ConfigurationError, match="max_tokens_per_doc is 0"):
        load_scorer("oci:cohere.rerank-v4.0-fast", max_tokens_per_doc=0)
    with pytest.raises(MissingKeyError, match=r"^oci:.*no credentials at .*nowhere: run 'oci setup config'"):
        rank(loopback, config_file=str(tmp_path / "nowhere"))
    with pytest.raises(AuthenticationError, match=r"\(ProfileNotFound\): check profile="):
        rank(loopback, profile="play")
    file = write_config(tmp_path, without="user")
    with pytest.raises(AuthenticationError, match=r"\(InvalidConfig user\)"):
        rank(loopback, config_file=file, profile="work")
    file = write_config(tmp_path, key_file=str(tmp_path / "no.pem"))
    with pytest.raises(AuthenticationError, match=r"\(InvalidKeyFilePath\)"):
        rank(loopback, config_file=file, profile="work")
    (tmp_path / "config").write_text("no section\n", encoding="utf-8")
    with pytest.raises(AuthenticationError, match=r"\(MissingSectionHeaderError\)"):
        rank(loopback, config_file=file)
    monkeypatch.delenv("OCI_COMPARTMENT_ID")
    with pytest.raises(ConfigurationError, match="has no compartment: give compartment_id=, or set OCI_"):
        rank(loopback)
