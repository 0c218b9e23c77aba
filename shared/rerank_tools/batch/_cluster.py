"""A file job on Ray Data: a task a part, in a pool of workers with a model each."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rerank_core import errors
from rerank_core._call import event_loop
from rerank_core._support.extras import require
from rerank_core.errors import RerankError
from rerank_core.usage import Usage
from rerank_tools.batch._budget import Budget, Purse
from rerank_tools.batch._rows import Outcome, usage_of, usage_row
from rerank_tools.batch._runner import Runner
from rerank_tools.batch._source import Source
from rerank_tools.batch._store import PartState, Store
from rerank_tools.batch._tracker import Tracker
from rerank_tools.batch._workers import begun_limiters, prepared
from rerank_tools.batch.options import BatchOptions

__all__ = ["RemotePurse", "Worker", "run_on_ray"]

_MANY = 10_000


def run_on_ray(
    source: Source,
    store: Store,
    options: BatchOptions,
    states: Mapping[int, PartState],
    todo: Sequence[int],
    tracker: Tracker,
) -> bool:
    """Rerank parts on the cluster that runs or is configured, else on this machine.

    Returns whether the money ran out. Input and output must be at the same path for all workers, who find the
    services' keys in their environment. A worker that dies is replaced, and its part goes on from its journal.

    Raises:
        RerankError: the first error that every row would meet.
    """
    if not todo:
        return False
    ray = require("ray", extra="ray", purpose='engine="ray"')
    if ray.is_initialized():
        return _run(ray, source, store, options, states, todo, tracker)
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    try:
        with _quiet():
            return _run(ray, source, store, options, states, todo, tracker)
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's own bars and notes off the terminal, where only this job uses it."""
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
    ray: Any,
    source: Source,
    store: Store,
    options: BatchOptions,
    states: Mapping[int, PartState],
    todo: Sequence[int],
    tracker: Tracker,
) -> bool:
    data = require("ray.data", extra="ray", purpose='engine="ray"')
    purse = None
    if options.max_cost is not None:
        spent = {number: state.usage.cost or 0.0 for number, state in states.items()}
        purse = ray.remote(Budget).options(num_cpus=0, max_concurrency=_MANY).remote(options.max_cost, spent)
    source.path, store.folder = source.path.absolute(), store.folder.absolute()
    # As a scorer, because a scorer's pickle holds no key.
    scorer = options.scorer()
    job = (source, store, replace(options, model=scorer, model_options={}), purse, begun_limiters(scorer))
    parts = data.from_items([{"part": number} for number in todo], override_num_blocks=len(todo))
    ended = parts.map(
        Worker,
        fn_constructor_args=job,
        compute=data.ActorPoolStrategy(size=min(options.workers, len(todo))),
        num_cpus=options.cpus_per_worker,
        num_gpus=options.gpus_per_worker or None,
    )
    exhausted = False
    for row in ended.iter_rows():
        end = json.loads(row["end"])
        if end["error"] is not None:
            raise getattr(errors, end["error"], RerankError)(end["reason"])
        exhausted = exhausted or end["exhausted"]
        tracker.add(finished=end["finished"], failed=end["failed"], usage=usage_of(end["usage"]))
    return exhausted


class Worker:
    """A model, in a process of its own, that works on one part after the other."""

    def __init__(
        self, source: Source, store: Store, options: BatchOptions, purse: Any, limiters: Sequence[Any] = ()
    ) -> None:
        self._limiters = limiters  # they end with their last handle
        self._source = source
        self._store = store
        self._options = options
        self._scorer = prepared(options.scorer(), cores=options.cpus_per_worker)
        self._purse: Purse = Budget(math.inf, {}) if purse is None else RemotePurse(purse)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Work on a part, and return how it ended."""
        return {"part": row["part"], "end": json.dumps(event_loop.run(self._run(int(row["part"]))))}

    async def _run(self, number: int) -> dict[str, Any]:
        outcomes: list[tuple[bool, Usage]] = []

        def count(outcome: Outcome) -> None:
            outcomes.append((outcome.error is None, outcome.usage))

        runner = Runner(
            self._source, self._store, self._options, scorer=self._scorer, purse=self._purse, on_row=count
        )
        error: RerankError | None = None
        try:
            await runner.run([number])
        except RerankError as exc:  # as a name and a text, which reach the driver as they are
            error = exc
        finished = sum(done for done, _ in outcomes)
        return {
            "finished": finished,
            "failed": len(outcomes) - finished,
            "usage": usage_row(sum((usage for _, usage in outcomes), Usage())),
            "exhausted": runner.exhausted,
            "error": None if error is None else type(error).__name__,
            "reason": str(error),
        }


class RemotePurse:
    """The cluster's budget, kept by an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def begin(self, part: int, spent: float) -> None:
        """Say what a part has cost so far; what a killed worker held for it is free again."""
        await self._actor.begin.remote(part, spent)

    async def reserve(self, part: int, amount: float) -> bool:
        """Hold back what a row may cost at most; False where the cap leaves no room for it, or for any after."""
        return bool(await self._actor.reserve.remote(part, amount))

    async def settle(self, part: int, reserved: float, cost: float) -> None:
        """Replace what was held back by what the row did cost."""
        await self._actor.settle.remote(part, reserved, cost)
