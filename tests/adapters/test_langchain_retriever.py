"""RerankRetriever: two stages as one retriever, LangChain's own test suite for retrievers, and its runs."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.langchain_parts import FirstStage, vector_store
from support.scorers import Endless
from support.waiting import until

from langchain_rerankers import RerankCompressor, RerankRetriever
from rerank_core import ConfigurationError, Reranker, ScorerError, Selection
from rerank_core.testing import FakeScorer

Retrieve = Callable[..., list[Document]]


@pytest.fixture(params=["sync", "async"])
def retrieve(request: pytest.FixtureRequest) -> Retrieve:
    """Return a function that calls a retriever, sync and async in turn."""

    def call(retriever: Any, query: str = QUERY, config: Any = None, **options: Any) -> list[Document]:
        if request.param == "sync":
            return retriever.invoke(query, config, **options)
        return asyncio.run(retriever.ainvoke(query, config, **options))

    return call


def two_stages(scorer: Any = None, *, texts: list[str] = TEXTS, **options: Any) -> RerankRetriever:
    """Return a retriever over texts in their order, reranked by a scorer without a model."""
    return RerankRetriever(
        retriever=FirstStage(documents=[Document(text) for text in texts]),
        compressor=RerankCompressor(reranker=Reranker(scorer or FakeScorer())),
        **options,
    )


def contents(documents: list[Document]) -> list[str]:
    """Return the texts of documents."""
    return [document.page_content for document in documents]


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own suite, over a vector store and the embedded model."""

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        """Return the class under test."""
        return RerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """Return a first stage that finds more than is asked for."""
        return {"retriever": vector_store(TEXTS * 3).as_retriever(search_kwargs={"k": 8})}

    @property
    def num_results_arg_name(self) -> str:
        """Return our word for how many documents are returned."""
        return "top_n"

    @property
    def retriever_query_example(self) -> str:
        """Return a query."""
        return "How do I find a memory leak?"


def test_the_standard_suite_is_the_whole_one() -> None:
    """Five tests ran above, none overridden."""
    inherited = {name for name in dir(RetrieversIntegrationTests) if name.startswith("test_")}
    assert len(inherited) >= 5
    assert not inherited & set(vars(TestStandard))


def test_the_second_stage_ranks_what_the_first_found(retrieve: Retrieve) -> None:
    """With ids and scores, from a vector store."""
    retriever = RerankRetriever(
        retriever=vector_store(TEXTS).as_retriever(search_kwargs={"k": 4}),
        compressor=RerankCompressor(reranker=Reranker(FakeScorer()), top_n=2),
    )
    ranked = retrieve(retriever)
    assert contents(ranked) == BEST_FIRST[:2]
    assert [document.id for document in ranked] == ["id-1", "id-2"]
    assert ranked[0].metadata["relevance_score"] > ranked[1].metadata["relevance_score"]


def test_the_default_second_stage_is_the_embedded_model(retrieve: Retrieve) -> None:
    """Nothing but a first stage is needed."""
    retriever = RerankRetriever(retriever=FirstStage(documents=[Document(text) for text in TEXTS]))
    ranked = retrieve(retriever, "How do I find a memory leak?")
    assert ranked[0].page_content == "finding a memory leak"
    assert retriever.compressor.model == "embedded"


def test_the_first_stage_may_be_any_runnable(retrieve: Retrieve) -> None:
    """From a query to documents."""
    found = RunnableLambda(lambda query: [Document(f"{query} {number}") for number in range(3)])
    retriever = RerankRetriever(retriever=found, compressor=RerankCompressor(reranker=Reranker(FakeScorer())))
    assert sorted(contents(retrieve(retriever))) == [f"{QUERY} {number}" for number in range(3)]


def test_nothing_found_is_nothing_ranked(retrieve: Retrieve) -> None:
    """An empty first stage gives an empty list, without a call of the scorer."""
    scorer = FakeScorer()
    assert retrieve(two_stages(scorer, texts=[])) == []
    assert scorer.calls == 0


def test_the_callers_documents_are_never_changed(retrieve: Retrieve) -> None:
    """A first stage that keeps its documents finds them as they were."""
    retriever = two_stages()
    kept = retriever.retriever.documents  # type: ignore[union-attr]
    snapshot = copy.deepcopy(kept)
    retrieve(retriever, top_n=2)
    assert kept == snapshot


# top_n


