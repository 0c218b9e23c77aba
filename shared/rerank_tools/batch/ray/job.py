"""Workers on Ray Data, a scorer in each with its share of the services' limits; and the file job on them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from rerank_core import errors
from rerank_core._call import event_loop
from rerank_core._support.extras import require
from rerank_core.errors import RerankError
from rerank_core.local.scorer import LocalScorer
from rerank_core.policies.base import Policy
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_tools.batch.cost import SpendingCap
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.runner import JobProgress, PartRunner
from rerank_tools.batch.sources import Source

if TYPE_CHECKING:
    from rerank_core.remote.service import RemoteOptions

_MAX_CALLS = 10_000


class Worker:
    """A scorer in a process of its own; a subclass's ``__call__`` puts it to work."""

    def __init__(self, options: BatchOptions) -> None:
        self.options = options
        scorer = prepare_scorer(options.make_scorer(), threads=options.cpus_per_worker, workers=options.workers)
        self.reranker = Reranker(scorer, selection=options.selection, timeout=options.timeout)


def map_arguments(options: BatchOptions, *more: object, min_workers: int) -> dict[str, Any]:
    """Return the arguments of Ray Data's ``map`` that start a pool of workers, which may grow to ``workers``.

    Services' keys do not travel: workers look for them in their environment.
    """
    data = require("ray.data", extra="ray", purpose="workers on Ray")
    scorer = options.make_scorer()
    workers = count_workers(scorer, options.workers)
    return {
        # With a scorer, because a scorer's pickle holds no key.
        "fn_constructor_args": (replace(options, model=scorer, model_options={}, workers=workers), *more),
        "compute": data.ActorPoolStrategy(min_size=min(min_workers, workers), max_size=workers),
        "num_cpus": options.cpus_per_worker,
        "num_gpus": options.gpus_per_worker or None,
    }


def count_workers(scorer: Scorer, workers: int) -> int:
    """Return how many workers can have a share of each service's limits."""
    return min([workers, *(limit for options in _services(scorer) for limit in _limits(options).values())])


def prepare_scorer(scorer: Scorer, *, threads: int, workers: int) -> Scorer:
    """Return a worker's own scorer with its share of the services' limits; local models get threads if unset."""
    from rerank_core.remote.scorer import RemoteScorer  # brings pydantic

    if isinstance(scorer, Policy):
        scorer.scorers = tuple(prepare_scorer(inner, threads=threads, workers=workers) for inner in scorer.scorers)
    elif isinstance(scorer, LocalScorer) and scorer.options.threads is None:
        return scorer.with_options(threads=threads)
    elif isinstance(scorer, RemoteScorer):
        return scorer.with_options(**{name: limit // workers for name, limit in _limits(scorer.options).items()})
    return scorer


def _services(scorer: Scorer) -> Iterator[RemoteOptions]:
    from rerank_core.remote.scorer import RemoteScorer

    if isinstance(scorer, Policy):
        for inner in scorer.scorers:
            yield from _services(inner)
    elif isinstance(scorer, RemoteScorer):
        yield scorer.options


def _limits(options: RemoteOptions) -> dict[str, int]:
    names = ("max_concurrency", "requests_per_minute", "tokens_per_minute")
    return {name: limit for name in names if (limit := getattr(options, name)) is not None}


def run_on_ray(source: Source, folder: BatchFolder, options: BatchOptions, progress: JobProgress) -> bool:
    """Rerank the parts that are left on the cluster that runs or is configured, else on this machine.

    Returns whether the spending cap stopped it. Input and output must have the same path for all workers. A worker
    that dies is replaced, and its part goes on from its journal.
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
