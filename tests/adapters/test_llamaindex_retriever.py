"""RerankRetriever for LlamaIndex: two stages as one retriever, its options, events, spans and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import BaseNode, IndexNode, NodeWithScore, QueryBundle, TextNode
from pydantic import ValidationError
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.scorers import Endless
from support.waiting import until

from llamaindex_rerankers import RerankPostprocessor, RerankRetriever
from rerank_core import ConfigurationError, Reranker, ScorerError
from rerank_core.testing import FakeScorer

Retrieve = Callable[..., list[NodeWithScore]]


class FirstStage(BaseRetriever):
    """Returns its nodes in their order, whatever the query; remembers the queries."""

    def __init__(self, nodes: list[BaseNode], callback_manager: CallbackManager | None = None) -> None:
        self.nodes = nodes
        self.queries: list[QueryBundle] = []
        super().__init__(callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.queries.append(query_bundle)
        return [NodeWithScore(node=node, score=1.0) for node in self.nodes]


@pytest.fixture(params=["sync", "async"])
def retrieve(request: pytest.FixtureRequest) -> Retrieve:
    """Return a function that asks a retriever, sync and async in turn."""

    def call(retriever: BaseRetriever, query: str | QueryBundle = QUERY) -> list[NodeWithScore]:
        return asyncio.run(retriever.aretrieve(query)) if request.param == "async" else retriever.retrieve(query)

    return call


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    """Record all spans of LlamaIndex for a test."""
    handler = SimpleSpanHandler()
    root = get_dispatcher()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


def first_stage(manager: CallbackManager | None = None) -> FirstStage:
    """Return a first stage of the usual texts."""
    return FirstStage([TextNode(text=text) for text in TEXTS], manager)


def fake() -> Reranker:
    """Return a reranker without a model."""
    return Reranker(FakeScorer())


def texts(found: list[NodeWithScore]) -> list[str]:
    """Return the texts of nodes."""
    return [node.text for node in found]


def test_options_or_a_postprocessor(retrieve: Retrieve) -> None:
    """Both ways give the same."""
    by_options = RerankRetriever(first_stage(), reranker=fake(), top_n=2)
    ready = RerankPostprocessor(reranker=fake(), top_n=2)
    by_object = RerankRetriever(first_stage(), ready)
    assert texts(retrieve(by_options)) == texts(retrieve(by_object)) == BEST_FIRST[:2]
    assert by_object.postprocessor is ready


def test_the_query_bundle_reaches_the_first_stage(retrieve: Retrieve) -> None:
    """With all that it holds, an embedding say."""
    stage = first_stage()
    bundle = QueryBundle(QUERY, embedding=[0.5])
    assert texts(retrieve(RerankRetriever(stage, reranker=fake(), top_n=1), bundle)) == BEST_FIRST[:1]
    assert stage.queries == [bundle]


def test_nothing_found_is_nothing(retrieve: Retrieve) -> None:
    """Without a request."""
    scorer = FakeScorer()
    assert retrieve(RerankRetriever(FirstStage([]), reranker=Reranker(scorer))) == []
    assert scorer.calls == 0


def test_wrong_arguments_are_refused() -> None:
    """Where they are given, not with the first query."""
    with pytest.raises(ConfigurationError, match="retriever is a list: give an index, or"):
        RerankRetriever([])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="which brings its own top_n"):
        RerankRetriever(first_stage(), RerankPostprocessor(), top_n=3)
    with pytest.raises(ValidationError, match="top_m"):
        RerankRetriever(first_stage(), top_m=3)


def test_an_index_is_asked_for_candidates(retrieve: Retrieve, caplog: pytest.LogCaptureFixture) -> None:
    """50 of them unless told otherwise."""
    nodes = [TextNode(text=f"text {number}") for number in range(80)]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(4))
    for options, expected in (({}, 50), ({"candidates": 20}, 20)):
        scorer = FakeScorer()
        assert len(retrieve(RerankRetriever(index, reranker=Reranker(scorer), top_n=3, **options))) == 3
        assert len(scorer.seen) == expected
    assert caplog.records == []
    with pytest.raises(ConfigurationError, match="candidates is 0"):
        RerankRetriever(index, candidates=0)
    with pytest.raises(ConfigurationError, match="with a VectorIndexRetriever: give an index, or set"):
        RerankRetriever(index.as_retriever(), candidates=20)


def test_a_first_stage_that_returns_too_little_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with what to raise: LlamaIndex's default is 2."""
    index = VectorStoreIndex([TextNode(text="text")], embed_model=MockEmbedding(4))
    RerankRetriever(index.as_retriever(), reranker=fake(), top_n=5)
    assert [record.getMessage() for record in caplog.records] == [
        "the first stage returns 2 nodes, and top_n is 5: raise its similarity_top_k to 20 or more, "
        "or there is little to rerank"
    ]
    RerankRetriever(index.as_retriever(similarity_top_k=6), reranker=fake(), top_n=5)
    assert len(caplog.records) == 1


