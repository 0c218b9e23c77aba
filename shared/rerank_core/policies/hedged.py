"""Send a second request when the first one is slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import anyio

from rerank_core._call.asking import Consumption, call_scorer
from rerank_core._support.checks import check_seconds
from rerank_core.errors import ScorerError
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Scored
from rerank_core.usage import Usage

__all__ = ["Hedged"]

_QUANTILE = 0.95
_OBSERVED = 200
"""Calls whose times are remembered: few enough to follow a service through the day."""
_MIN_OBSERVED = 20
"""Calls to observe before the first hedge: with fewer, no call would be among the slowest twentieth."""


class Hedged(Policy):
    """Sends a second request when the first is slower than usual; the first answer wins, the other is cancelled.

    This cuts the slowest answers of a service that is mostly quick (Dean & Barroso, "The Tail at Scale", 2013). It
    costs as many more requests as are slower than the delay: 5 % by default. It does nothing for a model in this
    process. ``usage`` counts both requests; the cost of a cancelled one is estimated.

    Args:
        scorer: a scorer or its name.
        delay: seconds to wait for the first answer. None to learn it: 95 % of the last 200 calls were quicker,
            and there is no second request before 20 calls were observed.

    Raises:
        ConfigurationError: an option is out of its range.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> ranking = Reranker(Hedged(FakeScorer(latency=0.2), delay=0.05)).rerank("leak", ["a leak", "tea"])
    >>> ranking.usage.requests, ranking.usage.estimated
    (2, True)
    """

    options_without_effect_on_scores = frozenset({"delay"})

    def __init__(self, scorer: Scorer | str, *, delay: float | None = None) -> None:
        super().__init__("hedged", [scorer])
        self.delay = None if delay is None else check_seconds("delay", delay)
        self._seconds: deque[float] = deque(maxlen=_OBSERVED)

    @property
    def hedge_delay(self) -> float | None:
        """Seconds that the next call waits for its first answer; None if it sends no second request."""
        if self.delay is not None:
            return self.delay
        if len(self._seconds) < _MIN_OBSERVED:
            return None
        return sorted(self._seconds)[int(_QUANTILE * len(self._seconds))]

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the first answer."""
        started = perf_counter()
        requests = 0
        over = anyio.Event()
        answers: list[Scored] = []
        failures: list[Exception] = []
        is_cost_unknown = False  # a request was cancelled, and the scorer did not count what it had consumed

        async def request() -> None:
            nonlocal requests, is_cost_unknown
            requests += 1
            try:
                with Consumption() as consumed:
                    answers.append(await call_scorer(self.scorer, query, texts))
            except Exception as exc:  # a task group would wrap it
                failures.append(exc)
                if len(failures) == requests:
                    over.set()
            except BaseException:
                is_cost_unknown = consumed.usage == Usage()
                raise
            else:
                over.set()
                group.cancel_scope.cancel()

        with Consumption() as consumed:
            async with anyio.create_task_group() as group:
                group.start_soon(request)
                with anyio.move_on_after(self.hedge_delay):
                    await over.wait()
                if not over.is_set():
                    group.start_soon(request)
            # If the second request won, the first would have taken longer than this. Such calls are counted all
            # the same: leaving them out would make the learned delay ever shorter.
            self._seconds.append(perf_counter() - started)
            if not answers:
                raise failures[0]
        answer, usage = answers[0], consumed.usage
        if is_cost_unknown:
            usage += replace(answer.usage, estimated=True)
        attempts = [Attempt(self.scorer.name, exc) for exc in failures if isinstance(exc, ScorerError)]
        return replace(answer, usage=usage, attempts=(*attempts, *answer.attempts))
