"""RerankPostprocessor's events and spans: both kinds, balanced, however a call ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.span import SpanDropEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import Field
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.scorers import Endless
from support.waiting import until

from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ConfigurationError, Reranker, ScorerError, ScorerUnavailableError, Usage
from rerank_core.testing import FakeScorer

Postprocess = Callable[..., list[NodeWithScore]]


class Events(BaseEventHandler):
    """Keeps the events of rerankers, and of spans that were dropped."""

    seen: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return "Events"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """Keep an event."""
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent, SpanDropEvent)):
            self.seen.append(event)

    @property
    def names(self) -> list[str]:
        """Return what kinds of events came, in order."""
        return [event.class_name() for event in self.seen if not isinstance(event, SpanDropEvent)]


class Legacy(BaseCallbackHandler):
    """Keeps the callbacks of rerankers as (start or end, event id, payload)."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list[tuple[str, str, dict[str, Any]]] = []

    def on_event_start(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> str:
        """Keep a start."""
        assert event_type is CBEventType.RERANKING
        self.seen.append(("start", event_id, payload))
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> None:
        """Keep an end."""
        assert event_type is CBEventType.RERANKING
        self.seen.append(("end", event_id, payload))

    def start_trace(self, trace_id: str | None = None) -> None:
        """Do nothing."""

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        """Do nothing."""

    @property
    def names(self) -> list[str]:
        """Return what kinds of callbacks came, in order."""
        return [name for name, _, _ in self.seen]


@pytest.fixture
def events() -> Iterator[Events]:
    """Listen to all events of LlamaIndex for a test."""
    handler = Events()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    """Record all spans of LlamaIndex for a test."""
    handler = SimpleSpanHandler()
    root = get_dispatcher()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


@pytest.fixture(params=["sync", "async"])
def postprocess(request: pytest.FixtureRequest) -> Postprocess:
    """Return a function that calls a postprocessor, sync and async in turn."""

    def call(
        postprocessor: RerankPostprocessor, nodes: list[NodeWithScore], query: QueryBundle | None
    ) -> list[NodeWithScore]:
        if request.param == "sync":
            return postprocessor.postprocess_nodes(nodes, query)
        return asyncio.run(postprocessor.apostprocess_nodes(nodes, query))

    return call


def made(scorer: Any = None, *, legacy: Legacy, **options: Any) -> RerankPostprocessor:
    """Return a postprocessor around a scorer without a model, that reports to a handler."""
    reranker = Reranker(scorer or FakeScorer())
    return RerankPostprocessor(reranker=reranker, callback_manager=CallbackManager([legacy]), **options)


def nodes() -> list[NodeWithScore]:
    """Return the usual texts as nodes."""
    return [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]


def test_both_kinds_of_events_tell_what_happened(postprocess: Postprocess, events: Events) -> None:
    """Query, model and nodes before; the surviving nodes, with their scores, after."""
    legacy, given, query = Legacy(), nodes(), QueryBundle(QUERY)
    ranked = postprocess(made(legacy=legacy, top_n=2), given, query)
    start, end = events.seen
    assert (start.class_name(), end.class_name()) == ("ReRankStartEvent", "ReRankEndEvent")
    assert (start.query, start.nodes, start.top_n, start.model_name) == (query, given, 2, "fake")
    assert all(one is other for one, other in zip(start.nodes, given, strict=True))
    assert end.nodes == ranked
    (_, started, before), (_, ended, after) = legacy.seen
    assert legacy.names == ["start", "end"]
    assert started == ended
    assert before == {
        EventPayload.NODES: given,
        EventPayload.MODEL_NAME: "fake",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert after == {EventPayload.NODES: ranked, **end.tags}


def test_events_name_the_scorer_of_the_options(postprocess: Postprocess, events: Events) -> None:
    """The model as it was asked for."""
    postprocess(RerankPostprocessor(), nodes(), QueryBundle(QUERY))
    assert events.seen[0].model_name == "embedded"


def test_no_top_n_is_reported_as_all(postprocess: Postprocess, events: Events) -> None:
    """The event's field is a number."""
    legacy = Legacy()
    postprocess(made(legacy=legacy, top_n=None), nodes(), QueryBundle(QUERY))
    assert events.seen[0].top_n == 4
    assert legacy.seen[0][2][EventPayload.TOP_K] == 4


@pytest.mark.parametrize("query", [QueryBundle(QUERY), None], ids=["query", "no query"])
def test_events_are_balanced_without_nodes(
    postprocess: Postprocess, events: Events, query: QueryBundle | None
) -> None:
    """A start has its end, though there was nothing to do."""
    legacy = Legacy()
    assert postprocess(made(legacy=legacy, top_n=None), [], query) == []
    assert events.names == ["ReRankStartEvent", "ReRankEndEvent"]
    assert (events.seen[0].top_n, events.seen[1].nodes) == (0, [])
    assert legacy.names == ["start", "end"]
    assert legacy.seen[1][2] == {EventPayload.NODES: [], "model": "fake", "usage": asdict(Usage())}


@pytest.mark.parametrize(
    ("scorer", "query", "error"),
    [
        (FakeScorer(error=RuntimeError("down")), QueryBundle(QUERY), ScorerError),
        (FakeScorer(), None, ConfigurationError),
        (FakeScorer(), QueryBundle(" "), ConfigurationError),
    ],
    ids=["scorer fails", "no query", "blank query"],
)
def test_events_are_balanced_after_an_error(
    postprocess: Postprocess, events: Events, scorer: FakeScorer, query: QueryBundle | None, error: type[Exception]
) -> None:
    """The end tells of no nodes; the legacy one holds the exception."""
    legacy = Legacy()
    with pytest.raises(error) as caught:
        postprocess(made(scorer, legacy=legacy), nodes(), query)
    assert events.names == ["ReRankStartEvent", "ReRankEndEvent"]
    assert next(event for event in events.seen if isinstance(event, ReRankEndEvent)).nodes == []
    assert legacy.names == ["start", "end"]
    assert legacy.seen[1][2] == {EventPayload.EXCEPTION: caught.value}
    assert legacy.seen[0][1] == legacy.seen[1][1]


def test_events_are_balanced_when_a_text_cannot_be_read(postprocess: Postprocess, events: Events) -> None:
    """A failing text_fn is the caller's, and ends the events too."""
    legacy = Legacy()
    with pytest.raises(ZeroDivisionError):
        postprocess(made(legacy=legacy, text_fn=lambda node: 1 / 0), nodes(), QueryBundle(QUERY))
    assert events.names == ["ReRankStartEvent", "ReRankEndEvent"]
    assert legacy.names == ["start", "end"]


async def test_events_are_balanced_after_cancellation(events: Events, spans: SimpleSpanHandler) -> None:
    """The work was given up, and everybody who saw it start saw it end."""
    scorer, legacy = Endless(), Legacy()
    call = asyncio.create_task(made(scorer, legacy=legacy).apostprocess_nodes(nodes(), QueryBundle(QUERY)))
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scorer.active == 0
    assert events.names == ["ReRankStartEvent", "ReRankEndEvent"]
    assert legacy.names == ["start", "end"]
    assert (len(spans.open_spans), len(spans.dropped_spans)) == (0, 1)


async def test_events_of_concurrent_calls_stay_apart(events: Events) -> None:
    """Each start has an end of the same id."""
    legacy = Legacy()
    postprocessor = made(FakeScorer(latency=0.005), legacy=legacy)
    await asyncio.gather(*(postprocessor.apostprocess_nodes(nodes(), QueryBundle(QUERY)) for _ in range(10)))
    assert sorted(events.names) == ["ReRankEndEvent"] * 10 + ["ReRankStartEvent"] * 10
    starts = {event_id for name, event_id, _ in legacy.seen if name == "start"}
    ends = {event_id for name, event_id, _ in legacy.seen if name == "end"}
    assert starts == ends
    assert len(starts) == 10


def test_a_wrong_option_is_refused_before_any_event(postprocess: Postprocess, events: Events) -> None:
    """No start without an end."""
    legacy = Legacy()
    postprocessor = made(legacy=legacy).model_copy(update={"top_n": 0})
    with pytest.raises(ConfigurationError, match="top_n is 0"):
        postprocess(postprocessor, nodes(), QueryBundle(QUERY))
    assert (events.names, legacy.names) == ([], [])


def test_each_call_is_one_span(postprocess: Postprocess, spans: SimpleSpanHandler) -> None:
    """The sync one by LlamaIndex, the async one by us; neither twice."""
    assert [node.text for node in postprocess(made(legacy=Legacy()), nodes(), QueryBundle(QUERY))] == BEST_FIRST
    [span] = spans.completed_spans
    assert span.id_.partition("-")[0] in (
        "RerankPostprocessor._postprocess_nodes",
        "RerankPostprocessor._apostprocess_nodes",
    )
    assert (spans.open_spans, spans.dropped_spans) == ({}, [])


def test_events_belong_to_their_span(postprocess: Postprocess, events: Events, spans: SimpleSpanHandler) -> None:
    """So that a trace shows the reranking under the call."""
    postprocess(made(legacy=Legacy()), nodes(), QueryBundle(QUERY))
    assert {event.span_id for event in events.seen} == {spans.completed_spans[0].id_}


def test_a_failing_call_drops_its_span(postprocess: Postprocess, events: Events, spans: SimpleSpanHandler) -> None:
    """With the error in the event about it."""
    with pytest.raises(ScorerError):
        postprocess(made(FakeScorer(error=RuntimeError("down")), legacy=Legacy()), nodes(), QueryBundle(QUERY))
    assert (len(spans.dropped_spans), spans.completed_spans, spans.open_spans) == (1, [], {})
    [dropped] = [event for event in events.seen if isinstance(event, SpanDropEvent)]
    assert "fake: failed with RuntimeError" in dropped.err_str


def test_the_end_tells_who_answered_and_what_it_consumed(postprocess: Postprocess, events: Events) -> None:
    """In the tags of one kind, which has no other field, and in the payload of the other; as plain values."""
    legacy = Legacy()
    postprocess(made(legacy=legacy), nodes(), QueryBundle(QUERY))
    tags, payload = events.seen[1].tags, legacy.seen[1][2]
    assert (tags["model"], tags["usage"]["requests"], tags["usage"]["documents"]) == ("fake", 1, 4)
    assert tags["usage"]["seconds"] > 0.0
    assert "error" not in tags
    assert payload["usage"] == tags["usage"]
    assert events.seen[1].model_dump_json()


def test_the_end_of_a_failed_call_names_the_error(postprocess: Postprocess, events: Events) -> None:
    """And what was consumed in vain."""
    error = ScorerUnavailableError("down")
    error.usage = Usage(requests=3)
    with pytest.raises(ScorerError):
        postprocess(made(FakeScorer(error=error), legacy=Legacy()), nodes(), QueryBundle(QUERY))
    tags = next(event for event in events.seen if isinstance(event, ReRankEndEvent)).tags
    assert (tags["error"], tags["usage"]["requests"]) == ("ScorerUnavailableError", 3)


def test_the_end_of_a_passthrough_names_the_error(postprocess: Postprocess, events: Events) -> None:
    """Though the call returned."""
    reranker = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough")
    assert len(postprocess(RerankPostprocessor(reranker=reranker), nodes(), QueryBundle(QUERY))) == 4
    assert events.seen[1].tags["error"] == "ScorerError"
    assert events.names == ["ReRankStartEvent", "ReRankEndEvent"]


def test_the_callers_tags_are_kept(postprocess: Postprocess, events: Events) -> None:
    """Tags of the context stand beside ours."""
    with instrument_tags({"tenant": "a"}):
        postprocess(made(legacy=Legacy()), nodes(), QueryBundle(QUERY))
    assert [event.tags["tenant"] for event in events.seen] == ["a", "a"]
    assert events.seen[1].tags["model"] == "fake"
