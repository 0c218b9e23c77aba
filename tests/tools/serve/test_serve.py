"""The development server's routes, without a socket: the real application, called as a server calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import httpx
import pytest
from support.scorers import Endless
from support.waiting import until

from rerank_core import (
    ConfigurationError,
    InvalidResponseError,
    RateLimitError,
    RequestTooLargeError,
    Reranker,
    Scorer,
    ScorerTimeoutError,
    ScorerUnavailableError,
    Selection,
)
from rerank_core.testing import FakeScorer
from rerank_tools.serve import ServerLimits, create_app, serve

COHERE, JINA = "/v2/rerank", "/v1/rerank"
TEXTS = ["Paris in spring", "finding a memory leak", "memory"]
BODY = {"model": "any", "query": "memory leak", "documents": TEXTS}
Client = httpx.AsyncClient


def call(work: Callable[[Client], Awaitable[Any]], scorer: Scorer | None = None, **options: Any) -> Any:
    """Return what comes of a client's work against an application around the scorer."""
    selection = options.pop("selection", Selection())
    settings = {name: options.pop(name) for name in ("timeout", "on_error") if name in options}
    app = create_app(Reranker(scorer or FakeScorer(), selection=selection, **settings), **options)

    async def scenario() -> Any:
        async with Client(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await work(client)

    return asyncio.run(scenario())


def post(path: str, scorer: Scorer | None = None, *, body: Any = BODY, headers: Any = None, **options: Any) -> Any:
    """Return the response to one request."""
    sent = {"content": body} if isinstance(body, (bytes, str)) else {"json": body}
    return call(lambda client: client.post(path, headers=headers, **sent), scorer, **options)


def test_cohere_gets_what_cohere_sends() -> None:
    """Best first, by index, with the search units that Cohere would bill."""
    answer = post(COHERE).json()
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert answer["results"][0]["relevance_score"] == Reranker(FakeScorer()).rerank("memory leak", TEXTS).scores[1]
    assert answer["meta"]["billed_units"] == {"search_units": 1.0}
    assert answer["id"]


def test_jina_gets_what_jina_sends() -> None:
    """With the documents, unless they are not wanted; objects with a text are documents too."""
    body = {**BODY, "documents": [{"text": "Paris"}, "finding a memory leak"], "top_n": 1}
    answer = post(JINA, body=body).json()
    (result,) = answer["results"]
    assert (result["index"], result["document"]) == (1, {"text": "finding a memory leak"})
    assert (answer["model"], answer["usage"]) == ("fake", {"total_tokens": 0})
    (result,) = post(JINA, body={**body, "return_documents": False}).json()["results"]
    assert "document" not in result


def test_the_servers_selection_holds_and_the_requests_top_n_comes_first() -> None:
    """A threshold of the server cuts every request."""
    selection = Selection(score_threshold=0.3, top_n=2)
    assert len(post(COHERE, selection=selection).json()["results"]) == 2
    assert len(post(COHERE, selection=selection, body={**BODY, "top_n": 1}).json()["results"]) == 1
    assert len(post(COHERE, selection=selection, body={**BODY, "top_n": 3}).json()["results"]) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body: Invalid JSON"),
        (b"\xff\xfe", "the body: Invalid JSON"),
        (b"[" * 100_000, "the body: Invalid JSON"),
        (b"[1]", "the body: Input should be an object"),
        ({**BODY, "query": " "}, "query: String should match"),
        ({**BODY, "query": 3}, "query: Input should be a valid string"),
        ({**BODY, "documents": []}, "documents: List should have at least 1 item"),
        ({**BODY, "documents": "one"}, "documents: Input should be a valid array"),
        ({**BODY, "documents": [1, 2, 3, 4, 5]}, "; and "),
        ({**BODY, "top_n": 0}, "top_n: Input should be greater than or equal to 1"),
        ({**BODY, "top_n": True}, "top_n: Input should be a valid integer"),
        ({"query": "x"}, "documents: Field required"),
    ],
)
def test_a_bad_body_is_refused(body: Any, message: str) -> None:
    """With what is wrong where, in the format's own way of saying so, and never with what it held."""
    cohere, jina = post(COHERE, body=body), post(JINA, body=body)
    assert (cohere.status_code, jina.status_code) == (400, 400)
    assert message in cohere.json()["message"]
    assert jina.json()["detail"]


