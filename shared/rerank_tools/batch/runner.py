"""Works on the parts of a job: several rows under way at once, each recorded as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import anyio
import anyio.to_thread

from rerank_core._call.consumption import count_consumption
from rerank_core.errors import AuthenticationError, ConfigurationError, MissingExtraError, RerankError
from rerank_core.reranker import Reranker
from rerank_tools.batch.cost import SpendingCap, max_row_cost
from rerank_tools.batch.folder import BatchFolder, PartJournal
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.rows import Outcome, Row
from rerank_tools.batch.sources.base import Source

__all__ = ["PartRunner", "score_row"]

_PARTS_AT_ONCE = 2
"""The next part begins while the last rows of one are under way; more would only take more memory."""

_EVERY_ROW = (AuthenticationError, ConfigurationError, MissingExtraError)
"""Errors that the next row would raise too: they end the run."""


async def score_row(reranker: Reranker, row: Row, *, keep_errors: bool = True) -> Outcome:
    """Rerank a row.

    Args:
        reranker: the reranker.
        row: the row.
        keep_errors: return the failure of this row as its outcome, instead of raising it.

    Raises:
        RerankError: an error that every other row would raise, or any where errors are not kept.
    """
    if row.error is not None:
        return Outcome(row.number, error=ConfigurationError.__name__, reason=row.error)
    try:
        return Outcome.from_ranking(row.number, await reranker.arerank(row.query, row.documents))
    except RerankError as exc:
        if not keep_errors or isinstance(exc, _EVERY_ROW):
            raise
        return Outcome.from_error(row.number, exc)


class PartRunner:
    """Reranks parts with one scorer; its coroutines belong on the background loop.

    Args:
        source: the input.
        folder: the output.
        options: of the job.
        reranker: made from the options.
        cap: limits what is spent.
        on_row: called with each outcome, on the background loop.
    """

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

        Raises:
            RerankError: the first error that every row would raise; what is under way is cancelled.
            OSError: the output cannot be written.
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
                await self._cap.begin(number, journal.spent.max_cost or 0.0)
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
                with count_consumption() as consumed:
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
        # In a thread, because cutting windows takes long.
        cost = await anyio.to_thread.run_sync(max_row_cost, self._reranker.scorer, row.query, row.documents)
        return cost or 0.0

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._scope.cancel()