def test_index_nodes_are_resolved_before_reranking(retrieve: Retrieve) -> None:
    """Those of the first stage by it, those whose objects this retriever knows after it."""
    inner = TextNode(text="finding a memory leak", id_="inner")
    stage = FirstStage([IndexNode(text="see there", index_id="a", obj=inner), TextNode(text="Paris", id_="p")])
    scorer = FakeScorer()
    found = retrieve(RerankRetriever(stage, reranker=Reranker(scorer)))
    assert [node.node_id for node in found] == ["inner", "p"]
    assert scorer.seen == ["finding a memory leak", "Paris"]
    mapped = FirstStage([IndexNode(text="a memory leak", index_id="a"), TextNode(text="Paris", id_="p")])
    found = retrieve(RerankRetriever(mapped, reranker=fake(), object_map={"a": inner}))
    assert [node.node_id for node in found] == ["inner", "p"]
    objects = [IndexNode(text="a memory leak", index_id="a", obj=inner)]
    assert retrieve(RerankRetriever(mapped, reranker=fake(), objects=objects))[0].node_id == "inner"


def test_both_stages_report_to_one_callback_manager(retrieve: Retrieve) -> None:
    """The first stage's by default; the one that was given otherwise."""
    for given in (False, True):
        handler = LlamaDebugHandler(print_trace_on_end=False)
        manager = CallbackManager([handler])
        stage = first_stage(None if given else manager)
        ready = RerankPostprocessor(reranker=fake())
        retriever = (
            RerankRetriever(stage, ready, callback_manager=manager)
            if given
            else RerankRetriever(stage, reranker=fake())
        )
        assert retriever.callback_manager is retriever.postprocessor.callback_manager is manager
        retrieve(retriever)
        assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1
        assert len(handler.get_event_pairs(CBEventType.RETRIEVE)) == (1 if given else 2)


def test_a_ready_postprocessor_keeps_its_callback_manager() -> None:
    """Unless another one is given for the whole."""
    own = CallbackManager()
    ready = RerankPostprocessor(reranker=fake(), callback_manager=own)
    assert RerankRetriever(first_stage(), ready).postprocessor.callback_manager is own


def test_spans_are_nested(retrieve: Retrieve, spans: SimpleSpanHandler) -> None:
    """Both stages stand under the retriever's span, and none is left open."""
    retrieve(RerankRetriever(first_stage(), reranker=fake()))
    by_name = {span.id_.partition("-")[0]: span for span in spans.completed_spans}
    [outer] = [span for span in by_name.values() if span.parent_id is None]
    below = {name for name, span in by_name.items() if _under(span.parent_id, outer.id_, spans)}
    assert any("postprocess_nodes" in name for name in below)
    assert any(name.startswith("FirstStage.") for name in below)
    assert (spans.open_spans, spans.dropped_spans) == ({}, [])


def _under(parent: str | None, top: str, spans: SimpleSpanHandler) -> bool:
    """Tell whether a span of this parent stands, at any depth, under another."""
    parents = {span.id_: span.parent_id for span in spans.completed_spans}
    while parent is not None and parent != top:
        parent = parents.get(parent)
    return parent == top


def test_failures_end_every_span(retrieve: Retrieve, spans: SimpleSpanHandler) -> None:
    """The error is the scorer's own."""
    failing = Reranker(FakeScorer(error=RuntimeError("down")))
    with pytest.raises(ScorerError, match="RuntimeError"):
        retrieve(RerankRetriever(first_stage(), reranker=failing))
    assert spans.open_spans == {}
    assert spans.dropped_spans


async def test_cancelling_ends_the_work(spans: SimpleSpanHandler) -> None:
    """And every span."""
    scorer = Endless()
    call = asyncio.create_task(RerankRetriever(first_stage(), reranker=Reranker(scorer)).aretrieve(QUERY))
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active == 0
    assert spans.open_spans == {}


def test_it_stands_where_retrievers_stand(retrieve: Retrieve) -> None:
    """In a query engine, in a fusion of retrievers, and behind another of its kind."""
    two = RerankRetriever(first_stage(), reranker=fake(), top_n=2)
    response = RetrieverQueryEngine.from_args(two, llm=MockLLM()).query(QUERY)
    assert texts(response.source_nodes) == BEST_FIRST[:2]
    fusion = QueryFusionRetriever([two, two], llm=MockLLM(), num_queries=1, use_async=False)
    assert texts(retrieve(fusion)) == BEST_FIRST[:2]
    assert texts(retrieve(RerankRetriever(two, reranker=fake(), top_n=1))) == BEST_FIRST[:1]


def test_prompts_of_the_first_stage_are_reachable() -> None:
    """As those of every module of a LlamaIndex pipeline, by the name of the module."""
    fusion = QueryFusionRetriever([first_stage()], llm=MockLLM())
    retriever = RerankRetriever(RerankRetriever(fusion, reranker=fake()), reranker=fake())
    assert {name.partition(":")[0] for name in retriever.get_prompts()} <= {"retriever"}
    assert retriever._get_prompt_modules() == {"retriever": retriever.retriever}