def test_too_much_is_refused() -> None:
    """Documents are counted; bytes as announced, and as they come where nothing was announced."""
    assert post(COHERE, limits=ServerLimits(documents=2)).status_code == 413
    small = ServerLimits(body_bytes=10)
    assert post(COHERE, limits=small).status_code == 413

    async def stream() -> Any:
        for _ in range(3):
            yield b"12345"

    response = call(lambda client: client.post(COHERE, content=stream()), limits=small)
    assert (response.status_code, response.json()["message"]) == (
        413,
        "the body has more than 10 bytes: send fewer documents",
    )


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic geheim", "geheim", "Bearer", "Bearer gehéim"])
def test_without_the_token_nothing_is_ranked(given: str | None) -> None:
    """And the answer says what to send."""
    headers = {} if given is None else {"authorization": given.encode("utf-8")}
    response = post(COHERE, headers=headers, token="geheim")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


def test_with_the_token_it_is() -> None:
    """The scheme may be written either way; health and metrics need none."""
    assert post(COHERE, headers={"Authorization": "bearer geheim"}, token="geheim").status_code == 200
    assert call(lambda client: client.get("/health"), token="geheim").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "waits"),
    [
        (ConfigurationError("bad"), 400, False),
        (RequestTooLargeError("large"), 413, False),
        (RateLimitError("slow"), 429, True),
        (ScorerTimeoutError("late"), 503, True),
        (ScorerUnavailableError("gone"), 503, True),
        (InvalidResponseError("odd"), 500, False),
    ],
)
def test_a_scorers_error_is_a_status(error: Exception, status: int, waits: bool) -> None:
    """With the message, and with how long to wait where that helps."""
    response = post(COHERE, FakeScorer(error=error))
    assert (response.status_code, response.json()) == (status, {"message": str(error)})
    assert ("retry-after" in response.headers) == waits


def test_a_passthrough_is_an_error_here() -> None:
    """There are no scores to send."""
    scorer = FakeScorer(error=ScorerUnavailableError("gone"))
    assert post(COHERE, scorer, on_error="passthrough").status_code == 503


def test_when_all_places_are_taken_the_next_is_told_to_wait() -> None:
    """And when they are free again it is served."""
    scorer = FakeScorer(latency=0.1)

    async def work(client: Client) -> list[httpx.Response]:
        waiting = [asyncio.ensure_future(client.post(COHERE, json=BODY)) for _ in range(3)]
        answers = list(await asyncio.gather(*waiting))
        return [*answers, await client.post(COHERE, json=BODY)]

    answers = call(work, scorer, limits=ServerLimits(requests=2, retry_after_seconds=7))
    assert sorted(answer.status_code for answer in answers[:3]) == [200, 200, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "7"
    assert answers[3].status_code == 200


def test_a_client_that_is_gone_cancels_its_work() -> None:
    """And frees its place."""
    scorer = Endless()
    app = create_app(Reranker(scorer))
    messages = [{"type": "http.request", "body": b'{"query": "q", "documents": ["d"]}', "more_body": False}]

    async def scenario() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await until(lambda: scorer.active)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": COHERE, "headers": [], "query_string": b""}
        await app({**scope, "app": app}, receive, send)
        return sent

    sent = asyncio.run(scenario())
    assert sent[0]["status"] == 499
    assert scorer.active == 0


def test_metrics_count_what_was_answered() -> None:
    """By path and status, with the documents scored; each server counts its own."""

    async def work(client: Client) -> str:
        await client.post(COHERE, json=BODY)
        await client.post(COHERE, json={})
        return (await client.get("/metrics")).text

    page = call(work)
    assert 'rerank_requests_total{path="/v2/rerank",status="200"} 1.0' in page
    assert 'rerank_requests_total{path="/v2/rerank",status="400"} 1.0' in page
    assert "rerank_documents_total 3.0" in page
    assert "rerank_requests_active 0.0" in page
    assert call(work).count('status="200"} 1.0') == 1


def test_other_paths_and_methods_are_refused() -> None:
    """As any web server does."""
    assert call(lambda client: client.get(COHERE)).status_code == 405
    assert call(lambda client: client.post("/v3/rerank")).status_code == 404


@pytest.mark.parametrize("field", [field.name for field in fields(ServerLimits)])
def test_limits_are_checked(field: str) -> None:
    """Each is at least 1."""
    with pytest.raises(ConfigurationError, match=f"{field} is 0"):
        ServerLimits(**{field: 0})


@pytest.mark.parametrize("port", [-1, 65_536, "80"])
def test_a_port_is_checked(port: Any) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigurationError, match="port is"):
        serve(Reranker(FakeScorer()), port=port)
