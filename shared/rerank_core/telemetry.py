"""Reports what a call consumed: to callbacks and, where OpenTelemetry is in use, on a span.

They hold no query, no text and no key. OpenTelemetry is used only where the application has imported it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rerank_core.usage import Usage

__all__ = ["CallReport", "on_usage", "report", "start_span"]

_logger = logging.getLogger("rerank_core")


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


_callbacks: tuple[Callable[[CallReport], None], ...] = ()
_lock = threading.Lock()


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
    global _callbacks
    with _lock:
        _callbacks = (*_callbacks, callback)

    def stop() -> None:
        global _callbacks
        with _lock:
            _callbacks = tuple(kept for kept in _callbacks if kept is not callback)

    return stop


def report(call: CallReport, span: Any = None) -> None:
    """Tell the callbacks about a call that has ended, and set what it consumed on its OpenTelemetry span."""
    for callback in _callbacks:
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
    if usage.cost is not None:
        attributes["rerank.cost_usd"] = usage.cost
    span.set_attributes(attributes)
    if call.error is not None:
        _fail(span, call.error)


@contextmanager
def start_span(model: str, documents: int) -> Iterator[Any]:
    """Hold an OpenTelemetry span ``rerank {model}`` around a call; give None where OpenTelemetry is not in use."""
    # The attribute is missing while another thread is still importing the module.
    get_tracer: Any = getattr(sys.modules.get("opentelemetry.trace"), "get_tracer", None)
    if get_tracer is None:
        yield None
        return
    attributes = {"gen_ai.operation.name": "rerank", "gen_ai.request.model": model, "rerank.documents": documents}
    with get_tracer("rerank_core").start_as_current_span(
        f"rerank {model}", attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as exc:
            _fail(span, type(exc).__name__)
            raise


def _fail(span: Any, error: str) -> None:
    """Mark a span as failed, by the class of the error; messages may hold texts and stay out."""
    trace = sys.modules["opentelemetry.trace"]
    span.set_attribute("error.type", error)
    span.set_status(trace.Status(trace.StatusCode.ERROR))
