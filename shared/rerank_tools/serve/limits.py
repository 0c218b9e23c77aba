"""What a server takes."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rerank_core._support.checks import checked_count

__all__ = ["ServerLimits"]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server takes; whatever is beyond it is refused at once, with a status that says so.

    Attributes:
        documents: documents of one request, at least 1; more is status 413.
        body_bytes: bytes of one request's body, at least 1; more is status 413.
        requests: requests that are accepted and not yet answered, at least 1; one more is status 429.
        retry_after_seconds: what a refused client is told to wait, in whole seconds, at least 1.
        shutdown_seconds: how long a server that is told to end goes on answering what it has accepted, at least 1.

    Raises:
        ConfigurationError: a limit is out of its range.
    """

    documents: int = 1000
    body_bytes: int = 16 * 2**20
    requests: int = 128
    retry_after_seconds: int = 1
    shutdown_seconds: int = 30

    def __post_init__(self) -> None:
        for field in fields(self):
            checked_count(field.name, getattr(self, field.name), least=1)
