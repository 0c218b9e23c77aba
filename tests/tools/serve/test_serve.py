"""The application's routes, without a socket: the real application, called as a server calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
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
from rerank_tools.serve import create_app

COHERE, JINA, TEI = "/v2/rerank", "/v1/rerank", "/rerank"
TEXTS = ["Paris in spring", "finding a memory leak", "memory"]
BODY = {"model": "any", "query": "memory leak", "documents": TEXTS}
Client = httpx.AsyncClient


def call(work: Callable[[Client], Awaitable[Any]], scorer: Scorer | None = None, **options: Any) -> Any:
    """Return what comes of a client's work against an application around the scorer."""
    settings = {name: options.pop(name) for name in ("selection", "timeout", "on_error") if name in options}
    app = create_app(Reranker(scorer or FakeScorer(), **settings), **options)

    async def scenario() -> Any:
        async with Client(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await work(client)

    return asyncio.run(scenario())


def post(path: str, scorer: Scorer | None = None, *, body: Any = BODY, headers: Any = None, **options: Any) -> Any:
    """Return the response to one request."""
    sent = {"content": body} if isinstance(body, (bytes, str)) else {"json": body}
    headers = {"content-type": "application/json", **(headers or {})}
    return call(lambda client: client.post(path, headers=headers, **sent), scorer, **options)


def test_cohere_gets_what_cohere_sends() -> None:
    """Best first, by index; nothing is billed."""
    answer = post(COHERE).json()
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert answer["results"][0]["relevance_score"] == Reranker(FakeScorer()).rerank("memory leak", TEXTS).scores[1]
    assert answer["meta"]["billed_units"] == {"search_units": 0.0}
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


def test_tei_gets_what_tei_sends() -> None:
    """A bare list, best first."""
    answer = post(TEI, body={"query": "memory leak", "texts": TEXTS, "truncate": True}).json()
    assert [result["index"] for result in answer] == [1, 2, 0]
    assert set(answer[0]) == {"index", "score"}


def test_the_servers_selection_holds_and_the_requests_top_n_comes_first() -> None:
    """A threshold of the server cuts every request."""
    selection = Selection(score_threshold=0.3, top_n=2)
    assert len(post(COHERE, selection=selection).json()["results"]) == 2
    assert len(post(COHERE, selection=selection, body={**BODY, "top_n": 1}).json()["results"]) == 1
    assert len(post(COHERE, selection=selection, body={**BODY, "top_n": 3}).json()["results"]) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Field required"),
        (b"\xff\xfe", "JSON decode error"),
        (b"[" * 100_000, "parsing the body"),
        (b"[1]", "Input should be a valid dictionary"),
        (b"{", "JSON decode error"),
        ({**BODY, "query": " "}, "query: String should match"),
        ({**BODY, "query": 3}, "query: Input should be a valid string"),
        ({**BODY, "documents": []}, "documents: List should have at least 1 item"),
        ({**BODY, "documents": "one"}, "documents: Input should be a valid list"),
        ({**BODY, "documents": [1, 2, 3, 4, 5]}, "; and 7 more"),
        ({**BODY, "top_n": 0}, "top_n: Input should be greater than or equal to 1"),
        ({**BODY, "top_n": True}, "top_n: Input should be a valid integer"),
        ({"query": "x"}, "documents: Field required"),
    ],
)
def test_a_bad_body_is_refused(body: Any, message: str) -> None:
    """The answer names the place, under the names that clients look for, and never repeats the content."""
    for path in (COHERE, JINA):
        answer = post(path, body=body)
        assert answer.status_code == 400
        assert message in answer.json()["message"]
        assert answer.json()["detail"] == answer.json()["message"]


def test_a_whole_number_may_be_written_as_a_float() -> None:
    """In JSON they are the same."""
    assert len(post(COHERE, body={**BODY, "top_n": 2.0}).json()["results"]) == 2


def test_too_much_is_refused() -> None:
    """Documents are counted; bytes as announced, and as they come where nothing was announced."""
    assert post(COHERE, max_documents=2).status_code == 413
    assert post(COHERE, max_bytes=10).status_code == 413
    sent = 0

    async def stream() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"12345"

    headers = {"content-type": "application/json"}
    response = call(lambda client: client.post(COHERE, content=stream(), headers=headers), max_bytes=10)
    assert (response.status_code, response.json()["message"]) == (
        413,
        "the body has more than 10 bytes: send fewer documents",
    )


