"""The file job on Ray Data: one task per part, in a pool of workers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rerank_core import errors
from rerank_core._call import event_loop
from rerank_core._support.extras import require
from rerank_core.errors import RerankError
from rerank_core.usage import Usage
from rerank_tools.batch.cost import Cap, SpendingCap
from rerank_tools.batch.folder import BatchFolder, PartState
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.ray.worker import Worker, map_arguments
from rerank_tools.batch.report import ProgressTracker
from rerank_tools.batch.rows import Outcome
from rerank_tools.batch.runner import PartRunner
from rerank_tools.batch.sources.base import Source

__all__ = ["ClusterSpendingCap", "PartWorker", "run_on_ray"]

_MAX_CALLS = 10_000


def run_on_ray(
    source: Source,
    folder: BatchFolder,
    options: BatchOptions,
    states: Mapping[int, PartState],
    todo: Sequence[int],
    tracker: ProgressTracker,
) -> bool:
    """Rerank parts on the cluster that runs or is configured, else on this machine.

    Returns whether the spending cap stopped it. Input and output must have the same path for all workers. A worker
    that dies is replaced, and its part goes on from its journal.

    Raises:
        RerankError: the first error that every row would raise.
    """
    if not todo:
        return False
    ray = require("ray", extra="ray", purpose='engine="ray"')
    if ray.is_initialized():
        return _run(source, folder, options, states, todo, tracker)
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    try:
        with _quiet():
            return _run(source, folder, options, states, todo, tracker)
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's own progress bars and notes off the terminal, where only this job uses it."""
    data = require("ray.data", extra="ray", purpose='engine="ray"')
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    logger.setLevel(logging.ERROR)
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


def _run(
    source: Source,
    folder: BatchFolder,
    options: BatchOptions,
    states: Mapping[int, PartState],
    todo: Sequence[int],
    tracker: ProgressTracker,
) -> bool:
    data = require("ray.data", extra="ray", purpose='engine="ray"')
    cap = None
    if options.max_cost is not None:
        cap = ClusterSpendingCap(
            options.max_cost, {part: state.usage.cost or 0.0 for part, state in states.items()}
        )
    source.path, folder.path = source.path.absolute(), folder.path.absolute()
    workers = min(options.workers, len(todo))
    arguments = map_arguments(options, source, folder, cap, min_workers=workers, max_workers=workers)
    parts = data.from_items([{"part": number} for number in todo], override_num_blocks=len(todo))
    is_exhausted = False
    for row in parts.map(PartWorker, **arguments).iter_rows():
        end = json.loads(row["end"])
        if end["error"] is not None:
            raise getattr(errors, end["error"], RerankError)(end["reason"])
        is_exhausted = is_exhausted or end["is_exhausted"]
        tracker.add_rows(finished=end["finished"], failed=end["failed"], usage=Usage(**end["usage"]))
    return is_exhausted


class PartWorker(Worker):
    """A worker of the file job, which gets one part after the other.

    Args:
        options: of the job.
        limiters: handles of the limiters' actors.
        source: the input.
        folder: the output.
        cap: the cluster's spending cap; None for no limit.
    """

    def __init__(
        self, options: BatchOptions, limiters: Sequence[Any], source: Source, folder: BatchFolder, cap: Cap | None
    ) -> None:
        super().__init__(options, limiters)
        self._source = source
        self._folder = folder
        self._cap = cap or SpendingCap(math.inf, {})

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Rerank a part, and return how that ended."""
        return {"part": row["part"], "end": json.dumps(event_loop.run(self._run(int(row["part"]))))}

    async def _run(self, number: int) -> dict[str, Any]:
        outcomes: list[tuple[bool, Usage]] = []

        def count(outcome: Outcome) -> None:
            outcomes.append((outcome.error is None, outcome.usage))

        runner = PartRunner(
            self._source, self._folder, self.options, reranker=self.reranker, cap=self._cap, on_row=count
        )
        error: RerankError | None = None
        try:
            await runner.run([number])
        except RerankError as exc:  # a name and a message, which reach the driver as they are
            error = exc
        finished = sum(is_finished for is_finished, _ in outcomes)
        return {
            "finished": finished,
            "failed": len(outcomes) - finished,
            "usage": sum((usage for _, usage in outcomes), Usage()).to_dict(),
            "is_exhausted": runner.is_exhausted,
            "error": None if error is None else type(error).__name__,
            "reason": str(error),
        }


class ClusterSpendingCap:
    """A :class:`SpendingCap` that the workers of a cluster share; it lives in an actor.

    Args:
        max_cost: US dollars, at least 0.
        spent: what each part has cost already.
    """

    def __init__(self, max_cost: float, spent: Mapping[int, float]) -> None:
        ray = require("ray", extra="ray", purpose='engine="ray"')
        actor = ray.remote(SpendingCap).options(num_cpus=0, max_concurrency=_MAX_CALLS)
        self._actor = actor.remote(max_cost, spent)

    async def begin(self, part: int, spent: float) -> None:
        """Report what a part has cost so far; reservations of a killed worker for it are released."""
        await self._actor.begin.remote(part, spent)

    async def reserve(self, part: int, amount: float) -> bool:
        """Reserve the most that a row may cost; False where the cap has no room for it, or for any later row."""
        return bool(await self._actor.reserve.remote(part, amount))

    async def settle(self, part: int, reserved: float, cost: float) -> None:
        """Replace a reservation by what the row did cost."""
        await self._actor.settle.remote(part, reserved, cost)
