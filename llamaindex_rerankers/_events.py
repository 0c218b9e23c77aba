"""LlamaIndex's events around a call, of both its kinds; each start gets its end, however the call ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import active_span_id

from rerank_core import Ranking, RerankError
from rerank_core.telemetry import is_traced_elsewhere

_dispatcher = get_dispatcher(__name__)


@dataclass
class CallRecord:
    """What the end events say, filled during the call: the surviving nodes, and what is known of the call."""

    nodes: list[NodeWithScore] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add_ranking(self, ranking: Ranking[Any]) -> None:
        """Take model, usage and error from a ranking."""
        self.facts = {"model": ranking.model, "usage": ranking.usage.to_dict()}
        if ranking.error is not None:
            self.facts |= {"reranked": False, "error": type(ranking.error).__name__}

    def add_error(self, error: BaseException) -> None:
        """Take the name of an exception, and the usage of the call that failed."""
        self.facts["error"] = type(error).__name__
        usage = getattr(error, "usage", None) if isinstance(error, RerankError) else None
        if usage is not None:
            self.facts["usage"] = usage.to_dict()


@contextmanager
def send_events(
    callbacks: CallbackManager, nodes: Sequence[NodeWithScore], query: QueryBundle | None, model: str, top_n: int
) -> Iterator[CallRecord]:
    """Send the start and end events of both kinds around a call.

    The newer end event has no field besides the nodes, so its tags hold the facts; the legacy payload holds them
    under the same names.
    """
    record = CallRecord()
    payload: dict[str, Any] = {
        EventPayload.NODES: list(nodes),
        EventPayload.MODEL_NAME: model,
        EventPayload.QUERY_STR: query.query_str if query is not None else None,
        EventPayload.TOP_K: top_n,
    }
    span = _find_instrumentors_span()
    _dispatcher.event(ReRankStartEvent(query=query, nodes=list(nodes), top_n=top_n, model_name=model))
    token = is_traced_elsewhere.set(span is not None)
    try:
        with callbacks.event(CBEventType.RERANKING, payload=payload) as event:
            yield record
            event.on_end(payload={EventPayload.NODES: list(record.nodes), **record.facts})
    except BaseException as exc:
        record.add_error(exc)
        raise
    finally:
        is_traced_elsewhere.reset(token)
        if span is not None:
            span["reranker.model_name"] = record.facts.get("model", model)
            span["rerank.reranked"] = "error" not in record.facts
        _dispatcher.event(ReRankEndEvent(nodes=list(record.nodes), tags=dict(record.facts)))


def _find_instrumentors_span() -> Any:
    """Return the span that OpenInference's instrumentor opened for this call; it makes a RERANKER span of it."""
    active = active_span_id.get()
    for handler in get_dispatcher().span_handlers:
        if active is not None and type(handler).__module__.startswith("openinference."):
            return handler.open_spans.get(active)
    return None
