"""Reports what a call consumed: to callbacks and, where OpenTelemetry is in use, on a span.

A callback's report holds no query, no text and no key. A span follows OpenTelemetry's ``gen_ai`` conventions and
those of OpenInference for the kind RERANKER, with the query and the documents; the environment variables
``OPENINFERENCE_HIDE_INPUTS=true`` and ``OPENINFERENCE_HIDE_OUTPUTS=true`` leave their texts out. OpenTelemetry is
used only where the application has imported it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rerank_core.types import Ranking
from rerank_core.usage import Usage

__all__ = ["CallReport", "describe_ranking", "is_traced_elsewhere", "on_usage", "report", "start_span"]

_logger = logging.getLogger("rerank_core")


is_traced_elsewhere: ContextVar[bool] = ContextVar("is_traced_elsewhere", default=False)
"""Set where a framework's instrumentor records the call as a RERANKER span, so that there is only one of them."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call that ended.

    Attributes:
        model: name of the scorer that answered, or failed to.
        documents: documents of the call, blank and repeated ones too.
        usage: what it consumed; of a call that failed, what was consumed until then.
        error: class of the error, None where the call succeeded.
    """

    model: str
    documents: int
    usage: Usage
    error: str | None = None


_callbacks: list[Callable[[CallReport], None]] = []


def on_usage(callback: Callable[[CallReport], None]) -> Callable[[], None]:
    """Call a function with a report after each call of every reranker in this process.

    The callback runs on the background event loop, so it must be quick and must not wait. An exception that it
    raises is logged and ignored.

    Args:
        callback: gets the :class:`CallReport`.

    Returns:
        A function that removes the callback.

    >>> import rerank_core
    >>> from rerank_core.testing import FakeScorer
    >>> stop = rerank_core.on_usage(lambda report: print(report.model, report.usage.requests))
    >>> ranking = rerank_core.Reranker(FakeScorer()).rerank("leak", ["a memory leak"])
    fake 1
    >>> stop()
    """
    _callbacks.append(callback)

    def stop() -> None:
        with suppress(ValueError):  # it was stopped before
            _callbacks.remove(callback)

    return stop


def report(call: CallReport, span: Any = None) -> None:
    """Tell the callbacks about a call that has ended, and set what it consumed on its OpenTelemetry span."""
    for callback in tuple(_callbacks):
        try:
            callback(call)
        except Exception as exc:
            _logger.warning("a callback of on_usage raised %s", type(exc).__name__)
    if span is None or not span.is_recording():
        return
    usage = call.usage
    attributes: dict[str, Any] = {
        "gen_ai.usage.input_tokens": usage.tokens,
        "rerank.documents.scored": usage.documents,
        "rerank.documents.truncated": usage.truncated,
        "rerank.requests": usage.requests,
        "rerank.retries": usage.retries,
        "rerank.search_units": usage.search_units,
    }
    if usage.output_tokens:
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
    if usage.cost is not None:
        attributes["rerank.cost_usd"] = usage.cost
    span.set_attributes(attributes)
    if call.error is not None:
        _fail(span, call.error)


def start_span(model: str, documents: int, retrieval_weight: float = 0.0) -> AbstractContextManager[Any]:
    """Hold an OpenTelemetry span ``rerank {model}`` around a call; give None where OpenTelemetry is not in use."""
    # The attribute is missing while another thread is still importing the module.
    get_tracer = getattr(sys.modules.get("opentelemetry.trace"), "get_tracer", None)
    return nullcontext() if get_tracer is None else _hold_span(get_tracer, model, documents, retrieval_weight)


@contextmanager
def _hold_span(get_tracer: Any, model: str, documents: int, retrieval_weight: float) -> Iterator[Any]:
    provider, name = _split_name(model)
    attributes = {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "rerank.documents": documents,
        "rerank.retrieval_weight": retrieval_weight,
    }
    with get_tracer("rerank_core").start_as_current_span(
        f"rerank {model}", attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as exc:
            _fail(span, type(exc).__name__)
            raise


def describe_ranking(span: Any, ranking: Ranking[Any], texts: Sequence[str]) -> None:
    """Set query, documents and scores on a span, as OpenInference names them.

    The ranking of a call that failed has its error and no documents; ``texts`` are in the order of the input.
    """
    if span is None or not span.is_recording():
        return
    provider, name = _split_name(ranking.model)
    attributes: dict[str, Any] = {"gen_ai.provider.name": provider, "gen_ai.response.model": name}
    if ranking.error is not None:
        attributes["rerank.reranked"] = False
    if not is_traced_elsewhere.get():
        top_n = ranking.selection.top_n if ranking.selection else None
        # Tracers drop the first attributes where there are too many, so the documents come first.
        attributes = {
            **_list_documents("input", [(text, None) for text in texts]),
            **_list_documents("output", [(each.text, each.score) for each in ranking]),
            **({} if _is_hidden("input") else {"reranker.query": ranking.query, "input.value": ranking.query}),
            "openinference.span.kind": "RERANKER",
            "reranker.model_name": ranking.model,
            "reranker.top_k": top_n or len(texts),
            **attributes,
        }
    span.set_attributes(attributes)


def _list_documents(side: str, documents: Sequence[tuple[str, float | None]]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    is_hidden = _is_hidden(side)
    for number, (text, score) in enumerate(documents):
        prefix = f"reranker.{side}_documents.{number}.document"
        attributes |= {} if is_hidden else {f"{prefix}.content": text}
        attributes |= {} if score is None else {f"{prefix}.score": score}
    return attributes


def _is_hidden(side: str) -> bool:
    """Tell whether the environment says to leave texts out."""
    return os.environ.get(f"OPENINFERENCE_HIDE_{side.upper()}S", "").lower() == "true"


def _split_name(name: str) -> tuple[str, str]:
    """Return a scorer's provider and model; of a policy, its kind and its whole name."""
    provider, _, model = name.partition(":")
    return (provider.partition("(")[0], name) if "(" in provider else (provider, model or provider)


def _fail(span: Any, error: str) -> None:
    """Mark a span as failed, by the class of the error; messages may hold texts and stay out."""
    trace = sys.modules["opentelemetry.trace"]
    span.set_attribute("error.type", error)
    span.set_status(trace.Status(trace.StatusCode.ERROR))
