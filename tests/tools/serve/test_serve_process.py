"""The application under uvicorn, with the clients that it is made for."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cohere
import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings

from rerank_core import Reranker, ScorerUnavailableError, load_scorer
from rerank_core.testing import FakeScorer
from rerank_tools.serve import create_app, limit_headers

QUERY = "How do I find a memory leak?"
TEXTS = [f"Sentence {number} is about {topic}." for number, topic in enumerate(["leaks", "tea", "memory"] * 10)]
BODY = {"query": QUERY, "documents": TEXTS}
PROGRAM = """
import uvicorn
from rerank_core import Reranker
from rerank_core.testing import FakeScorer
from rerank_tools.serve import create_app


class Announced(FakeScorer):
    async def score(self, query, texts):
        print("scoring", flush=True)
        return await super().score(query, texts)


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


Server(uvicorn.Config(create_app(Reranker(Announced(latency=0.5))), port=0, log_level="error")).run()
"""

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(Reranker(FakeScorer()), allowed_hosts=["*"]))


@contextmanager
def server(reranker: Reranker, **options: Any) -> Iterator[str]:
    """Run the application under uvicorn in a thread, and give its address."""
    running = uvicorn.Server(uvicorn.Config(create_app(reranker), port=0, log_level="error", **options))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    """Return the address of a server with the embedded model."""
    with server(Reranker("embedded")) as address:
        yield address


def test_coheres_own_client_ranks_with_the_local_model(embedded: str) -> None:
    """By index, with the scores that the model gives in this process too."""
    with httpx.Client() as http:
        client = cohere.ClientV2(api_key="any", base_url=embedded, httpx_client=http)
        answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS, top_n=5)
    expected = Reranker("embedded").rerank(QUERY, TEXTS)
    assert [result.index for result in answer.results] == [ranked.index for ranked in expected][:5]
    assert [result.relevance_score for result in answer.results] == pytest.approx(
        [ranked.score for ranked in expected][:5], abs=1e-6
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cohere:any", {"base_url": "{}", "api_key": "any"}),
        ("jina:any", {"base_url": "{}/v1", "api_key": "any"}),
        ("http:{}/v1", {}),
        ("tei:{}", {}),
    ],
)
def test_our_own_scorers_rank_with_the_local_model(embedded: str, name: str, options: dict[str, str]) -> None:
    """One machine's reranker is another one's service."""
    given = {key: value.format(embedded) for key, value in options.items()}
    with Reranker(load_scorer(name.format(embedded), **given)) as reranker:
        ranking = reranker.rerank(QUERY, TEXTS)
    assert ranking.scores == pytest.approx(Reranker("embedded").rerank(QUERY, TEXTS).scores, abs=1e-6)


def test_callers_at_once_get_their_own_answers(embedded: str) -> None:
    """Each a query and texts of its own, though they share batches."""
    with httpx.Client(base_url=embedded) as client:

        def ask(number: int) -> list[float]:
            body = {"query": QUERY, "documents": [f"{number} {text}" for text in TEXTS[: 3 + number % 5]]}
            results = client.post("/v2/rerank", json=body).json()["results"]
            return [result["relevance_score"] for result in sorted(results, key=lambda result: result["index"])]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(48)))
    queries = [QUERY] * 48
    documents = [[f"{number} {text}" for text in TEXTS[: 3 + number % 5]] for number in range(48)]
    for answer, ranking in zip(answers, Reranker("embedded").rerank_many(queries, documents), strict=True):
        assert answer == pytest.approx(list(ranking.scores), abs=1e-6)


def test_a_server_that_is_told_to_end_answers_what_it_accepted() -> None:
    """And then ends by itself."""
    command = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdout is not None
    try:
        address = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        with ThreadPoolExecutor(4) as pool, httpx.Client() as client:
            asked = [pool.submit(client.post, f"{address}/v2/rerank", json=BODY) for _ in range(4)]
            assert [process.stdout.readline() for _ in asked] == ["scoring\n"] * 4
            process.send_signal(signal.SIGTERM)
            assert [answer.result(30).status_code for answer in asked] == [200] * 4
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_headers_that_do_not_arrive_end_a_connection(before: bytes) -> None:
    """The first request's and a later one's; a request that is answered slowly goes on."""
    scorer = FakeScorer(latency=1.0)
    with server(Reranker(scorer), http=limit_headers(0.2)) as address, httpx.Client(timeout=30.0) as client:
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
            connection.sendall(before)
            answer = b""
            while before and not answer.endswith(b"}"):
                answer += connection.recv(10_000)
            connection.sendall(b"POST /v2/rerank HTTP/1.1\r\nHost: loc")
            assert connection.recv(10_000) == b""
        assert client.post(f"{address}/v2/rerank", json=BODY).status_code == 200


def test_a_full_server_is_unavailable_to_our_scorers() -> None:
    """Which repeat the request, and report it when that lasts."""
    with server(Reranker(FakeScorer()), limit_concurrency=1) as address:
        scorer = load_scorer(f"http:{address}", format={"path": "/v2/rerank"}, max_retries=0)
        with pytest.raises(ScorerUnavailableError), Reranker(scorer) as reranker:
            reranker.rerank(QUERY, TEXTS)


@schema.include(path_regex="rerank$").parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_fuzzed_requests_are_answered_or_refused(case: Any) -> None:
    """Whatever the body, the answer is as described, and never a 500."""
    case.call_and_validate()
