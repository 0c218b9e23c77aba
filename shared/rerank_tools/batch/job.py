"""A file in, a folder out: resumed where it was interrupted, and nothing paid for twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

from rerank_core._call import event_loop
from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage
from rerank_tools.batch._bound import most_tokens, row_cost
from rerank_tools.batch._budget import Budget
from rerank_tools.batch._engine import chosen_engine
from rerank_tools.batch._runner import Runner
from rerank_tools.batch._source import Source, open_source
from rerank_tools.batch._store import PartState, Store
from rerank_tools.batch._tracker import Tracker
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.report import BatchPlan, BatchReport, Progress

__all__ = ["plan_file", "rerank_file"]


def rerank_file(
    input: Path | str,  # noqa: A002
    output: Path | str,
    options: BatchOptions | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> BatchReport:
    """Rerank the rows of a Parquet or JSONL file, and go on where an earlier run was interrupted.

    Finished rows are never sent again, however the earlier run ended; rows that failed are tried again. A row that
    fails after the scorer's retries is written to ``errors/``, and the others go on. Every row of the input is in
    ``rows/`` or in ``errors/``, once, in the order of the input.

    Args:
        input: a ``.parquet`` or ``.jsonl`` file, a row a query with its candidates.
        output: a folder, made where it is not there; results are in its ``rows/``.
        options: how; by default with the embedded model.
        on_progress: told how far the run is, up to ten times a second, from another thread; on Ray after each
            part.

    Raises:
        ConfigurationError: the input cannot be read, the folder is for another input or other options, another
            run is writing it, or there is a cap and no price.
        AuthenticationError: there is no key, or the service refused it.
        MissingExtraError: pyarrow (for Parquet), Ray (``engine="ray"``) or a scorer's package is not installed.
    """
    options = BatchOptions() if options is None else options
    started = perf_counter()
    source, store = _opened(Path(input), Path(output), options)
    _check_price(options)
    engine = chosen_engine(options)
    with store.begun(source, options.deciding()):
        before = _states(store)
        todo = [number for number, state in before.items() if not state.written]
        tracker = Tracker(source.rows, list(before.values()), on_progress, started)
        if engine == "ray":
            from rerank_tools.batch._cluster import run_on_ray

            exhausted = run_on_ray(source, store, options, before, todo, tracker)
        else:
            exhausted = _run_here(source, store, options, before, todo, tracker)
        after = _states(store)
    tracker.finish(list(after.values()))
    usage, earlier = _total(after), _total(before)
    return BatchReport(
        rows=source.rows,
        finished=sum(state.finished for state in after.values()),
        failed=sum(state.failed for state in after.values()),
        resumed=sum(state.finished for state in before.values()),
        usage=_difference(usage, earlier),
        cost=usage.cost,
        seconds=perf_counter() - started,
        stopped=_exhausted_message(options, usage) if exhausted else None,
        engine=engine,
        output=store.folder,
    )


def plan_file(
    input: Path | str,  # noqa: A002
    output: Path | str,
    options: BatchOptions | None = None,
) -> BatchPlan:
    """Return what :func:`rerank_file` would do and cost; nothing is sent, and nothing written.

    Raises:
        ConfigurationError: as :func:`rerank_file`, but for the cap.
        MissingExtraError: as :func:`rerank_file`.
    """
    options = BatchOptions() if options is None else options
    source, store = _opened(Path(input), Path(output), options)
    store.check(source, options.deciding())
    states = _states(store)
    scorer = options.scorer()
    bad = documents = 0
    costs: list[float | None] = []
    most: list[float | None] = []
    for number, state in states.items():
        if state.written:
            continue
        finished = store.finished(number)
        for row in source.read(store.parts[number])[0]:
            if row.number in finished:
                continue
            bad += row.error is not None
            documents += len(set(filter(str.strip, row.documents)))
            costs.append(row_cost(scorer, row.query, row.documents))
            most.append(row_cost(scorer, row.query, row.documents, most_tokens))
    return BatchPlan(
        rows=source.rows,
        finished=sum(state.finished for state in states.values()),
        bad=bad,
        documents=documents,
        spent=_total(states).cost,
        cost=_sum(costs),
        cost_at_most=_sum(most),
    )


def _opened(path: Path, folder: Path, options: BatchOptions) -> tuple[Source, Store]:
    source = open_source(path, options)
    return source, Store(folder, rows=source.rows, step=options.rows_per_part, suffix=source.suffix)


def _check_price(options: BatchOptions) -> None:
    if options.max_cost is not None and row_cost(options.scorer(), "query", ["document"]) is None:
        raise ConfigurationError(
            f"max_cost is given, and no price is known of {options.scorer().name}: "
            "give model_options={'prices': …}, or leave out max_cost="
        )


def _states(store: Store) -> dict[int, PartState]:
    return {number: store.state(number) for number in range(len(store.parts))}


def _run_here(
    source: Source,
    store: Store,
    options: BatchOptions,
    states: Mapping[int, PartState],
    todo: list[int],
    tracker: Tracker,
) -> bool:
    """Rerank parts in this process, and return whether the money ran out."""

    async def run() -> bool:
        spent = {number: state.usage.cost or 0.0 for number, state in states.items()}
        purse = Budget(math.inf if options.max_cost is None else options.max_cost, spent)
        scorer = options.scorer()
        runner = Runner(source, store, options, scorer=scorer, purse=purse, on_row=tracker.row)
        try:
            await runner.run(todo)
        finally:
            await scorer.aclose()
        return runner.exhausted

    return event_loop.run(run())


def _total(states: Mapping[int, PartState]) -> Usage:
    return sum((state.usage for state in states.values()), Usage())


def _difference(after: Usage, before: Usage) -> Usage:
    unknown = after.cost is None or before.cost is None
    return Usage(
        requests=after.requests - before.requests,
        documents=after.documents - before.documents,
        tokens=after.tokens - before.tokens,
        retries=after.retries - before.retries,
        search_units=after.search_units - before.search_units,
        truncated=after.truncated - before.truncated,
        cached=after.cached - before.cached,
        cost=None if unknown else (after.cost or 0.0) - (before.cost or 0.0),
        estimated=after.estimated,
    )


def _exhausted_message(options: BatchOptions, usage: Usage) -> str:
    return (
        f"max_cost={options.max_cost}: {usage.cost or 0.0:.6g} US dollars are spent, and the next row may cost "
        "more than is left: run again with a higher cap to go on"
    )


def _sum(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) else None
