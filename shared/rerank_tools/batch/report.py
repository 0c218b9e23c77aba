"""What a batch tells: before it runs, while it runs, and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from rerank_core.usage import Usage
from rerank_tools.batch.folder import PartState
from rerank_tools.batch.rows import Outcome

__all__ = ["BatchPlan", "BatchReport", "Progress", "ProgressTracker"]

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
        finished: rows with a result in the folder, including those of earlier runs.
        failed: rows in ``errors/``.
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


class ProgressTracker:
    """Counts rows, and reports the progress up to ten times per second.

    Args:
        rows: rows of the input.
        states: of the parts, when the run begins.
        on_progress: called with the progress; None for nobody.
        started: when the run began, in seconds of ``time.perf_counter``.
    """

    def __init__(
        self,
        rows: int,
        states: Iterable[PartState],
        on_progress: Callable[[Progress], None] | None,
        started: float,
    ) -> None:
        self._rows = rows
        self._on_progress = on_progress
        self._started = started
        self._last_call = 0.0
        self._new_rows = 0
        self._set_totals(states)
        self._failed = 0  # they are tried again

    def add_row(self, outcome: Outcome) -> None:
        """Count a row of this run."""
        is_failure = outcome.error is not None
        self.add_rows(finished=int(not is_failure), failed=int(is_failure), usage=outcome.usage)

    def add_rows(self, *, finished: int, failed: int, usage: Usage) -> None:
        """Count several rows of this run."""
        self._finished += finished
        self._failed += failed
        self._new_rows += finished + failed
        self._usage += usage
        if perf_counter() - self._last_call > _SECONDS_BETWEEN_CALLS:
            self._report()

    def finish(self, states: Iterable[PartState]) -> None:
        """Report how the run ended, from the states of the parts at its end."""
        self._set_totals(states)
        self._report()

    def _set_totals(self, states: Iterable[PartState]) -> None:
        known = list(states)
        self._finished = sum(state.finished_rows for state in known)
        self._failed = sum(state.failed for state in known)
        self._usage = sum((state.usage for state in known), Usage())

    def _report(self) -> None:
        if self._on_progress is None:
            return
        self._last_call = perf_counter()
        seconds = self._last_call - self._started
        done = self._finished + self._failed
        rate = self._new_rows / seconds if self._new_rows else 0.0
        self._on_progress(Progress(self._rows, done, self._failed, seconds, rate, self._usage.cost))
