"""The development server as a process of its own, with the clients that it is made for."""

from __future__ import annotations

import re
import signal
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
from hypothesis import HealthCheck, settings

from rerank_core import RateLimitError, Reranker, load_scorer
from rerank_core.testing import FakeScorer
from rerank_tools.serve import create_app

QUERY = "How do I find a memory leak?"
TEXTS = [f"Sentence {number} is about {topic}." for number, topic in enumerate(["leaks", "tea", "memory"] * 10)]
PROGRAM = """
import sys
from rerank_core import Reranker
from rerank_tools.serve import ServerLimits, serve
from rerank_core.testing import FakeScorer

latency = float(sys.argv[2])
scorer = FakeScorer(latency=latency) if latency else "embedded"
serve(Reranker(scorer), port=0, token=sys.argv[1] or None, limits=ServerLimits(requests=int(sys.argv[3])))
"""

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(Reranker(FakeScorer())))


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server process, and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    address = next(
        found[1] for line in lines if (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line))
    )
    try:
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        yield process, address
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    """Return the address of a server with the embedded model and a token."""
    with server("geheim", "0", "64") as (_, address):
        yield address


def test_coheres_own_client_ranks_with_the_local_model(embedded: str) -> None:
    """By index, with the scores that the model gives in this process too."""
    with httpx.Client() as http:
        client = cohere.ClientV2(api_key="geheim", base_url=embedded, httpx_client=http)
        answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS, top_n=5)
    expected = Reranker("embedded").rerank(QUERY, TEXTS)
    assert [result.index for result in answer.results] == [ranked.index for ranked in expected][:5]
    assert [result.relevance_score for result in answer.results] == pytest.approx(
        [ranked.score for ranked in expected][:5], abs=1e-6
    )


@pytest.mark.parametrize(("name", "path"), [("cohere:any", ""), ("jina:any", "/v1"), ("http:", "/v1/rerank")])
def test_our_own_scorers_rank_with_the_local_model(embedded: str, name: str, path: str) -> None:
    """One machine's reranker is another one's service."""
    if name == "http:":
        scorer = load_scorer(f"http:{embedded}", path=path, api_key="geheim")
    else:
        scorer = load_scorer(name, base_url=embedded + path, api_key="geheim")
    with Reranker(scorer) as reranker:
        ranking = reranker.rerank(QUERY, TEXTS)
    assert ranking.scores == pytest.approx(Reranker("embedded").rerank(QUERY, TEXTS).scores, abs=1e-6)


def test_callers_at_once_get_their_own_answers(embedded: str) -> None:
    """Each a query and texts of its own, though they share batches."""
    with httpx.Client(base_url=embedded, headers={"Authorization": "Bearer geheim"}) as client:

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
    with server("", "0.8", "64") as (process, address):
        with ThreadPoolExecutor(4) as pool, httpx.Client() as client:
            asked = [pool.submit(client.post, f"{address}/v2/rerank", json=_body()) for _ in range(4)]
            _wait_until_active(address, 4)
            process.send_signal(signal.SIGTERM)
            statuses = [answer.result(30).status_code for answer in asked]
        assert statuses == [200] * 4
        process.wait(30)


def test_a_full_server_is_a_rate_limit_to_our_scorers() -> None:
    """Which they repeat, and report when it lasts."""
    with server("", "0.8", "4") as (_, address), ThreadPoolExecutor(4) as pool, httpx.Client() as client:
        asked = [pool.submit(client.post, f"{address}/v2/rerank", json=_body()) for _ in range(4)]
        _wait_until_active(address, 4)
        scorer = load_scorer(f"http:{address}", path="/v2/rerank", max_retries=0)
        with pytest.raises(RateLimitError), Reranker(scorer) as reranker:
            reranker.rerank(QUERY, TEXTS)
        with Reranker(load_scorer(f"http:{address}", path="/v2/rerank", max_retries=4)) as patient:
            assert len(patient.rerank(QUERY, TEXTS)) == len(TEXTS)
        assert {answer.result(30).status_code for answer in asked} == {200}


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_fuzzed_requests_are_answered_or_refused(case: Any) -> None:
    """Whatever the body, the answer is as described, and never a 500."""
    case.call_and_validate()


def _body() -> dict[str, Any]:
    return {"query": QUERY, "documents": TEXTS}


def _wait_until_active(address: str, count: int) -> None:
    with httpx.Client() as client:
        for _ in range(1000):
            if f"rerank_requests_active {count}.0" in client.get(f"{address}/metrics").text:
                return
    raise AssertionError("the requests did not arrive")
