"""``rerank-bridge batch``: rerank the rows of a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_core.errors import ConfigurationError
from rerank_core.selection import Selection
from rerank_tools.batch import BatchOptions, BatchPlan, BatchReport, Progress, plan_file, rerank_file
from rerank_tools.batch.options import BatchEngine
from rerank_tools.cli import options
from rerank_tools.cli.output import Output, note, write_json, write_text

__all__ = ["batch"]


def batch(
    *,
    input: Annotated[  # noqa: A002
        Path,
        typer.Argument(help="A .parquet or .jsonl file of queries with candidates.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Argument(help="A folder; results go into rows/, failures into errors/.", show_default=False)
    ],
    model: options.Model = "embedded",
    query_column: Annotated[str, typer.Option("--query-column", help="Column of the queries.")] = "query",
    documents_column: Annotated[
        str, typer.Option("--documents-column", help="Column of the candidates, lists of strings.")
    ] = "documents",
    prefix: Annotated[str, typer.Option("--prefix", help="Prefix of the columns indices, scores and usage.")] = "",
    top_n: Annotated[int | None, typer.Option("--top-n", "-n", min=1, help="Results per row at most.")] = None,
    threshold: options.Threshold = None,
    adaptive_ratio: options.AdaptiveRatio = None,
    rows_per_part: Annotated[int, typer.Option("--rows-per-part", min=1, help="Rows per output file.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is left, and its cost.")] = False,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0.0, help="US dollars that all runs together may cost.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, with Ray.")] = 1,
    cpus_per_worker: Annotated[int, typer.Option("--cpus-per-worker", min=1, help="Cores of each, with Ray.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option("--gpus-per-worker", min=0.0, help="GPUs of each.")] = 0.0,
    engine: Annotated[str, typer.Option("--engine", help="auto, process or ray.")] = "auto",
    timeout: options.Timeout = None,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
    report: Annotated[
        Output, typer.Option("--output", "-o", help="How to write a plan or report.")
    ] = Output.TABLE,
) -> None:
    """Rerank the rows of a file into a folder; run it again to resume after an interruption.

    Finished rows are never paid for twice. The exit status is 1 if rows failed or the spending cap was reached.

    [bold]Examples[/]

    rerank-bridge batch pairs.parquet ranked --model cohere:rerank-v3.5 --dry-run

    rerank-bridge batch pairs.parquet ranked --model cohere:rerank-v3.5 --max-cost 20
    """
    given = {"base_url": base_url, "instruction": instruction}
    chosen: BatchEngine = engine  # type: ignore[assignment]
    try:
        job = BatchOptions(
            model=model,
            model_options={name: value for name, value in given.items() if value is not None},
            query_column=query_column,
            documents_column=documents_column,
            selection=Selection(score_threshold=threshold, adaptive_ratio=adaptive_ratio, top_n=top_n),
            prefix=prefix,
            rows_per_part=rows_per_part,
            max_cost=max_cost,
            timeout=timeout,
            engine=chosen,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
        )
    except ConfigurationError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if dry_run:
        _write(plan_file(input, output, job), report, _plan_text)
        return
    with _bar() as on_progress, contextlib.redirect_stdout(sys.stderr):  # Ray reports workers that died
        ended = rerank_file(input, output, job, on_progress=on_progress)
    if report is Output.TABLE:
        note(_report_text(ended))
    else:
        _write(ended, report, _report_text)
    if ended.stopped is not None:
        note(ended.stopped)
    elif ended.failed:
        note(f"{ended.failed:,} rows failed: see {ended.output / 'errors'}; run again to try them again")
    if not ended.ok:
        raise typer.Exit(1)


def _write(what: Any, form: Output, as_text: Callable[[Any], str]) -> None:
    if form is Output.TABLE:
        write_text(as_text(what))
    else:
        write_json([asdict(what)] if form is Output.JSONL else asdict(what), lines=form is Output.JSONL)


def _plan_text(plan: BatchPlan) -> str:
    left = plan.rows - plan.finished - plan.bad
    lines = [
        f"rows        {plan.rows:,}: {plan.finished:,} finished, {left:,} left, {plan.bad:,} that cannot be read",
        f"candidates  {plan.documents:,} left to score",
        f"cost        about {_dollars(plan.cost)}, at most {_dollars(plan.cost_at_most)}; "
        f"{_dollars(plan.spent)} spent so far",
    ]
    return "\n".join(lines)


def _report_text(report: BatchReport) -> str:
    fresh = report.finished - report.resumed
    return (
        f"{report.finished:,} of {report.rows:,} rows finished, {fresh:,} of them in this run, "
        f"{report.failed:,} failed; {report.seconds:.1f} s, {_dollars(report.cost)} so far"
    )


def _dollars(cost: float | None) -> str:
    if cost is None:
        return "an unknown cost"
    return f"${cost:,.2f}" if cost == 0 or cost >= 1 else f"${cost:.2g}"


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[cost]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("", total=None, rate="", cost="")

        def show(progress: Progress) -> None:
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            bar.update(
                task,
                total=progress.rows,
                completed=progress.done,
                rate=f"{progress.rows_per_second:,.0f} rows/s{failed}",
                cost=_dollars(progress.cost),
            )

        yield show
