"""Ask the next scorer when one fails, and skip a scorer that fails again and again (a circuit breaker)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic

import anyio

from rerank_core._call.asking import Consumption, call_scorer
from rerank_core._support.checks import check_count, check_seconds
from rerank_core.errors import (
    ConfigurationError,
    RateLimitError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
    name_scorer,
)
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Scored

__all__ = ["Breaker", "Fallback"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a failing scorer is skipped, and for how long.

    Attributes:
        failures: failures in a row after which it is skipped; at least 1.
        reset_seconds: seconds until a single call may try it again; above 0. If that call succeeds, the scorer is
            used again; if it fails, the scorer is skipped for as long again.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    failures: int = 5
    reset_seconds: float = 30.0

    def __post_init__(self) -> None:
        check_count("failures", self.failures)
        check_seconds("reset_seconds", self.reset_seconds)


class Fallback(Policy):
    """Asks the next scorer when one fails; ``ranking.model`` says who answered, ``ranking.attempts`` who did not.

    A scorer's own retries come first: give it few (``max_retries=1``) if the next one should take over soon.
    Different models give different scores: a threshold that fits one may not fit the next, unless both are
    calibrated.

    Args:
        scorers: in the order in which they are asked; scorers or their names.
        on: errors that hand over to the next scorer; other errors (a refused key, bad input) are raised.
        timeout: seconds that each scorer but the last may take; None for no limit. The last one has as long as
            the whole call has.
        breaker: when a scorer that keeps failing is skipped; None for never.

    Raises:
        ConfigurationError: an option is out of its range.
        ScorerUnavailableError: by ``score``, if no scorer answered; gives the reason of each. It is a
            ScorerTimeoutError if all of them were too slow.

    >>> from rerank_core import Reranker, ScorerUnavailableError
    >>> from rerank_core.testing import FakeScorer
    >>> down = FakeScorer(name="main", error=ScorerUnavailableError("down for maintenance"))
    >>> ranking = Reranker(Fallback([down, FakeScorer(name="spare")])).rerank("leak", ["a leak", "tea"])
    >>> ranking.model, [str(attempt.error) for attempt in ranking.attempts]
    ('spare', ['main: down for maintenance'])
    """

    options_without_effect_on_scores = frozenset({"breaker", "on", "timeout"})

    def __init__(
        self,
        scorers: Iterable[Scorer | str],
        *,
        on: Iterable[type[ScorerError]] = (ScorerUnavailableError, RateLimitError, ScorerTimeoutError),
        timeout: float | None = None,
        breaker: Breaker | None = Breaker(),
    ) -> None:
        super().__init__("fallback", scorers)
        self.on = tuple(on)
        for kind in self.on:
            if not (isinstance(kind, type) and issubclass(kind, ScorerError)):
                raise ConfigurationError(f"on holds {kind!r}: give classes of ScorerError")
        self.timeout = None if timeout is None else check_seconds("timeout", timeout)
        if not (breaker is None or isinstance(breaker, Breaker)):
            raise ConfigurationError(f"breaker is {breaker!r}: give a Breaker, or None for none")
        self.breaker = breaker
        self._circuits = [_Circuit(breaker) for _ in self.scorers]

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the scorers that failed too often and have not answered since."""
        circuits = zip(self.scorers, self._circuits, strict=True)
        return tuple(scorer.name for scorer, circuit in circuits if circuit.is_open)

    async def warm_up(self) -> None:
        """Load every scorer that can be loaded now; the first call tries the others again."""
        for scorer in self.scorers:
            try:
                await scorer.warm_up()
            except self.on:
                continue

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the answer of the first scorer that gives one."""
        attempts: list[Attempt] = []
        with Consumption() as consumed:
            for position, scorer in enumerate(self.scorers):
                try:
                    with name_scorer(scorer.name), self._circuits[position].watch(self.on):
                        scored = await self._call_in_time(position, query, texts)
                except self.on as exc:
                    attempts.append(Attempt(scorer.name, exc))
                else:
                    return replace(scored, usage=consumed.usage, attempts=(*attempts, *scored.attempts))
            raise _nobody_answered(attempts)

    async def _call_in_time(self, position: int, query: str, texts: Sequence[str]) -> Scored:
        is_last = position == len(self.scorers) - 1
        with anyio.move_on_after(None if is_last else self.timeout):
            return await call_scorer(self.scorers[position], query, texts)
        raise ScorerTimeoutError(f"did not answer within the fallback's timeout={self.timeout} s")


class _Circuit:
    """A circuit breaker: closed (calls go through), open (calls are refused) or half open (one call tries)."""

    def __init__(self, breaker: Breaker | None) -> None:
        self._max_failures = math.inf if breaker is None else breaker.failures
        self._reset_seconds = 0.0 if breaker is None else breaker.reset_seconds
        self._failures = 0
        self._next_try = 0.0  # in seconds of time.monotonic; moved on by a call that tries, so that it is alone

    @property
    def is_open(self) -> bool:
        """Whether the scorer has failed too often, and has not answered since."""
        return self._failures >= self._max_failures

    @contextmanager
    def watch(self, failures: tuple[type[ScorerError], ...]) -> Iterator[None]:
        """Let one call through and count how it ends; refuse it while the circuit is open."""
        if self.is_open:
            if (wait := self._next_try - monotonic()) > 0.0:
                raise ScorerUnavailableError(f"skipped after repeated failures, for another {wait:.1f} s")
            self._next_try = monotonic() + self._reset_seconds
        try:
            yield
        except failures:
            if not self.is_open:
                self._next_try = monotonic() + self._reset_seconds
            self._failures += 1
            raise
        except BaseException:  # says nothing about the scorer, so another call may try
            self._next_try = 0.0
            raise
        self._failures = 0


def _nobody_answered(attempts: Sequence[Attempt]) -> ScorerError:
    reasons = "; ".join(f"{type(attempt.error).__name__}: {attempt.error}" for attempt in attempts)
    late = all(isinstance(attempt.error, ScorerTimeoutError) for attempt in attempts)
    kind = ScorerTimeoutError if late else ScorerUnavailableError
    error = kind(f"none of {len(attempts)} scorers answered: {reasons}")
    error.__cause__ = attempts[-1].error
    error.partial = max((attempt.error.partial for attempt in attempts), key=len)
    return error
