"""What a server tells Prometheus; counters of one server, none of the process."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rerank_core.usage import Usage

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of requests, documents and tokens, the requests under way, and how long they take."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rerank_requests", "Requests answered", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "rerank_request_seconds", "Seconds that a request took", ["path"], registry=self._registry
        )
        self._documents = Counter("rerank_documents", "Documents scored", registry=self._registry)
        self._tokens = Counter("rerank_tokens", "Tokens that the model read", registry=self._registry)
        self._active = Gauge("rerank_requests_active", "Requests under way", registry=self._registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(int(status))).inc()  # before 3.11 a status prints its name
        self._seconds.labels(path).observe(seconds)

    def consumed(self, usage: Usage) -> None:
        """Count what a ranking consumed."""
        self._documents.inc(usage.documents)
        self._tokens.inc(usage.tokens)

    def active(self, requests: int) -> None:
        """Say how many requests are under way."""
        self._active.set(requests)

    def page(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self._registry)
