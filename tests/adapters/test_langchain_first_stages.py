"""Config and keyword arguments of a call reach every first stage, alone and nested, in every way to call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError
from support.langchain_parts import FirstStage, vector_store

from langchain_rerankers import HybridRetriever, RerankCompressor, RerankRetriever
from rerank_core import ConfigurationError, Reranker
from rerank_core.testing import FakeScorer

QUERY = "memory leak"


class Tenants(BaseRetriever):
    """Returns the documents of one tenant, which is a field, so configurable, and may be given in a call."""

    tenant: str = "nobody"

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, tenant: str | None = None
    ) -> list[Document]:
        return [Document(f"{tenant or self.tenant}'s memory leak {number}") for number in range(3)]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **given: Any) -> list[Document]:
        return self._get_relevant_documents(query, run_manager=run_manager, **given)


def tenants() -> Any:
    """Return a retriever whose tenant is configurable."""
    return Tenants().configurable_fields(tenant=ConfigurableField(id="tenant"))


def seen_config(query: str, config: RunnableConfig) -> list[Document]:
    """Return what a first stage sees of the config."""
    return [Document(f"{config['configurable'].get('tenant', 'nobody')}'s memory leak")]


def rerank(first: Any, **options: Any) -> RerankRetriever:
    """Return two stages without a model."""
    return RerankRetriever(
        retriever=first, compressor=RerankCompressor(reranker=Reranker(FakeScorer())), **options
    )


SHAPES: dict[str, Callable[[Any], Any]] = {
    "rerank": rerank,
    "hybrid": lambda first: HybridRetriever(retrievers=[first, first]),
    "rerank of hybrid": lambda first: rerank(HybridRetriever(retrievers=[first, first])),
    "hybrid of rerank": lambda first: HybridRetriever(retrievers=[rerank(first), first]),
    "configurable": lambda first: rerank(first).configurable(),
}
WAYS: dict[str, Callable[..., list[Document]]] = {
    "invoke": lambda retriever, config, **given: retriever.invoke(QUERY, config, **given),
    "ainvoke": lambda retriever, config, **given: asyncio.run(retriever.ainvoke(QUERY, config, **given)),
    "batch": lambda retriever, config, **given: retriever.batch([QUERY] * 2, config, **given)[1],
    "stream": lambda retriever, config, **given: next(iter(retriever.stream(QUERY, config, **given))),
    "with_config": lambda retriever, config, **given: retriever.with_config(config).invoke(QUERY, **given),
}


def owners(documents: list[Document]) -> set[str]:
    """Return whose documents these are."""
    return {document.page_content.partition("'")[0] for document in documents}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_configured_reaches_the_first_stage(shape: str, way: str) -> None:
    """No other tenant's documents come back, whether a field or a function reads the config."""
    config: RunnableConfig = {"configurable": {"tenant": "ann"}}
    for first in (tenants(), RunnableLambda(seen_config)):
        assert owners(WAYS[way](SHAPES[shape](first), config)) == {"ann"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_keyword_arguments_reach_the_first_stage(shape: str, way: str) -> None:
    """As a filter does that is given for one call."""
    assert owners(WAYS[way](SHAPES[shape](Tenants()), None, tenant="bob")) == {"bob"}


@pytest.mark.parametrize("shape", ["rerank", "hybrid", "rerank of hybrid", "hybrid of rerank"])
def test_config_specs_are_those_of_all_sources(shape: str) -> None:
    """So that an application sees what can be configured."""
    assert "tenant" in {spec.id for spec in SHAPES[shape](tenants()).config_specs}


@pytest.mark.parametrize("shape", ["rerank", "hybrid", "rerank of hybrid", "hybrid of rerank"])
def test_a_keyword_argument_that_would_be_ignored_is_refused(shape: str) -> None:
    """A retriever without keyword arguments would drop a filter without a word."""
    first = FirstStage(documents=[Document("text")])
    for source in (first, first.with_config(tags=["a"]), first | RunnableLambda(lambda found: found)):
        with pytest.raises(TypeError, match="the first stage FirstStage takes no filter"):
            SHAPES[shape](source).invoke(QUERY, filter={"tenant": "ann"})


def test_a_vector_stores_filter_reaches_it() -> None:
    """``RerankRetriever.invoke(query, filter=…)`` filters in the store."""
    store = vector_store([f"text {number}" for number in range(9)])
    retriever = rerank(HybridRetriever(retrievers=[store.as_retriever(search_kwargs={"k": 9})]), top_n=None)
    found = retriever.invoke(QUERY, filter=lambda document: document.id in ("id-3", "id-7"))
    assert {document.id for document in found} == {"id-3", "id-7"}


# How many candidates


class Numbered(BaseRetriever):
    """Takes ``k`` in a call, as LangChain's standard tests ask of retrievers."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int = 2
    ) -> list[Document]:
        return [Document(f"text {number}") for number in range(k)]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **given: Any) -> list[Document]:
        return self._get_relevant_documents(query, run_manager=run_manager, **given)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_candidates_is_translated_into_the_first_stages_word(way: str) -> None:
    """For vector stores, hybrid and nested retrievers, and those that take k; in a call as well."""
    store = vector_store([f"text {number}" for number in range(30)]).as_retriever()
    hybrid = HybridRetriever(retrievers=[store.model_copy(update={"search_kwargs": {"k": 30}})])
    for source in (store, store.with_config(tags=["a"]), Numbered(), hybrid, rerank(hybrid)):
        scorer = FakeScorer()
        retriever = RerankRetriever(
            retriever=source, compressor=RerankCompressor(reranker=Reranker(scorer), top_n=3), candidates=20
        )
        assert len(WAYS[way](retriever, None)) == 3
        assert len(scorer.seen) == 20
        scorer.seen.clear()
        WAYS[way](retriever, None, candidates=7)
        assert len(scorer.seen) == 7


def test_candidates_that_nobody_takes_are_refused() -> None:
    """When the retriever is made, or in the call."""
    with pytest.raises(ValidationError, match="a FirstStage, does not take a number in a call"):
        rerank(FirstStage(documents=[]), candidates=5)
    with pytest.raises(ConfigurationError, match="a RunnableLambda, does not take a number"):
        rerank(RunnableLambda(lambda query: [])).invoke(QUERY, candidates=5)
    with pytest.raises(ConfigurationError, match="candidates is 0"):
        HybridRetriever(retrievers=[Tenants()]).invoke(QUERY, candidates=0)


# Sources that fail


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_source_that_fails_may_be_skipped(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning; where all fail, the first error is raised."""

    def fails(query: str) -> list[Document]:
        raise LookupError("the index is gone")

    broken = RunnableLambda(fails, name="keywords")
    hybrid = HybridRetriever(retrievers=[broken, Tenants()], weights=[3, 1], on_source_error="skip")
    with caplog.at_level(logging.WARNING):
        found = WAYS[way](hybrid, None)
    assert found[0].metadata["retrieval_score"] == 1.0
    assert len(found) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the source keywords failed and is left out: LookupError: the index is gone"
    ]
    with pytest.raises(LookupError):
        WAYS[way](HybridRetriever(retrievers=[broken, broken], on_source_error="skip"), None)


def test_the_fused_score_is_kept() -> None:
    """In the metadata, through the reranker, under a name of one's own choice."""
    hybrid = HybridRetriever(retrievers=[Tenants(), Tenants()], score_key="rrf")
    [best, *_] = rerank(hybrid).invoke(QUERY)
    assert 0.0 < best.metadata["rrf"] <= 1.0
    assert type(best.metadata["rrf"]) is float


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own suite, for the hybrid retriever."""

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        """Return the class under test."""
        return HybridRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """Return sources that find more than is asked for."""
        store: InMemoryVectorStore = vector_store(["a", "b", "c", "d"])
        return {"retrievers": [store.as_retriever(), Tenants()]}

    @property
    def num_results_arg_name(self) -> str:
        """Return our word for how many documents a first stage returns."""
        return "candidates"

    @property
    def retriever_query_example(self) -> str:
        """Return a query."""
        return QUERY
