"""Options of every service: headers, request fields, a client of one's own, a key that is a function."""

from __future__ import annotations

import asyncio
import pickle
import threading
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from support.loopback import Loopback
from support.providers import KEY, scorer_of

from rerank_core import AuthenticationError, ConfigurationError, Passage, Reranker, load_scorer
from rerank_core._call import event_loop
from rerank_core.remote.access import join_address

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it"]
CLIENTS = ("cohere", "voyage", "jina")


@pytest.mark.parametrize("provider", CLIENTS)
def test_further_headers_are_sent(loopback: Loopback, provider: str) -> None:
    """As gateways want them."""
    loopback.plan()
    Reranker(scorer_of(provider, loopback, headers={"X-Gateway": "blue"})).rerank(QUERY, TEXTS)
    headers = loopback.stats()["requests"][0]["headers"]
    assert (headers["x-gateway"], headers["authorization"]) == ("blue", f"Bearer {KEY}")


@pytest.mark.parametrize("provider", ["cohere", "jina"])
def test_further_fields_are_sent_and_none_removes_one(loopback: Loopback, provider: str) -> None:
    """What a server needs, and without what it does not know."""
    loopback.plan()
    body = {"truncate": "END", "return_documents": None}
    Reranker(scorer_of(provider, loopback, body=body)).rerank(QUERY, TEXTS)
    sent = loopback.stats()["requests"][0]["body"]
    assert set(sent) == {"model", "query", "documents", "top_n", "truncate"}


@pytest.mark.parametrize("provider", ["cohere", "jina"])
def test_ones_own_client_is_used_and_not_closed(loopback: Loopback, provider: str) -> None:
    """For proxies and certificates; its requests are seen by its own hooks."""
    loopback.plan()
    seen: list[str] = []

    async def see(request: httpx.Request) -> None:
        seen.append(request.url.path)

    client = httpx.AsyncClient(event_hooks={"request": [see]})
    with Reranker(scorer_of(provider, loopback, http_client=client)) as reranker:
        reranker.rerank(QUERY, TEXTS)
    assert len(seen) == 1
    assert not client.is_closed
    again: Any = scorer_of(provider, loopback, http_client=client)
    with pytest.raises(ConfigurationError, match="cannot be pickled"):
        pickle.dumps(again)
    assert again.cache_key() == scorer_of(provider, loopback).cache_key()
    with Reranker(again) as reranker:
        assert len(reranker.rerank(QUERY, TEXTS)) == 3
    event_loop.run(client.aclose())


def test_one_client_serves_an_sdk_and_ours_on_one_loop(loopback: Loopback) -> None:
    """A client belongs to one event loop; the SDK reads replies on another, in the caller's context."""
    loopback.plan(record=False)
    caller: ContextVar[str] = ContextVar("caller", default="nobody")
    seen: set[tuple[str, str]] = set()

    async def see(_: httpx.Request) -> None:
        seen.add((threading.current_thread().name, caller.get()))

    client = httpx.AsyncClient(event_hooks={"request": [see]}, limits=httpx.Limits(max_connections=2))
    rerankers = [Reranker(scorer_of(provider, loopback, http_client=client)) for provider in ("cohere", "jina")]
    caller.set("somebody")

    async def calls() -> None:
        await asyncio.gather(*(reranker.arerank(QUERY, TEXTS) for reranker in rerankers * 20))

    asyncio.run(calls())
    assert seen == {("rerank-core-loop", "somebody")}
    assert loopback.stats()["connections"] == 2
    event_loop.run(client.aclose())


@pytest.mark.parametrize("option", ["body", "http_client"])
def test_what_voyages_sdk_takes_not_is_refused_with_the_way_out(loopback: Loopback, option: str) -> None:
    """The same model can be asked without the SDK."""
    client = httpx.AsyncClient()
    given: dict[str, Any] = {option: {"body": {"a": 1}, "http_client": client}[option]}
    with pytest.raises(ConfigurationError, match="http:https://api.voyageai.com/v1"):
        scorer_of("voyage", loopback, **given)
    loopback.plan()
    options = {"format": {"results": "data", "top": "top_k"}, "api_key": KEY, **given}
    scorer = load_scorer(f"http:{loopback.url('voyage')}/v1#rerank-2.5", **options)
    assert len(Reranker(scorer).rerank(QUERY, TEXTS)) == 3
    event_loop.run(client.aclose())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("provider", CLIENTS)