def test_top_n_is_how_many_are_returned(retrieve: Retrieve) -> None:
    """Of a call, else of the retriever, else the compressor's top_n."""
    assert contents(retrieve(two_stages())) == BEST_FIRST
    assert contents(retrieve(two_stages(top_n=3))) == BEST_FIRST[:3]
    assert contents(retrieve(two_stages(), top_n=2)) == BEST_FIRST[:2]
    assert contents(retrieve(two_stages(top_n=3), top_n=1)) == BEST_FIRST[:1]
    assert contents(retrieve(two_stages(top_n=1), top_n=3)) == BEST_FIRST[:3]
    assert contents(retrieve(two_stages(top_n=100))) == BEST_FIRST


def test_top_n_may_exceed_the_compressors_top_n(retrieve: Retrieve) -> None:
    """It stands instead of top_n, and for that call alone."""
    texts = [f"text {number}" for number in range(9)]
    retriever = RerankRetriever(
        retriever=FirstStage(documents=[Document(text) for text in texts]),
        compressor=RerankCompressor(reranker=Reranker(FakeScorer()), top_n=2),
    )
    assert len(retrieve(retriever, top_n=7)) == 7
    assert len(retrieve(retriever)) == 2
    assert retriever.compressor.top_n == 2


def test_top_n_replaces_the_top_n_of_a_ready_reranker(retrieve: Retrieve) -> None:
    """And leaves the rest of its selection."""
    ready = Reranker(FakeScorer(), selection=Selection(score_threshold=0.5, top_n=1))
    retriever = RerankRetriever(
        retriever=FirstStage(documents=[Document(text) for text in TEXTS]),
        compressor=RerankCompressor(reranker=ready),
    )
    assert contents(retrieve(retriever)) == BEST_FIRST[:1]
    assert contents(retrieve(retriever, top_n=4)) == BEST_FIRST[:3]


@pytest.mark.parametrize("top_n", [0, -1, 1.5])
def test_a_wrong_top_n_is_refused(retrieve: Retrieve, top_n: float) -> None:
    """On the constructor and in a call; the first stage's documents are not returned instead."""
    with pytest.raises(ValidationError, match="top_n"):
        two_stages(top_n=top_n)
    with pytest.raises(ConfigurationError, match=f"top_n is {top_n}"):
        retrieve(two_stages(), top_n=top_n)


def test_unknown_arguments_are_refused(retrieve: Retrieve) -> None:
    """Instead of ignored, on the constructor and in a call."""
    with pytest.raises(ValidationError, match="top_k"):
        two_stages(top_k=3)
    with pytest.raises(TypeError, match="FirstStage takes no depth"):
        retrieve(two_stages(), depth=3)


def test_top_n_makes_no_scorer_anew(retrieve: Retrieve, provider: ModuleType) -> None:
    """A retriever with top_n calls one scorer all along, also after pickling and after a change of options."""
    compressor = pickle.loads(pickle.dumps(RerankCompressor(model="keyed")))
    retriever = RerankRetriever(
        retriever=FirstStage(documents=[Document(text) for text in TEXTS]), compressor=compressor, top_n=2
    )
    provider.made.clear()
    for _ in range(3):
        assert len(retrieve(retriever)) == 2
    assert len(provider.made) == 1
    compressor.timeout = 30.0
    for top_n in (1, 2, 3):
        assert len(retrieve(retriever, top_n=top_n)) == top_n
    assert len(provider.made) == 2


def test_top_n_is_configurable(retrieve: Retrieve) -> None:
    """By LangChain's own way to change a field for one call."""
    configurable = two_stages(top_n=3).configurable_fields(top_n=ConfigurableField(id="n"))
    assert contents(retrieve(configurable)) == BEST_FIRST[:3]
    assert contents(retrieve(configurable, config={"configurable": {"n": 1}})) == BEST_FIRST[:1]


# Failures, batches, tasks


def test_failures_reach_the_caller(retrieve: Retrieve) -> None:
    """Of the second stage, and of the first, each as it was raised."""
    with pytest.raises(ScorerError, match="RuntimeError"):
        retrieve(two_stages(FakeScorer(error=RuntimeError("down"))))

    def fails(query: str) -> list[Document]:
        raise LookupError(query)

    with pytest.raises(LookupError, match=QUERY):
        retrieve(RerankRetriever(retriever=RunnableLambda(fails), compressor=two_stages().compressor))


def test_fallbacks_of_langchain_apply(retrieve: Retrieve) -> None:
    """The retriever is a runnable like any other."""
    failing = two_stages(FakeScorer(error=RuntimeError("down")))
    assert contents(retrieve(failing.with_fallbacks([two_stages(top_n=1)]))) == BEST_FIRST[:1]


