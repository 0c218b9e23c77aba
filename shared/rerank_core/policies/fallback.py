"""The next scorer when one cannot answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import anyio

from rerank_core._call.asking import call_scorer
from rerank_core._support.checks import checked_seconds
from rerank_core.errors import (
    ConfigurationError,
    RateLimitError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)
from rerank_core.policies.base import Policy
from rerank_core.policies.breaker import Breaker, Circuit
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Scored
from rerank_core.usage import Usage

__all__ = ["Fallback"]


class Fallback(Policy):
    """Asks the next scorer when one fails; ``ranking.model`` says who answered, ``ranking.attempts`` who did not.

    A scorer's own retries come first: give it few (``max_retries=1``) where the next one should take over soon.
    Scores of different models are different: a threshold that fits one may not fit the next, unless both are
    calibrated.

    Args:
        scorers: in the order in which they are asked; scorers or their names.
        on: errors that hand over to the next scorer; other ones (a refused key, bad input) are raised.
        timeout: seconds after which a scorer counts as too slow; None for no limit. It holds for each but the
            last one, which has as long as the whole call has.
        breaker: when a scorer that fails again and again is skipped; None for never.

    Raises:
        ConfigurationError: an option is out of its range.
        ScorerUnavailableError: by ``score``, where no scorer answered; names each one's reason. A
            ScorerTimeoutError where all of them were too slow.

    >>> from rerank_core import Reranker, ScorerUnavailableError
    >>> from rerank_core.testing import FakeScorer
    >>> down = FakeScorer(name="main", error=ScorerUnavailableError("main is down for maintenance"))
    >>> ranking = Reranker(Fallback([down, FakeScorer(name="spare")])).rerank("leak", ["a leak", "tea"])
    >>> ranking.model, [(attempt.model, str(attempt.error)) for attempt in ranking.attempts]
    ('spare', [('main', 'main is down for maintenance')])
    """

    options_without_effect_on_scores = frozenset({"breaker", "on", "timeout"})
    state = ("_circuits",)

    def __init__(
        self,
        scorers: Iterable[Scorer | str],
        *,
        on: Iterable[type[ScorerError]] = (ScorerUnavailableError, RateLimitError, ScorerTimeoutError),
        timeout: float | None = None,
        breaker: Breaker | None = Breaker(),  # noqa: B008 - frozen
    ) -> None:
        self.on = tuple(on)
        for kind in self.on:
            if not (isinstance(kind, type) and issubclass(kind, ScorerError)):
                raise ConfigurationError(f"on holds {kind!r}: give classes of ScorerError")
        self.timeout = None if timeout is None else checked_seconds("timeout", timeout)
        if not (breaker is None or isinstance(breaker, Breaker)):
            raise ConfigurationError(f"breaker is {breaker!r}: give a Breaker, or None for none")
        self.breaker = breaker
        super().__init__("fallback", scorers)

    def forget(self) -> None:
        """Close every circuit."""
        self._circuits = [None if self.breaker is None else Circuit(self.breaker) for _ in self.scorers]

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the scorers that have failed too often and have not answered since."""
        return tuple(
            scorer.name
            for scorer, circuit in zip(self.scorers, self._circuits, strict=True)
            if circuit is not None and circuit.open
        )

    async def warm_up(self) -> None:
        """Load every scorer that can be loaded now; the first call asks the others again."""
        for scorer in self.scorers:
            try:
                await scorer.warm_up()
            except self.on:
                continue

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the answer of the first scorer that has one."""
        attempts: list[Attempt] = []
        usage = Usage()
        for position, scorer in enumerate(self.scorers):
            try:
                scored = await self._ask(position, query, texts)
            except self.on as exc:
                attempts.append(Attempt(scorer.name, exc))
                usage += exc.usage or Usage()
            except ScorerError as exc:
                exc.usage = usage + (exc.usage or Usage())
                raise
            else:
                return replace(scored, usage=usage + scored.usage, attempts=(*attempts, *scored.attempts))
        raise self._exhausted(attempts, usage)

    async def _ask(self, position: int, query: str, texts: Sequence[str]) -> Scored:
        circuit = self._circuits[position]
        if circuit is None:
            return await self._ask_in_time(position, query, texts)
        if wait := circuit.wait():
            raise ScorerUnavailableError(
                f"{self.scorers[position].name} was skipped after repeated failures: tried again in {wait:.1f} s"
            )
        circuit.begin()
        try:
            scored = await self._ask_in_time(position, query, texts)
        except self.on:
            circuit.failed()
            raise
        except BaseException:
            circuit.undecided()
            raise
        circuit.succeeded()
        return scored

    async def _ask_in_time(self, position: int, query: str, texts: Sequence[str]) -> Scored:
        scorer = self.scorers[position]
        last = position == len(self.scorers) - 1
        with anyio.move_on_after(None if last else self.timeout):
            return await call_scorer(scorer, query, texts)
        raise ScorerTimeoutError(f"{scorer.name} did not answer within the fallback's timeout={self.timeout} s")

    def _exhausted(self, attempts: Sequence[Attempt], usage: Usage) -> ScorerError:
        reasons = "; ".join(f"{type(attempt.error).__name__}: {attempt.error}" for attempt in attempts)
        late = all(isinstance(attempt.error, ScorerTimeoutError) for attempt in attempts)
        kind = ScorerTimeoutError if late else ScorerUnavailableError
        error = kind(f"none of {len(attempts)} scorers answered: {reasons}")
        error.__cause__ = attempts[-1].error
        error.usage = usage
        error.partial = max((attempt.error.partial for attempt in attempts), key=len)
        return error