def test_a_key_may_be_a_function_that_is_called_for_each_request(
    loopback: Loopback, provider: str, asynchronous: bool
) -> None:
    """For tokens that expire; it may block, and runs in no event loop's thread."""
    loopback.plan()
    calls: list[str] = []

    def token() -> str:
        calls.append(threading.current_thread().name)
        return f"token-{len(calls)}"

    async def atoken() -> SecretStr:
        await asyncio.sleep(0)
        return SecretStr(token())

    reranker = Reranker(scorer_of(provider, loopback, api_key=atoken if asynchronous else token))
    for _ in range(2):
        reranker.rerank(QUERY, TEXTS)
    keys = [request["headers"]["authorization"] for request in loopback.stats()["requests"]]
    assert keys == ["Bearer token-1", "Bearer token-2"]
    assert asynchronous or not any("rerank" in name for name in calls)


@pytest.mark.parametrize(
    ("function", "words"), [(lambda: 1 / 0, "ZeroDivisionError"), (lambda: None, "Authentic")]
)
def test_a_function_that_returns_no_key_is_an_authentication_error(
    loopback: Loopback, function: Any, words: str
) -> None:
    """Nothing is sent, and nothing is tried again."""
    loopback.plan()
    with pytest.raises(AuthenticationError, match=words) as caught:
        Reranker(scorer_of("jina", loopback, api_key=function)).rerank(QUERY, TEXTS)
    assert "api_key=" in str(caught.value)
    assert loopback.stats()["requests"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": {"X": 1}}, "headers are no dictionary"),
        ({"headers": {"X": "a\nb"}}, "headers are no dictionary"),
        ({"headers": "X: 1"}, "headers are no dictionary"),
        ({"body": "x"}, "body is a str"),
        ({"http_client": "x"}, "http_client is a str: give an httpx.AsyncClient"),
        ({"listwise": "yes"}, "listwise is 'yes'"),
    ],
)
def test_an_option_that_cannot_be_sent_is_an_error(options: dict[str, Any], message: str) -> None:
    """When the scorer is made."""
    with pytest.raises(ConfigurationError, match=message):
        load_scorer("jina:jina-reranker-m0", api_key=KEY, **options)


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://h", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/v1", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/v1", "/v2/rerank", "http://h/v1/v2/rerank"),
        ("http://h/api/v1", "/rerank", "http://h/api/v1/rerank"),
        ("http://h/v1/rerank", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/providers/cohere", "/providers/cohere/v2/rerank", "http://h/providers/cohere/v2/rerank"),
        ("http://h", "/m/{x}?version=1", "http://h/m/{x}?version=1"),
    ],
)
def test_an_address_and_a_path_share_their_common_part(base_url: str, path: str, url: str) -> None:
    """People copy addresses from either kind of documentation."""
    assert join_address(base_url, path) == url


def test_cohere_takes_a_priority_and_returns_spans_as_passages(loopback: Loopback) -> None:
    """The best span of each document; what lies outside the text is none."""
    spans = [{"start": 2, "end": 8, "score": 0.9}, {"start": 0, "end": 1, "score": 0.2}]
    rows = [
        {"index": 0, "relevance_score": 0.9, "relevant_spans": spans},
        {"index": 1, "relevance_score": 0.1, "relevant_spans": []},
        {"index": 2, "relevance_score": 0.2, "relevant_spans": [{"start": 0, "end": 999, "score": 0.5}]},
    ]
    loopback.plan(reply={"id": "x", "results": rows})
    scorer = scorer_of("cohere", loopback, "rerank-v5.0-fast", relevant_spans=True, priority=7)
    ranking = Reranker(scorer).rerank(QUERY, TEXTS)
    body = loopback.stats()["requests"][0]["body"]
    assert (body["relevant_spans"], body["priority"]) == ({"mode": "enabled"}, 7)
    assert [ranked.passage for ranked in ranking] == [Passage(2, 8), None, None]
    assert ranking[0].passage_text == "memory"


def test_coheres_billed_tokens_count_before_the_read_ones(loopback: Loopback) -> None:
    """Cohere's newest models are billed by token."""
    meta = {"billed_units": {"input_tokens": 42}, "tokens": {"input_tokens": 50}}
    loopback.plan(reply={"results": [{"index": 0, "relevance_score": 0.5}], "meta": meta})
    assert Reranker(scorer_of("cohere", loopback, "rerank-v5.0-pro")).rerank(QUERY, ["a"]).usage.tokens == 42