def test_batch_gives_what_single_calls_give() -> None:
    """In the order of the queries."""
    retriever = two_stages(top_n=2)
    queries = ["memory", "Paris in spring", "roof", "leak"]
    assert retriever.batch(queries) == [retriever.invoke(query) for query in queries]


async def test_async_batches_and_streams_give_what_single_calls_give() -> None:
    """``abatch`` in the order of the queries; ``astream`` yields the one result."""
    retriever = two_stages(top_n=2)
    queries = ["memory", "Paris in spring", "roof", "leak"]
    expected = [retriever.invoke(query) for query in queries]
    assert await retriever.abatch(queries) == expected
    assert [chunk async for chunk in retriever.astream(queries[0])] == expected[:1]
    assert await asyncio.gather(*(retriever.ainvoke(query) for query in queries * 5)) == expected * 5


def test_one_retriever_serves_one_loop_after_another() -> None:
    """``asyncio.run`` twice, a sync call in between, and threads through ``batch``."""
    retriever = two_stages()
    first = asyncio.run(retriever.ainvoke(QUERY))
    assert retriever.batch([QUERY] * 8, {"max_concurrency": 4}) == [first] * 8
    assert asyncio.run(retriever.ainvoke(QUERY)) == first


async def test_cancelling_a_call_cancels_the_work() -> None:
    """Through the retriever too."""
    scorer = Endless()
    call = asyncio.create_task(two_stages(scorer).ainvoke(QUERY))
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active == 0


# Runs


class Runs(BaseCallbackHandler):
    """Notes the runs of retrievers as (name, name of the parent) and how each ended."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.started: list[tuple[str, str | None]] = []
        self.ended: list[tuple[str, object]] = []

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a run and its parent."""
        self.names[run_id] = kwargs["name"]
        self.started.append((kwargs["name"], None if parent_run_id is None else self.names[parent_run_id]))

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note how many documents a run found."""
        self.ended.append((self.names[run_id], len(documents)))

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note the error that ended a run."""
        self.ended.append((self.names[run_id], type(error)))


class AsyncRuns(AsyncCallbackHandler):
    """Notes the same, as an async handler."""

    def __init__(self) -> None:
        self.runs = Runs()

    async def on_retriever_start(self, *args: Any, **kwargs: Any) -> None:
        """Note a run and its parent."""
        self.runs.on_retriever_start(*args, **kwargs)

    async def on_retriever_end(self, *args: Any, **kwargs: Any) -> None:
        """Note how many documents a run found."""
        self.runs.on_retriever_end(*args, **kwargs)


def test_the_first_stage_is_a_child_of_the_retrievers_run(retrieve: Retrieve) -> None:
    """So that a trace shows both, each with what it found."""
    runs = Runs()
    retrieve(two_stages(top_n=2), config={"callbacks": [runs]})
    assert runs.started == [("RerankRetriever", None), ("FirstStage", "RerankRetriever")]
    assert runs.ended == [("FirstStage", 4), ("RerankRetriever", 2)]


async def test_an_async_handler_sees_both_runs() -> None:
    """Parent and child, as a sync handler does."""
    handler = AsyncRuns()
    await two_stages(top_n=2).ainvoke(QUERY, {"callbacks": [handler]})
    assert handler.runs.started == [("RerankRetriever", None), ("FirstStage", "RerankRetriever")]
    assert handler.runs.ended == [("FirstStage", 4), ("RerankRetriever", 2)]


def test_a_failing_second_stage_ends_the_run_with_its_error(retrieve: Retrieve) -> None:
    """After the first stage ended well."""
    runs = Runs()
    with pytest.raises(ScorerError):
        retrieve(two_stages(FakeScorer(error=RuntimeError("down"))), config={"callbacks": [runs]})
    assert runs.ended == [("FirstStage", 4), ("RerankRetriever", ScorerError)]


def test_a_tracer_keeps_one_tree(retrieve: Retrieve) -> None:
    """One root run with a child for each stage; inputs and outputs are the query and the documents."""
    collector = RunCollectorCallbackHandler()
    ranked = retrieve(two_stages(top_n=1), config={"callbacks": [collector], "run_name": "search"})
    [root] = collector.traced_runs
    assert (root.name, root.inputs, root.outputs) == ("search", {"query": QUERY}, {"documents": ranked})
    assert [child.name for child in root.child_runs] == ["FirstStage", "RerankCompressor"]
