"""Traces as OpenInference's instrumentors make them: one RERANKER span for each call, inside the caller's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core import SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.langchain_parts import FirstStage
from support.scorers import Calls

from langchain_rerankers import RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import Reranker, ScorerError
from rerank_core.policies import Fallback
from rerank_core.testing import FakeScorer

LangChainInstrumentor = pytest.importorskip("openinference.instrumentation.langchain").LangChainInstrumentor
LlamaIndexInstrumentor = pytest.importorskip("openinference.instrumentation.llama_index").LlamaIndexInstrumentor

KIND = "openinference.span.kind"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Return what keeps all spans of this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", provider)
        yield exporter


@pytest.fixture(params=[False, True], ids=["alone", "instrumented"])
def is_instrumented(request: pytest.FixtureRequest, exporter: InMemorySpanExporter) -> Iterator[bool]:
    """Run a test without the instrumentors, and with both."""
    exporter.clear()
    instrumentors: list[Any] = [LangChainInstrumentor(), LlamaIndexInstrumentor()] if request.param else []
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=trace.get_tracer_provider())
    yield request.param
    for instrumentor in instrumentors:
        instrumentor.uninstrument()
    exporter.clear()


def rank(framework: str, reranker: Reranker, *, is_async: bool, **options: Any) -> None:
    """Rerank inside a chain or a query engine, within a span of the caller's."""
    with trace.get_tracer("application").start_as_current_span("request"):
        if framework == "langchain":
            retriever = RerankRetriever(
                retriever=FirstStage(documents=[Document(text) for text in TEXTS]),
                compressor=RerankCompressor(reranker=reranker, **options),
            )
            chain = RunnableLambda(lambda query: query) | retriever
            asyncio.run(chain.ainvoke(QUERY)) if is_async else chain.invoke(QUERY)
            return
        index = SummaryIndex([TextNode(text=text) for text in TEXTS])
        postprocessor = RerankPostprocessor(reranker=reranker, **options)
        engine = index.as_query_engine(llm=MockLLM(), node_postprocessors=[postprocessor])
        asyncio.run(engine.aquery(QUERY)) if is_async else engine.query(QUERY)


def the_reranker_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    """Return the only span of the kind RERANKER."""
    [span] = [span for span in exporter.get_finished_spans() if (span.attributes or {}).get(KIND) == "RERANKER"]
    return span


def ancestors(span: ReadableSpan, exporter: InMemorySpanExporter) -> list[str]:
    """Return the names of the spans around a span, the nearest first."""
    by_id = {each.context.span_id: each for each in exporter.get_finished_spans() if each.context}
    names = []
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        names.append(span.name)
    return names


BOTH = pytest.mark.parametrize("framework", ["langchain", "llamaindex"])
WAYS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@BOTH
@WAYS
def test_a_call_is_one_reranker_span(
    framework: str, is_async: bool, is_instrumented: bool, exporter: InMemorySpanExporter
) -> None:
    """With query, model, top_k, documents and scores; around it are the framework's spans and the caller's."""
    rank(framework, Reranker(FakeScorer()), is_async=is_async, top_n=2)
    span = the_reranker_span(exporter)
    attributes = dict(span.attributes or {})
    assert attributes["reranker.query"] == QUERY
    assert attributes["reranker.model_name"] == "fake"
    assert attributes["reranker.top_k"] == 2
    for number, text in enumerate(TEXTS):
        assert attributes[f"reranker.input_documents.{number}.document.content"] == text
    for number, text in enumerate(BEST_FIRST[:2]):
        assert attributes[f"reranker.output_documents.{number}.document.content"] == text
        assert 0.0 < attributes[f"reranker.output_documents.{number}.document.score"] <= 1.0  # type: ignore[operator]
    assert "reranker.output_documents.2.document.content" not in attributes
    around = ancestors(span, exporter)
    assert around[-1] == "request"
    if is_instrumented and framework == "langchain":
        assert around[:2] == ["RerankCompressor", "RerankRetriever"]
    if not is_instrumented:
        assert around == ["request"]


