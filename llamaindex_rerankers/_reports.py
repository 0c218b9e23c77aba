"""What LlamaIndex is told about a call: its events of both kinds, balanced however the call ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from rerank_core import Ranking, RerankError

__all__ = ["Report", "reported"]

_dispatcher = get_dispatcher(__name__)


@dataclass
class Report:
    """What a call tells at its end, filled while it runs.

    Attributes:
        nodes: what survived.
        about: ``model`` (who answered), ``usage`` (see :class:`rerank_core.Usage`), and ``error``, the name of
            the exception's class, where something failed.
    """

    nodes: list[NodeWithScore] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def tell(self, ranking: Ranking[Any]) -> None:
        """Take what a ranking says about itself."""
        self.about = {"model": ranking.model, "usage": asdict(ranking.usage)}
        if ranking.error is not None:
            self.about["error"] = type(ranking.error).__name__

    def fail(self, error: BaseException) -> None:
        """Take what an exception says, a failed call's usage too."""
        self.about["error"] = type(error).__name__
        usage = getattr(error, "usage", None) if isinstance(error, RerankError) else None
        if usage is not None:
            self.about["usage"] = asdict(usage)


@contextmanager
def reported(
    callbacks: CallbackManager, nodes: Sequence[NodeWithScore], query: QueryBundle | None, model: str, top_n: int
) -> Iterator[Report]:
    """Send the start and end events of both kinds around a call.

    The end of the instrumentation's kind has no field but the nodes, so its tags hold the rest; the legacy
    payload holds it under the same names.
    """
    report = Report()
    payload: dict[str, Any] = {
        EventPayload.NODES: list(nodes),
        EventPayload.MODEL_NAME: model,
        EventPayload.QUERY_STR: query.query_str if query is not None else None,
        EventPayload.TOP_K: top_n,
    }
    _dispatcher.event(ReRankStartEvent(query=query, nodes=list(nodes), top_n=top_n, model_name=model))
    try:
        with callbacks.event(CBEventType.RERANKING, payload=payload) as event:
            yield report
            event.on_end(payload={EventPayload.NODES: list(report.nodes), **report.about})
    except BaseException as exc:
        report.fail(exc)
        raise
    finally:
        _dispatcher.event(ReRankEndEvent(nodes=list(report.nodes), tags=dict(report.about)))
