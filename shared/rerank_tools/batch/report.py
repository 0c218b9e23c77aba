"""What a batch tells: before it runs, while it runs, and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from rerank_core.usage import Usage
from rerank_tools.batch.folder import PartState
from rerank_tools.batch.rows import Outcome

__all__ = ["BatchPlan", "BatchReport", "JobProgress", "Progress"]

_SECONDS_BETWEEN_CALLS = 0.1


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What is left to do, and what it may cost.

    Attributes:
        rows: rows of the input.
        finished: rows that earlier runs finished.
        bad: rows left that cannot be reranked, because a column is missing or has other content.
        documents: candidates left to score, without blank and repeated ones.
        spent: US dollars that earlier runs cost; None where unknown.
        cost: US dollars that the rest will cost by our estimate of tokens; None where no price is known.
        cost_at_most: an upper bound of ``cost``: one token per byte of text, up to what the model reads. Repeated
            requests are not included.
    """

    rows: int
    finished: int
    bad: int
    documents: int
    spent: float | None
    cost: float | None
    cost_at_most: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: rows of the input.
        done: rows that are finished or failed, including those of earlier runs.
        failed: how many of these failed.
        seconds: time since this run began.
        rows_per_second: rate of this run; 0.0 before its first row.
        cost: US dollars so far, of all runs; None where unknown.
    """

    rows: int
    done: int
    failed: int
    seconds: float
    rows_per_second: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a run ended.

    Attributes:
        rows: rows of the input.
        finished: rows with a result in the folder, including those of earlier runs; in ``rows/`` as soon as their
            part is complete.
        failed: rows that failed when they were tried last; in ``errors/`` as soon as their part is complete.
        resumed: how many of ``finished`` an earlier run had finished.
        usage: what this run consumed.
        cost: US dollars of all runs; None where unknown.
        seconds: duration of this run.
        stopped: why it ended before its last row; None where it did not.
        engine: ``"process"`` or ``"ray"``.
        output: the folder: results in ``rows/``, failures in ``errors/``.
    """

    rows: int
    finished: int
    failed: int
    resumed: int
    usage: Usage = field(repr=False)
    cost: float | None
    seconds: float
    stopped: str | None
    engine: str
    output: Path

    @property
    def ok(self) -> bool:
        """Whether every row has a result."""
        return self.finished == self.rows


class JobProgress:
    """How far a job is: the states of its parts, and the rows that this run has added since.

    Args:
        states: of the parts by their numbers, when the run begins.
        on_progress: called with the progress; None for nobody.
        started: when the run began, in seconds of ``time.perf_counter``.

    Attributes:
        states: of the parts by their numbers.
    """

    def __init__(
        self,
        states: Mapping[int, PartState],
        on_progress: Callable[[Progress], None] | None,
        started: float,
    ) -> None:
        self.states = {number: replace(state, failed=0) for number, state in states.items()}  # failed: tried again
        self._resumed = sum(state.finished_rows for state in states.values())
        self._on_progress = on_progress
        self._started = started
        self._last_call = 0.0
        self._reset_rows()

    @property
    def todo(self) -> list[int]:
        """The parts that are not written completely."""
        return [number for number, state in self.states.items() if not state.is_written]

    @property
    def spent(self) -> dict[int, float]:
        """What each part has cost, in US dollars."""
        return {number: state.usage.max_cost or 0.0 for number, state in self.states.items()}

    def add_row(self, outcome: Outcome) -> None:
        """Count a row of this run, and report the progress up to ten times per second."""
        self._failed += outcome.error is not None
        self._finished += outcome.error is None
        self._usage += outcome.usage
        if perf_counter() - self._last_call > _SECONDS_BETWEEN_CALLS:
            self._report()

    def update(self, states: Mapping[int, PartState]) -> None:
        """Replace the states of parts, which hold the rows that were added; report the progress."""
        self.states.update(states)
        self._reset_rows()
        self._report()

    def _reset_rows(self) -> None:
        self._finished = self._failed = 0
        self._usage = Usage()

    def _report(self) -> None:
        if self._on_progress is None:
            return
        self._last_call = perf_counter()
        seconds = self._last_call - self._started
        states = self.states.values()
        failed = self._failed + sum(state.failed for state in states)
        done = failed + self._finished + sum(state.finished_rows for state in states)
        costs = [self._usage.cost, *(state.usage.cost for state in states)]
        cost = None if None in costs else sum(filter(None, costs))
        rows = sum(state.rows for state in states)
        self._on_progress(Progress(rows, done, failed, seconds, (done - self._resumed) / seconds, cost))
