"""What a call consumed: requests, tokens, cost."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed; adds up with ``+``.

    Attributes:
        requests: requests sent to a service, repeated ones too, or calls of a local model.
        documents: texts that a model scored; blank and repeated texts are not scored. A policy that asks several
            models, or one model several times, counts each time.
        tokens: tokens that the scorer read, 0 where it does not count them.
        seconds: wall-clock time of the call in seconds.
        retries: requests that repeated a failed one.
        search_units: the unit by which Cohere bills most models: one query with up to 100 documents.
        truncated: texts that were certainly cut, because they are longer than what the model reads; there may
            be more.
        cost: US dollars, 0.0 for a local model, None where the price is unknown.
        cost_margin: US dollars that the call may have cost beyond ``cost``, where that is estimated.
        estimated: True where tokens or search units are our estimate, because the service did not report them, or
            because its answer was lost.
        cached: texts whose score came from a cache, at no cost.
        output_tokens: tokens that a language model wrote, its reasoning included; 0 for other scorers.
        stored: texts whose token vectors were read from a vector file, so that they were not encoded.
    """

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    seconds: float = 0.0
    retries: int = 0
    search_units: float = 0.0
    truncated: int = 0
    cost: float | None = 0.0
    cost_margin: float = 0.0
    estimated: bool = False
    cached: int = 0
    output_tokens: int = 0
    stored: int = 0

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            requests=self.requests + other.requests,
            documents=self.documents + other.documents,
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            retries=self.retries + other.retries,
            search_units=self.search_units + other.search_units,
            truncated=self.truncated + other.truncated,
            cost=None if self.cost is None or other.cost is None else self.cost + other.cost,
            cost_margin=self.cost_margin + other.cost_margin,
            estimated=self.estimated or other.estimated,
            cached=self.cached + other.cached,
            output_tokens=self.output_tokens + other.output_tokens,
            stored=self.stored + other.stored,
        )

    @property
    def max_cost(self) -> float | None:
        """The most US dollars that the call may have cost, None where the price is unknown."""
        return None if self.cost is None else self.cost + self.cost_margin

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain values for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
