"""The fault table: what every scorer makes of every fault, and what it should make of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from support.loopback import ROW_FAULTS, Loopback, score
from support.providers import TOLERANCES, scorer_of

from rerank_core import (
    AuthenticationError,
    InvalidResponseError,
    RateLimitError,
    RequestTooLargeError,
    Reranker,
    RerankError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)

__all__ = ["CORRECT", "FaultTable", "expected_outcomes"]

CORRECT = "correct"
QUERY = "find a memory leak"
TEXTS = ("a memory leak", "Paris in spring", "how to find it", "leak of memory", "nothing at all")

_BY_STATUS: dict[str, type[ScorerError]] = {
    "307": ScorerError,
    "400": ScorerError,
    "401": AuthenticationError,
    "403": AuthenticationError,
    "404": ScorerError,
    "408": ScorerTimeoutError,
    "413": RequestTooLargeError,
    "422": ScorerError,
    "429": RateLimitError,
    "429-retry-after": RateLimitError,
    "html-429": RateLimitError,
}
_FINAL = {"307", "400", "401", "403", "404", "413", "422"}
_EXCEPTIONS = {
    ("vertex", "index-string"): CORRECT,  # ids are strings
    ("cohere", "index-float"): CORRECT,  # the SDK makes whole numbers of both
    ("cohere", "index-string"): CORRECT,
    ("voyage", "usage-missing"): InvalidResponseError.__name__,  # the SDK raises AttributeError
    **{("deepinfra", fault): CORRECT for fault in ROW_FAULTS if fault.startswith("index-")},  # there is none
}
"""What comes of a broken reply, where it is not refused: never a wrong ranking."""
_BROKEN = {*ROW_FAULTS, "html-200", "not-utf-8", "truncated-json"}


def expected_outcomes(provider: str, fault: str) -> tuple[str, str]:
    """Return the outcome where the first request meets the fault, and where every request does."""
    outcome = _EXCEPTIONS.get((provider, fault)) or (CORRECT if fault == "usage-missing" else None)
    if outcome is not None:
        return outcome, outcome
    if fault in _BROKEN:
        kind: type[ScorerError] = InvalidResponseError
    elif fault == "slow":
        kind = ScorerTimeoutError
    elif fault == "422" and provider == "tei":
        kind = RequestTooLargeError
    else:
        kind = _BY_STATUS.get(fault, ScorerUnavailableError)
    once = kind.__name__ if fault in _FINAL | _BROKEN else CORRECT
    return once, kind.__name__


@dataclass
class FaultTable:
    """Runs scorers into faults; keeps one reranker a provider, so that connections are used again."""

    loopback: Loopback
    rerankers: dict[tuple[str, float], Reranker] = field(default_factory=dict)

    def outcomes(self, provider: str, fault: str) -> tuple[str, str]:
        """Return what really happens, as :func:`expected_outcomes` says what should."""
        reranker = self._reranker(provider, 0.3 if fault == "slow" else 20.0)
        self.loopback.plan(faults=[fault])
        once = self._outcome(reranker)
        self.loopback.plan(always=fault)
        return once, self._outcome(reranker)

    def _reranker(self, provider: str, timeout: float) -> Reranker:
        key = (provider, timeout)
        if key not in self.rerankers:
            scorer = scorer_of(provider, self.loopback, max_retries=1, timeout=timeout)
            self.rerankers[key] = Reranker(scorer)
        return self.rerankers[key]

    def _outcome(self, reranker: Reranker) -> str:
        try:
            ranking = reranker.rerank(QUERY, TEXTS)
        except RerankError as exc:
            return type(exc).__name__
        expected = [score(QUERY, text) for text in TEXTS]
        tolerance = TOLERANCES.get(ranking.model.partition(":")[0], 1e-9)
        close = all(abs(got - wanted) < tolerance for got, wanted in zip(ranking.scores, expected, strict=True))
        return CORRECT if close else "WRONG"

    def close(self) -> None:
        """Close all connections."""
        for reranker in self.rerankers.values():
            reranker.close()
