"""Parts of a job in this process: rows under way together, each written down as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread

from rerank_core.errors import AuthenticationError, ConfigurationError, MissingExtraError, RerankError
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_tools.batch._bound import most_tokens, row_cost
from rerank_tools.batch._budget import Purse
from rerank_tools.batch._journal import Journal
from rerank_tools.batch._rows import Outcome, Row
from rerank_tools.batch._source import Source
from rerank_tools.batch._store import Store
from rerank_tools.batch.options import BatchOptions

__all__ = ["Runner"]

_PARTS_AT_ONCE = 2
"""The next part begins while the last rows of one are under way; more would only take more memory."""

_OF_ALL_ROWS = (AuthenticationError, ConfigurationError, MissingExtraError)
"""Errors that the next row would meet too: they end the run."""


class Runner:
    """Reranks parts with one scorer; its coroutines belong on the background loop.

    Args:
        source: the input.
        store: the output.
        options: of the job.
        scorer: made from the options.
        purse: what there is to spend.
        on_row: told each outcome, on the background loop.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        options: BatchOptions,
        *,
        scorer: Scorer,
        purse: Purse,
        on_row: Callable[[Outcome], None],
    ) -> None:
        self._source = source
        self._store = store
        self._reranker = Reranker(scorer, selection=options.selection, timeout=options.timeout)
        self._capped = options.max_cost is not None
        self._purse = purse
        self._on_row = on_row
        self._rows = anyio.Semaphore(options.rows_at_once)
        self._parts = anyio.Semaphore(_PARTS_AT_ONCE)
        self._failure: Exception | None = None
        self._scope = anyio.CancelScope()
        self.exhausted = False
        """Whether the purse had no room for a row."""

    async def run(self, numbers: Iterable[int]) -> None:
        """Rerank parts, until all are written or the purse has no room for a row.

        Raises:
            RerankError: the first error that every row would meet; what is under way is cancelled.
            OSError: the output cannot be written.
        """
        async with anyio.create_task_group() as group:
            self._scope = group.cancel_scope
            for number in numbers:
                await self._parts.acquire()
                if self.exhausted or self._failure is not None:
                    break
                # One after the other: reading on is cheaper than looking for a row.
                rows, held = await anyio.to_thread.run_sync(self._source.read, self._store.parts[number])
                group.start_soon(self._part, number, rows, held)
        if self._failure is not None:
            raise self._failure

    async def _part(self, number: int, rows: list[Row], held: Any) -> None:
        try:
            with self._store.journal(number) as journal:
                if journal is None:
                    return
                await self._purse.begin(number, journal.before.cost or 0.0)
                async with anyio.create_task_group() as group:
                    for row in rows:
                        if row.number in journal.outcomes:
                            continue
                        await self._rows.acquire()
                        group.start_soon(self._row, number, row, journal)
                if len(journal.outcomes) == len(rows):
                    data = await anyio.to_thread.run_sync(
                        self._source.rendered, held, self._store.parts[number], journal.outcomes
                    )
                    await anyio.to_thread.run_sync(self._store.write, number, data, journal)
        except Exception as exc:
            self._fail(exc)
        finally:
            self._parts.release()

    async def _row(self, number: int, row: Row, journal: Journal) -> None:
        try:
            if self.exhausted or self._failure is not None:  # work that never waits is never cancelled
                return
            most = self._most(row)
            if not await self._purse.reserve(number, most):
                self.exhausted = True
                return
            outcome = await self._outcome(row)
            journal.add(outcome)
            self._on_row(outcome)
            cost = outcome.usage.cost
            await self._purse.settle(number, most, most if cost is None else cost)
        except Exception as exc:
            self._fail(exc)
        finally:
            self._rows.release()

    async def _outcome(self, row: Row) -> Outcome:
        if row.error is not None:
            return Outcome(row.number, error=ConfigurationError.__name__, reason=row.error)
        try:
            return Outcome.of(row.number, await self._reranker.arerank(row.query, row.documents))
        except _OF_ALL_ROWS:
            raise
        except RerankError as exc:
            return Outcome.failed(row.number, exc)

    def _most(self, row: Row) -> float:
        if not self._capped or row.error is not None:
            return 0.0
        return row_cost(self._reranker.scorer, row.query, row.documents, most_tokens) or 0.0

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._scope.cancel()
