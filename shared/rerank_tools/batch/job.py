"""Reranking a file into a folder; an interrupted job goes on, and pays for nothing twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from rerank_core._call import event_loop
from rerank_core.errors import ConfigurationError
from rerank_core.reading import max_tokens
from rerank_core.reranker import Reranker
from rerank_core.usage import Usage
from rerank_tools.batch.cost import SpendingCap, row_cost
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.journal import PartState
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.rows import subtract_usage
from rerank_tools.batch.runner import JobProgress, PartRunner, Progress
from rerank_tools.batch.sources import Source, open_source


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


def rerank_file(
    input: Path | str,  # noqa: A002
    output: Path | str,
    options: BatchOptions | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> BatchReport:
    """Rerank the rows of a Parquet or JSON-lines file, or go on where an earlier run was interrupted.

    Finished rows are never sent again, however the earlier run ended; failed rows are tried again. A row that
    fails after the scorer's retries is written to ``errors/``, and the others go on. In the end every row of the
    input is in ``rows/`` or in ``errors/``, once, in the order of the input.

    Args:
        input: a ``.parquet`` or ``.jsonl`` file: one query with its candidates per row. It must not change while
            the job runs.
        output: the folder for the results, made where it is missing; they are in its ``rows/``.
        options: the options; by default those of the embedded model.
        on_progress: called with the progress up to ten times per second, from another thread; on Ray after each
            part.

    Raises:
        ConfigurationError: the input cannot be read or was changed meanwhile, the folder belongs to another input
            or other options, another run is writing it, or ``max_cost`` is given and no price is known.
        AuthenticationError: there is no key, or the service refused it.
        MissingExtraError: pyarrow (for Parquet), Ray (``engine="ray"``) or a scorer's package is not installed.
    """
    options = BatchOptions() if options is None else options
    started = perf_counter()
    source, folder = _open(Path(input), Path(output), options)
    _check_price(options)
    engine = options.choose_engine()
    if not folder.check():
        source.check_readable()
    with folder.hold():
        before = folder.load_parts()
        progress = JobProgress(before, on_progress, started)
        run = _run_here
        if engine == "ray":
            from rerank_tools.batch.ray.job import run_on_ray as run
        is_exhausted = run(source, folder, options, progress)
        states = {**before, **{number: folder.load_part(number) for number in progress.todo}}
        progress.report()
    usage = _total_usage(states)
    return BatchReport(
        rows=source.rows,
        finished=sum(state.finished_rows for state in states.values()),
        failed=sum(state.failed for state in states.values()),
        resumed=sum(state.finished_rows for state in before.values()),
        usage=subtract_usage(usage, _total_usage(before)),
        cost=usage.cost,
        seconds=perf_counter() - started,
        stopped=_explain_cap(options, usage) if is_exhausted else None,
        engine=engine,
        output=folder.path,
    )


def plan_file(
    input: Path | str,  # noqa: A002
    output: Path | str,
    options: BatchOptions | None = None,
) -> BatchPlan:
    """Return what :func:`rerank_file` would do and cost; nothing is sent, and nothing is written.

    Raises:
        ConfigurationError: as :func:`rerank_file`, but for the cap.
        MissingExtraError: as :func:`rerank_file`.
    """
    options = BatchOptions() if options is None else options
    source, folder = _open(Path(input), Path(output), options)
    folder.check()
    states = folder.load_parts()
    scorer = options.make_scorer()
    bad = documents = 0
    estimate = at_most = Usage()
    for number, state in states.items():
        if state.is_written:
            continue
        for row in source.read(folder.parts[number])[0]:
            if row.number in state.finished:
                continue
            bad += row.error is not None
            documents += len(set(filter(str.strip, row.documents)))
            estimate += Usage(cost=row_cost(scorer, row.query, row.documents))
            at_most += Usage(cost=row_cost(scorer, row.query, row.documents, max_tokens))
    return BatchPlan(
        rows=source.rows,
        finished=sum(state.finished_rows for state in states.values()),
        bad=bad,
        documents=documents,
        spent=_total_usage(states).cost,
        cost=estimate.cost,
        cost_at_most=at_most.cost,
    )


def _open(path: Path, output: Path, options: BatchOptions) -> tuple[Source, BatchFolder]:
    source = open_source(path, options)
    return source, BatchFolder(output, source, options.fingerprint_options(), rows_per_part=options.rows_per_part)


def _check_price(options: BatchOptions) -> None:
    scorer = options.make_scorer()
    if options.max_cost is not None and row_cost(scorer, "query", ["document"]) is None:
        raise ConfigurationError(
            f"max_cost is given, and no price is known for {scorer.name}: "
            "give model_options={'prices': …}, or leave out max_cost="
        )


def _run_here(source: Source, folder: BatchFolder, options: BatchOptions, progress: JobProgress) -> bool:
    """Rerank the parts that are left in this process, and return whether the spending cap stopped it."""

    async def run() -> bool:
        cap = SpendingCap(math.inf if options.max_cost is None else options.max_cost, progress.spent)
        async with Reranker(options.make_scorer(), selection=options.selection, timeout=options.timeout) as model:
            runner = PartRunner(source, folder, options, reranker=model, cap=cap, on_row=progress.add_row)
            return await runner.run(progress.todo)

    return event_loop.run(run())


def _total_usage(states: Mapping[int, PartState]) -> Usage:
    return sum((state.usage for state in states.values()), Usage())


def _explain_cap(options: BatchOptions, usage: Usage) -> str:
    margin = f" (and perhaps {usage.cost_margin:.6g} more)" if usage.cost_margin > 0.0 else ""
    return (
        f"max_cost={options.max_cost}: {usage.cost or 0.0:.6g} US dollars are spent{margin}, and the next row may "
        "cost more than is left if all its requests have to be repeated: run again with a higher cap to go on"
    )
