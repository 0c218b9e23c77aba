"""Works on the parts of a job: several rows under way at once, each recorded and counted as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import anyio
import anyio.to_thread

from rerank_core._call.asking import Consumption
from rerank_core.errors import AuthenticationError, ConfigurationError, MissingExtraError, RerankError
from rerank_core.reading import max_tokens
from rerank_core.reranker import Reranker
from rerank_core.usage import Usage
from rerank_tools.batch.cost import SpendingCap, row_cost
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.journal import PartJournal, PartState
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.rows import Outcome, Row, subtract_usage
from rerank_tools.batch.sources import Source

_PARTS_AT_ONCE = 2
"""The next part begins while the last rows of one are under way; more would only take more memory."""

_SECONDS_BETWEEN_CALLS = 0.1

_EVERY_ROW = (AuthenticationError, ConfigurationError, MissingExtraError)
"""Errors that the next row would raise too: they end the run."""


async def score_row(reranker: Reranker, row: Row, *, keep_errors: bool = True) -> Outcome:
    """Rerank a row; its failure is its outcome where errors are kept and others rows need not fail with it."""
    if row.error is not None:
        return Outcome(row.number, error=ConfigurationError.__name__, reason=row.error)
    try:
        return Outcome.from_ranking(row.number, await reranker.arerank(row.query, row.documents))
    except RerankError as exc:
        if not keep_errors or isinstance(exc, _EVERY_ROW):
            raise
        return Outcome.from_error(row.number, exc)


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


class JobProgress:
    """How far a job is, over all runs: which parts are left to do, and what each had cost before this run."""

    def __init__(
        self, states: Mapping[int, PartState], on_progress: Callable[[Progress], None] | None, started: float
    ) -> None:
        self.todo = [number for number, state in states.items() if not state.is_written]
        self.spent = {number: state.usage.max_cost or 0.0 for number, state in states.items()}
        self._states = states
        self._rows = sum(state.rows for state in states.values())
        self._resumed = self._finished = sum(state.finished_rows for state in states.values())
        self._failed = 0  # what failed earlier is tried again
        self._usage = sum((state.usage for state in states.values()), Usage())
        self._on_progress = on_progress
        self._started = started
        self._last_call = 0.0

    def add_row(self, outcome: Outcome) -> None:
        """Count a row of this run, and report the progress up to ten times per second."""
        self._failed += outcome.error is not None
        self._finished += outcome.error is None
        self._usage += outcome.usage
        if perf_counter() - self._last_call > _SECONDS_BETWEEN_CALLS:
            self.report()

    def add_part(self, number: int, state: PartState) -> None:
        """Count what this run did for a part, and report the progress."""
        before = self._states[number]
        self._finished += state.finished_rows - before.finished_rows
        self._failed += state.failed
        self._usage += subtract_usage(state.usage, before.usage)
        self.report()

    def report(self) -> None:
        """Report the progress."""
        if self._on_progress is None:
            return
        self._last_call = perf_counter()
        seconds = self._last_call - self._started
        done = self._finished + self._failed
        rate = (done - self._resumed) / seconds
        self._on_progress(Progress(self._rows, done, self._failed, seconds, rate, self._usage.cost))


class PartRunner:
    """Reranks parts with one scorer; ``on_row`` is called on the background loop."""

    def __init__(
        self,
        source: Source,
        folder: BatchFolder,
        options: BatchOptions,
        *,
        reranker: Reranker,
        cap: SpendingCap,
        on_row: Callable[[Outcome], None],
    ) -> None:
        self._source = source
        self._folder = folder
        self._reranker = reranker
        self._is_capped = options.max_cost is not None
        self._cap = cap
        self._on_row = on_row
        self._rows = anyio.Semaphore(options.rows_at_once)
        self._parts = anyio.Semaphore(_PARTS_AT_ONCE)
        self._failure: Exception | None = None
        self._scope = anyio.CancelScope()
        self._is_exhausted = False

    async def run(self, parts: Iterable[int]) -> bool:
        """Rerank parts by their numbers, and return whether the cap stopped it.

        The first error that every row would raise, or of the output, cancels what is under way and is raised.
        """
        async with anyio.create_task_group() as group:
            self._scope = group.cancel_scope
            for number in parts:
                await self._parts.acquire()
                if self._is_exhausted or self._failure is not None:
                    break
                try:
                    # One part after the other: reading on is cheaper than looking for a row.
                    rows, held = await anyio.to_thread.run_sync(self._source.read, self._folder.parts[number])
                except Exception as exc:
                    self._fail(exc)
                    break
                group.start_soon(self._run_part, number, rows, held)
        if self._failure is not None:
            raise self._failure
        return self._is_exhausted

    async def _run_part(self, number: int, rows: list[Row], held: Any) -> None:
        try:
            journal = await anyio.to_thread.run_sync(self._folder.open_part, number)
            if journal is None:
                return
            with closing(journal):
                await self._cap.begin(number, journal.usage.max_cost or 0.0)
                async with anyio.create_task_group() as group:
                    for row in rows:
                        if row.number not in journal.outcomes:
                            await self._rows.acquire()
                            group.start_soon(self._run_row, number, row, journal)
                if len(journal.outcomes) == len(rows):
                    await anyio.to_thread.run_sync(self._write_part, number, held, journal)
        except Exception as exc:
            self._fail(exc)
        finally:
            self._parts.release()

    def _write_part(self, number: int, held: Any, journal: PartJournal) -> None:
        data = self._source.render(held, self._folder.parts[number], journal.outcomes)
        self._folder.write_part(number, data, journal)

    async def _run_row(self, number: int, row: Row, journal: PartJournal) -> None:
        try:
            if self._is_exhausted or self._failure is not None:  # work that never waits is never cancelled
                return
            max_cost = await self._find_max_cost(row)
            if not await self._cap.reserve(number, max_cost):
                self._is_exhausted = True
                return
            if max_cost:
                journal.reserve(row.number, max_cost)
            try:
                with Consumption() as consumed:
                    outcome = await score_row(self._reranker, row)
            except BaseException:
                journal.abandon(row.number, consumed.usage)
                raise
            journal.add(outcome)
            self._on_row(outcome)
            cost = outcome.usage.max_cost
            await self._cap.settle(number, max_cost, max_cost if cost is None else cost)
        except Exception as exc:
            self._fail(exc)
        finally:
            self._rows.release()

    async def _find_max_cost(self, row: Row) -> float:
        if not self._is_capped or row.error is not None:
            return 0.0
        cost = partial(row_cost, self._reranker.scorer, row.query, row.documents, max_tokens, with_repeats=True)
        return await anyio.to_thread.run_sync(cost) or 0.0  # in a thread, because cutting windows takes long

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._scope.cancel()
