"""The file job on Ray Data: one task per part, in a pool of workers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from rerank_core import errors
from rerank_core._call import event_loop
from rerank_core._support.extras import require
from rerank_core.errors import RerankError
from rerank_tools.batch.cost import SpendingCap
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.ray.worker import Worker, map_arguments
from rerank_tools.batch.runner import JobProgress, PartRunner
from rerank_tools.batch.sources import Source

_MAX_CALLS = 10_000


def run_on_ray(source: Source, folder: BatchFolder, options: BatchOptions, progress: JobProgress) -> bool:
    """Rerank the parts that are left on the cluster that runs or is configured, else on this machine.

    Returns whether the spending cap stopped it. Input and output must have the same path for all workers. A worker
    that dies is replaced, and its part goes on from its journal.

    Raises:
        RerankError: the first error that every row would raise.
    """
    todo = progress.todo
    if not todo:
        return False
    with _use_ray() as data:
        cap = None if options.max_cost is None else start_cap(options.max_cost, progress.spent)
        source.path, folder.path = source.path.absolute(), folder.path.absolute()
        workers = min(options.workers, len(todo))
        arguments = map_arguments(replace(options, workers=workers), source, folder, cap, min_workers=workers)
        parts = data.from_items([{"part": number} for number in todo], override_num_blocks=len(todo))
        is_exhausted = False
        for end in parts.map(PartWorker, **arguments).iter_rows():
            if end["error"]:
                raise getattr(errors, end["error"], RerankError)(end["reason"])
            is_exhausted = is_exhausted or end["is_exhausted"]
            progress.add_part(end["part"], folder.load_part(end["part"]))
    return is_exhausted


@contextmanager
def _use_ray() -> Iterator[Any]:
    """Give Ray Data; where no cluster runs, start one, keep its notes and bars off the terminal, and end it."""
    ray = require("ray", extra="ray", purpose='engine="ray"')
    data = require("ray.data", extra="ray", purpose='engine="ray"')
    if ray.is_initialized():
        yield data
        return
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    logger.setLevel(logging.ERROR)
    context.enable_progress_bars = False
    try:
        yield data
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)
        ray.shutdown()


class PartWorker(Worker):
    """A worker of the file job, which gets one part after the other."""

    def __init__(
        self, options: BatchOptions, source: Source, folder: BatchFolder, cap: SpendingCap | None
    ) -> None:
        super().__init__(options)
        self._source = source
        self._folder = folder
        self._cap = cap or SpendingCap(math.inf, {})

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Rerank a part, and return how that ended; an error as a name and a message, which reach the driver."""
        end = {"part": int(row["part"]), "is_exhausted": False, "error": "", "reason": ""}
        try:
            return {**end, "is_exhausted": event_loop.run(self._run(int(row["part"])))}
        except RerankError as exc:
            return {**end, "error": type(exc).__name__, "reason": str(exc)}

    async def _run(self, part: int) -> bool:
        runner = PartRunner(
            self._source, self._folder, self.options, reranker=self.reranker, cap=self._cap, on_row=lambda _: None
        )
        return await runner.run([part])


def start_cap(max_cost: float, spent: Mapping[int, float]) -> SpendingCap:
    """Return a spending cap that the workers of a cluster share; it lives in an actor."""
    ray = require("ray", extra="ray", purpose='engine="ray"')
    actor = ray.remote(SpendingCap).options(num_cpus=0, max_concurrency=_MAX_CALLS).remote(max_cost, spent)
    return cast("SpendingCap", _ActorMethods(actor))


class _ActorMethods:
    """An actor's methods, to be awaited as those of an object in this process."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while it is unpickled
            raise AttributeError(name)
        return getattr(self._actor, name).remote