async def answer_of(app: Any, messages: list[Any], headers: list[tuple[bytes, bytes]] | None = None) -> list[Any]:
    """Return what an application sends to a client whose messages are these, after which nothing comes."""
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    known = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": COHERE, "query_string": b"", "headers": headers or known}
    await asyncio.wait_for(app({**scope, "app": app}, receive, send), 30)
    return sent


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """One byte and then nothing: the time limit ends it, before any work."""
    scorer = FakeScorer()
    app = create_app(Reranker(scorer), body_seconds=0.05)
    sent = await answer_of(app, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert sent[0]["status"] == 408
    assert b"did not arrive within 0.05 s" in sent[1]["body"]
    assert scorer.calls == 0


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"content-type": "text/plain"}, 415, "application/json"),
        ({"content-type": ""}, 415, "application/json"),
        ({"content-type": "application/json; charset=utf-8"}, 200, ""),
        ({"content-type": "Application/JSON"}, 200, ""),
        ({"origin": "https://evil.example"}, 403, "web pages"),
        ({"origin": "null"}, 403, "web pages"),
        ({"host": "evil.example"}, 400, "host"),
        ({"host": "evil.example:8000"}, 400, "host"),
        ({"host": "localhost.evil.example"}, 400, "host"),
        ({"host": "127.0.0.1:8000"}, 200, ""),
        ({"host": "[::1]:8000"}, 200, ""),
    ],
    ids=str,
)
def test_a_web_page_cannot_post(headers: dict[str, str], status: int, message: str) -> None:
    """Not as a form, not with its origin, not by a name that it had pointed here."""
    scorer = FakeScorer()
    response = post(COHERE, scorer, headers=headers)
    assert response.status_code == status
    assert message in response.text
    assert scorer.calls == (status == 200)


def test_hosts_may_be_allowed() -> None:
    """By name, or all of them behind a gateway that checks them."""
    for allowed in (["rerank.example"], ["*"]):
        assert post(COHERE, headers={"host": "rerank.example"}, allowed_hosts=allowed).status_code == 200


def test_it_mounts_into_another_application() -> None:
    """Under a path of its own, with its checks and without a lifespan."""
    outer = FastAPI()
    outer.mount("/ranking", create_app(Reranker(FakeScorer())))

    async def scenario() -> Any:
        async with Client(transport=httpx.ASGITransport(outer), base_url="http://localhost") as client:
            return await client.post("/ranking/v2/rerank", json=BODY), await client.post("/ranking/rerank")

    ranked, refused = asyncio.run(scenario())
    assert [result["index"] for result in ranked.json()["results"]] == [1, 2, 0]
    assert refused.status_code == 415


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
    assert (response.status_code, response.json()) == (status, {"message": str(error), "detail": str(error)})
    assert ("retry-after" in response.headers) == waits


def test_a_passthrough_is_an_error_here() -> None:
    """There are no scores to send."""
    scorer = FakeScorer(error=ScorerUnavailableError("gone"))
    assert post(COHERE, scorer, on_error="passthrough").status_code == 503


async def test_a_client_that_is_gone_cancels_its_work() -> None:
    """So that nobody's queue waits for it."""
    scorer = Endless()
    app = create_app(Reranker(scorer))
    messages: list[Any] = [
        {"type": "http.request", "body": b'{"query": "q", "documents": ["d"]}', "more_body": False}
    ]

    async def leave() -> None:
        await until(lambda: scorer.active)
        messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        await until(lambda: messages)
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError("nobody reads the answer")

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": COHERE, "query_string": b"", "headers": headers}
    await asyncio.gather(app({**scope, "app": app}, receive, send), leave())
    assert scorer.active == 0


def test_other_paths_and_methods_are_refused() -> None:
    """As any web server does."""
    assert call(lambda client: client.get(COHERE)).status_code == 405
    assert call(lambda client: client.post("/v3/rerank", json={})).status_code == 404


@pytest.mark.parametrize("name", ["max_documents", "max_bytes", "body_seconds"])
def test_limits_are_checked(name: str) -> None:
    """When the application is made."""
    with pytest.raises(ConfigurationError, match=f"{name} is 0"):
        create_app(Reranker(FakeScorer()), **{name: 0})


def test_the_api_describes_itself() -> None:
    """With the three formats, and no page that loads scripts."""
    described = call(lambda client: client.get("/openapi.json")).json()
    assert {COHERE, JINA, TEI, "/health"} == set(described["paths"])
    assert call(lambda client: client.get("/docs")).status_code == 404
