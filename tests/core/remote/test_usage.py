"""Usage, cost, callbacks and spans."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.loopback import Loopback
from support.providers import MODELS, scorer_of
from support.scripts import run_script

import rerank_core
from rerank_core import CallReport, Reranker, RerankError, Usage
from rerank_core.pricing import PRICES, PRICES_AS_OF, Price, price_of
from rerank_core.testing import FakeScorer

QUERY = "find a memory leak"
TEXTS = [f"text {number} about a leak" for number in range(6)]


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("cohere", "rerank-v3.5", Usage(requests=1, documents=6, tokens=42, search_units=1.0, cost=0.002)),
        (
            "cohere",
            "rerank-v5.0-pro",
            Usage(requests=1, documents=6, tokens=42, search_units=1.0, cost=42 * 0.05e-6),
        ),
        ("voyage", "rerank-2.5", Usage(requests=1, documents=6, tokens=42, cost=42 * 0.05e-6)),
        ("tei", "", Usage(requests=1, documents=6, tokens=42, cost=None)),
        ("jina", "brand-new", Usage(requests=1, documents=6, tokens=42, cost=None)),
    ],
)
def test_usage_is_what_the_provider_reports(loopback: Loopback, provider: str, model: str, usage: Usage) -> None:
    """And the cost follows from it by the list price."""
    loopback.plan()
    got = Reranker(scorer_of(provider, loopback, model)).rerank(QUERY, TEXTS).usage
    for name in ("requests", "retries", "documents", "tokens", "search_units", "truncated", "estimated"):
        assert getattr(got, name) == getattr(usage, name), name
    assert got.cost == (None if usage.cost is None else pytest.approx(usage.cost))


@pytest.mark.parametrize("provider", ["cohere", "jina"])
def test_usage_that_is_not_reported_is_estimated_and_says_so(loopback: Loopback, provider: str) -> None:
    """A missing ``usage`` fails no call."""
    loopback.plan(always="usage-missing")
    usage = Reranker(scorer_of(provider, loopback)).rerank(QUERY, TEXTS).usage
    assert usage.estimated
    assert (usage.search_units == 1.0) if provider == "cohere" else (0 < usage.tokens < 200)
    assert 0 < (usage.cost or 0) <= 0.002


def test_prices_can_be_overridden_and_added(loopback: Loopback) -> None:
    """By the model's name or the scorer's, as prices or as dictionaries."""
    loopback.plan()
    prices = {
        "rerank-v3.5": {"per_1k_search_units": 1.0},
        "jina:jina-reranker-v2-base-multilingual": Price(per_1m_tokens=1.0),
    }
    cohere = Reranker(scorer_of("cohere", loopback, prices=prices)).rerank(QUERY, TEXTS).usage
    jina = Reranker(scorer_of("jina", loopback, prices=prices)).rerank(QUERY, TEXTS).usage
    assert (cohere.cost, jina.cost) == (pytest.approx(0.001), pytest.approx(42e-6))


def test_the_price_table_is_dated_and_read_only() -> None:
    """Every known price has the date of the table, and nobody changes it for everybody."""
    assert PRICES_AS_OF.year >= 2026
    assert price_of("cohere:rerank-v3.5", "rerank-v3.5", {}) == Price(per_1k_search_units=2.0)
    assert price_of("cohere:unheard-of", "unheard-of", {}) is None
    with pytest.raises(TypeError):
        PRICES["cohere:rerank-v3.5"] = Price(per_1m_tokens=0.0)  # type: ignore[index]


def test_retries_count_as_requests(loopback: Loopback) -> None:
    """Five requests of which two repeat failed ones."""
    loopback.plan(faults=["503", "503"])
    usage = Reranker(scorer_of("tei", loopback, documents_per_request=2)).rerank(QUERY, TEXTS).usage
    assert (usage.requests, usage.retries, usage.tokens) == (5, 2, 42)


@pytest.mark.parametrize(
    ("provider", "options", "words"),
    [("cohere", {}, 4097), ("cohere", {"max_tokens_per_doc": 10}, 11), ("voyage", {}, 32_000), ("jina", {}, 1024)],
)
def test_texts_that_are_certainly_cut_are_counted(
    loopback: Loopback, provider: str, options: dict[str, Any], words: int
) -> None:
    """A word is a token at least, so that many words are too many."""
    loopback.plan()
    texts = ["a short one", "word " * words, "word " * (words // 3)]
    assert Reranker(scorer_of(provider, loopback, **options)).rerank(QUERY, texts).usage.truncated == 1


def test_total_usage_adds_up_across_threads(loopback: Loopback) -> None:
    """Nothing is lost, failed calls count, and a copy starts from nothing."""
    loopback.plan(record=False)
    reranker = Reranker(scorer_of("cohere", loopback))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reranker.rerank(QUERY, TEXTS), range(40)))
    total = reranker.total_usage
    assert (total.requests, total.documents, total.search_units) == (40, 240, 40.0)
    assert total.cost == pytest.approx(0.08)
    loopback.plan(always="400")
    with pytest.raises(RerankError):
        reranker.rerank(QUERY, TEXTS)
    assert reranker.total_usage.requests == 41
    assert pickle.loads(pickle.dumps(Reranker(FakeScorer()))).total_usage == Usage()


def test_on_usage_reports_every_call(loopback: Loopback) -> None:
    """Calls that succeed and calls that fail, until it is stopped; a callback that raises disturbs nobody."""
    reports: list[CallReport] = []
    stops = [rerank_core.on_usage(reports.append), rerank_core.on_usage(lambda report: 1 / 0)]  # type: ignore[arg-type,return-value]
    try:
        loopback.plan(faults=[None, "401"])
        reranker = Reranker(scorer_of("voyage", loopback))
        reranker.rerank(QUERY, [*TEXTS, "", TEXTS[0]])
        with pytest.raises(RerankError):
            reranker.rerank(QUERY, TEXTS)
    finally:
        for stop in stops:
            stop()
    reranker.rerank(QUERY, TEXTS)
    assert [(report.model, report.documents, report.error) for report in reports] == [
        ("voyage:rerank-2.5", 8, None),
        ("voyage:rerank-2.5", 6, "AuthenticationError"),
    ]
    assert [report.usage.requests for report in reports] == [1, 1]
    assert reports[0].usage.documents == 6


def test_a_call_is_a_span_where_opentelemetry_is_configured(loopback: Loopback) -> None:
    """Named after the model, a child of the caller's span, with counts, usage and the class of the error."""
    output = run_script(
        """
        import json, sys
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from rerank_core import Reranker, RerankError, load_scorer
        exporter = InMemorySpanExporter()
        trace.set_tracer_provider(TracerProvider())
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
        reranker = Reranker(load_scorer("cohere:rerank-v3.5", api_key="key", base_url=sys.argv[1]))
        with trace.get_tracer("test").start_as_current_span("outer") as outer:
            reranker.rerank("leak", ["a leak", "Paris", ""])
            try:
                reranker.rerank("leak", ["a leak", "Paris"])
            except RerankError:
                pass
        for span in exporter.get_finished_spans()[:2]:
            child = span.parent.span_id == outer.get_span_context().span_id
            status = span.status.status_code.name
            print(json.dumps([span.name, child, status, len(span.events), dict(span.attributes)]))
        """,
        self_planned(loopback, faults=[None, "401"]),
        env={"NO_PROXY": "127.0.0.1"},
    )
    import json

    first, second = (json.loads(line) for line in output.splitlines())
    assert first[:4] == ["rerank cohere:rerank-v3.5", True, "UNSET", 0]
    assert {name: value for name, value in first[4].items() if "documents." not in name} == {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": "cohere",
        "gen_ai.request.model": "rerank-v3.5",
        "gen_ai.response.model": "rerank-v3.5",
        "gen_ai.usage.input_tokens": 14,
        "input.value": "leak",
        "openinference.span.kind": "RERANKER",
        "rerank.cost_usd": 0.002,
        "rerank.documents": 3,
        "rerank.requests": 1,
        "rerank.retries": 0,
        "rerank.retrieval_weight": 0.0,
        "rerank.search_units": 1.0,
        "reranker.model_name": "cohere:rerank-v3.5",
        "reranker.query": "leak",
        "reranker.top_k": 3,
    }
    assert first[4]["rerank.documents.scored"] == 2
    assert first[4]["reranker.input_documents.1.document.content"] == "Paris"
    assert second[:4] == ["rerank cohere:rerank-v3.5", True, "ERROR", 0]
    assert second[4]["error.type"] == "AuthenticationError"


def self_planned(loopback: Loopback, **plan: Any) -> str:
    """Plan, and return Cohere's base URL."""
    loopback.plan(**plan)
    return loopback.url("cohere")


def test_opentelemetry_is_not_imported_by_us(loopback: Loopback) -> None:
    """An application without it pays nothing for it."""
    output = run_script(
        """
        import sys
        from rerank_core import Reranker, load_scorer
        name, url = sys.argv[1:]
        Reranker(load_scorer(name, api_key="key", base_url=url)).rerank("leak", ["a leak"])
        print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
        """,
        f"jina:{MODELS['jina']}",
        loopback.url("jina"),
        env={"NO_PROXY": "127.0.0.1"},
    )
    assert output.strip() == "[]"
