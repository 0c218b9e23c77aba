"""A second request when the first one is slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import anyio
from anyio.abc import TaskGroup

from rerank_core._call.asking import call_scorer
from rerank_core._support.checks import checked_seconds
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Scored
from rerank_core.usage import Usage

__all__ = ["Hedged"]

_OBSERVED = 200
"""Calls whose times are remembered: few enough to follow a service through the day."""
_LEAST = 20
"""Calls to observe before the first hedge: the fewest of which one in twenty is the slowest."""


class Hedged(Policy):
    """Sends a second request when the first is slower than usual; the first answer wins, the other is cancelled.

    It cuts the slowest answers of a service that is mostly quick (Dean & Barroso, "The Tail at Scale", 2013) for
    as many more requests as are slower than the quantile: 5 % by default. A model in this process gains nothing.
    ``usage`` counts both requests; what a cancelled one cost is not reported by any service, so it is estimated to
    be what the other one cost.

    Args:
        scorer: a scorer or its name.
        delay: seconds to wait for the first answer; None to learn it: the quantile of the last 200 calls, and
            no second request before 20 calls were observed.
        quantile: which share of the calls is not slow; above 0 and below 1.

    Raises:
        ConfigurationError: an option is out of its range.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> ranking = Reranker(Hedged(FakeScorer(latency=0.2), delay=0.05)).rerank("leak", ["a leak", "tea"])
    >>> ranking.usage.requests, ranking.usage.estimated
    (2, True)
    """

    options_without_effect_on_scores = frozenset({"delay", "quantile"})
    state = ("_seconds",)

    def __init__(self, scorer: Scorer | str, *, delay: float | None = None, quantile: float = 0.95) -> None:
        self.delay = None if delay is None else checked_seconds("delay", delay)
        if isinstance(quantile, bool) or not isinstance(quantile, float) or not 0.0 < quantile < 1.0:
            raise ConfigurationError(f"quantile is {quantile!r}: give a number above 0.0 and below 1.0")
        self.quantile = quantile
        super().__init__("hedged", [scorer])

    def forget(self) -> None:
        """Forget how long calls took."""
        self._seconds: deque[float] = deque(maxlen=_OBSERVED)

    @property
    def patience(self) -> float | None:
        """Seconds that the next call waits for its first answer; None where it sends no second request."""
        if self.delay is not None:
            return self.delay
        if len(self._seconds) < _LEAST:
            return None
        ordered = sorted(self._seconds)
        return ordered[min(len(ordered) - 1, int(self.quantile * len(ordered)))]

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the first answer."""
        race = _Race(self.scorers[0], query, texts)
        started = perf_counter()
        patience = self.patience
        async with anyio.create_task_group() as group:
            group.start_soon(race.run, group)
            with anyio.move_on_after(patience):
                await race.over.wait()
            if not race.over.is_set():
                group.start_soon(race.run, group)
        # Where the second one won, this is less than the first would have taken, and still more than the delay:
        # leaving such calls out would teach an ever shorter one.
        self._seconds.append(perf_counter() - started)
        return race.result()


@dataclass(slots=True)
class _Race:
    """One or two requests for the same scores; the first answer ends it, and so does the last failure."""

    scorer: Scorer
    query: str
    texts: Sequence[str]
    over: anyio.Event = field(default_factory=anyio.Event)
    started: int = 0
    answer: Scored | None = None
    failures: list[Exception] = field(default_factory=list)

    async def run(self, group: TaskGroup) -> None:
        self.started += 1
        try:
            answer = await call_scorer(self.scorer, self.query, self.texts)
        except Exception as exc:  # in a task group it would come out wrapped
            self.failures.append(exc)
            if len(self.failures) == self.started:
                self.over.set()
        else:
            self.answer = answer
            self.over.set()
            group.cancel_scope.cancel()

    def result(self) -> Scored:
        failed = sum((getattr(exc, "usage", None) or Usage() for exc in self.failures), Usage())
        if self.answer is None:
            error = self.failures[0]
            if isinstance(error, ScorerError):
                error.usage = failed
            raise error
        usage = failed + self.answer.usage
        if self.started - len(self.failures) > 1:
            usage += replace(self.answer.usage, estimated=True)
        attempts = [Attempt(self.scorer.name, exc) for exc in self.failures if isinstance(exc, ScorerError)]
        return replace(self.answer, usage=usage, attempts=(*attempts, *self.answer.attempts))
