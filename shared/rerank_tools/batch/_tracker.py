"""How far a run is, told now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from rerank_core.usage import Usage
from rerank_tools.batch._rows import Outcome
from rerank_tools.batch._store import PartState
from rerank_tools.batch.report import Progress

__all__ = ["Tracker"]

_SECONDS_BETWEEN = 0.1


class Tracker:
    """Counts what is done, from what earlier runs did.

    Args:
        rows: of the input.
        states: of its parts, when the run begins.
        tell: called now and then, and at the end.
        started: when the run began, in seconds of ``time.perf_counter``.
    """

    def __init__(
        self, rows: int, states: Sequence[PartState], tell: Callable[[Progress], None] | None, started: float
    ) -> None:
        self._rows = rows
        self._tell = tell
        self._started = started
        self._told = 0.0
        self._fresh = 0
        self._failed = 0
        self._finished = sum(state.finished for state in states)
        self._usage = sum((state.usage for state in states), Usage())

    def row(self, outcome: Outcome) -> None:
        """Count a row."""
        self.add(finished=int(outcome.error is None), failed=int(outcome.error is not None), usage=outcome.usage)

    def add(self, *, finished: int, failed: int, usage: Usage) -> None:
        """Count rows of this run."""
        self._finished += finished
        self._failed += failed
        self._fresh += finished + failed
        self._usage += usage
        if self._tell is not None and perf_counter() - self._told > _SECONDS_BETWEEN:
            self._report()

    def finish(self, states: Sequence[PartState]) -> None:
        """Tell how the run ended."""
        self._finished = sum(state.finished for state in states)
        self._failed = sum(state.failed for state in states)
        self._usage = sum((state.usage for state in states), Usage())
        self._report()

    def _report(self) -> None:
        if self._tell is None:
            return
        self._told = perf_counter()
        seconds = self._told - self._started
        done = self._finished + self._failed
        rate = self._fresh / seconds if self._fresh else 0.0
        self._tell(Progress(self._rows, done, self._failed, seconds, rate, self._usage.cost))
