"""What a call consumed, told to callbacks and, where OpenTelemetry is in use, to a span.

Nothing here holds a query, a text or a key. OpenTelemetry is never imported: an application that configured it
has imported it already.
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

__all__ = ["CallReport", "Span", "on_usage", "report", "span"]

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
    """Call a function with the report of each call, of all rerankers of this process, when the call has ended.

    It runs on the background event loop, so it must be quick and must not wait; an exception that it raises is
    logged and goes no further.

    Returns:
        A function that ends it.

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


def report(call: CallReport) -> None:
    """Tell the callbacks about a call."""
    for callback in _callbacks:
        try:
            callback(call)
        except Exception as exc:
            _logger.warning("a callback of on_usage raised %s", type(exc).__name__)


class Span:
    """An OpenTelemetry span, or nothing."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def finish(self, call: CallReport) -> None:
        """Set what the call consumed, and what it failed with."""
        if self._span is None or not self._span.is_recording():
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
        self._span.set_attributes(attributes)
        if call.error is not None:
            self.fail(call.error)

    def fail(self, error: str) -> None:
        """Mark the span as failed, by the class of the error; messages stay out."""
        if self._span is None or not self._span.is_recording():
            return
        trace = sys.modules["opentelemetry.trace"]
        self._span.set_attribute("error.type", error)
        self._span.set_status(trace.Status(trace.StatusCode.ERROR))


@contextmanager
def span(model: str, documents: int) -> Iterator[Span]:
    """Hold a span ``rerank {model}`` around a call; nothing where OpenTelemetry was not imported by anyone."""
    # The attribute is missing while another thread is still importing the module.
    get_tracer: Any = getattr(sys.modules.get("opentelemetry.trace"), "get_tracer", None)
    if get_tracer is None:
        yield Span(None)
        return
    tracer = get_tracer("rerank_core")
    attributes = {"gen_ai.operation.name": "rerank", "gen_ai.request.model": model, "rerank.documents": documents}
    with tracer.start_as_current_span(
        f"rerank {model}", attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        held = Span(current)
        try:
            yield held
        except BaseException as exc:
            held.fail(type(exc).__name__)
            raise