@BOTH
@WAYS
@pytest.mark.usefixtures("is_instrumented")
def test_the_model_that_answered_is_named(framework: str, is_async: bool, exporter: InMemorySpanExporter) -> None:
    """Provider and model apart, and not the one that was asked."""
    down = FakeScorer(name="cohere:rerank-v3.5", error=ScorerError("down"))
    reranker = Reranker(Fallback([down, FakeScorer(name="voyage:rerank-2.5")], on=[ScorerError]))
    rank(framework, reranker, is_async=is_async)
    assert (the_reranker_span(exporter).attributes or {})["reranker.model_name"] == "voyage:rerank-2.5"
    [ours] = [span for span in exporter.get_finished_spans() if span.name.startswith("rerank ")]
    attributes = ours.attributes or {}
    assert (attributes["gen_ai.provider.name"], attributes["gen_ai.response.model"]) == ("voyage", "rerank-2.5")
    assert attributes["gen_ai.request.model"] == "fallback(cohere:rerank-v3.5, voyage:rerank-2.5)"


@BOTH
@WAYS
@pytest.mark.usefixtures("is_instrumented")
def test_a_failure_and_a_passthrough_are_visible(
    framework: str, is_async: bool, exporter: InMemorySpanExporter
) -> None:
    """An error is an error; a passthrough says that it was not reranked."""
    with pytest.raises(ScorerError):
        rank(framework, Reranker(FakeScorer(error=ScorerError("down"))), is_async=is_async)
    assert the_reranker_span(exporter).status.status_code is trace.StatusCode.ERROR
    exporter.clear()
    lenient = Reranker(FakeScorer(error=ScorerError("down")), on_error="passthrough")
    rank(framework, lenient, is_async=is_async)
    attributes = the_reranker_span(exporter).attributes or {}
    assert attributes["rerank.reranked"] is False
    assert attributes["reranker.output_documents.0.document.content"] == TEXTS[0]


@pytest.mark.parametrize("is_instrumented", [False], indirect=True)
@BOTH
def test_texts_may_stay_out(
    framework: str, is_instrumented: bool, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables that OpenInference has for it; scores and model stay."""
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    monkeypatch.setenv("OPENINFERENCE_HIDE_OUTPUTS", "true")
    rank(framework, Reranker(FakeScorer()), is_async=False)
    attributes = dict(the_reranker_span(exporter).attributes or {})
    assert not {*TEXTS, QUERY} & {str(value) for value in attributes.values()}
    assert "reranker.output_documents.0.document.score" in attributes


@pytest.mark.parametrize("is_instrumented", [False], indirect=True)
@pytest.mark.usefixtures("is_instrumented")
def test_many_documents_push_nothing_important_out(exporter: InMemorySpanExporter) -> None:
    """A tracer keeps 128 attributes by default, and drops the first ones."""
    documents = [Document(f"text {number}") for number in range(300)]
    RerankCompressor(reranker=Reranker(FakeScorer())).compress_documents(documents, QUERY)
    attributes = the_reranker_span(exporter).attributes or {}
    assert {"reranker.query", "reranker.model_name", "reranker.top_k", "gen_ai.response.model"} <= set(attributes)


@BOTH
@WAYS
@pytest.mark.usefixtures("is_instrumented")
def test_context_variables_reach_the_scorer(framework: str, is_async: bool) -> None:
    """On the background loop, whatever the framework does in between."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen = []

    async def answer(query: str, texts: Any) -> float:
        seen.append((tenant.get(), trace.get_current_span().get_span_context().is_valid))
        return 0.5

    token = tenant.set("ann")
    rank(framework, Reranker(Calls(answer)), is_async=is_async)
    tenant.reset(token)
    assert seen == [("ann", True)]
