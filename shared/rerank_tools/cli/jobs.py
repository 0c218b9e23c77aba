"""``rerank-bridge batch``, ``precompute`` and ``serve``: what runs for long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.selection import Selection
from rerank_tools.batch import BatchOptions, BatchPlan, BatchReport, Progress, plan_file, rerank_file
from rerank_tools.batch.options import BatchEngine
from rerank_tools.cli import options
from rerank_tools.cli.output import Output, format_dollars, note, write_results, write_text


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
    query_column: Annotated[str, typer.Option(help="Column of the queries.")] = "query",
    documents_column: Annotated[
        str, typer.Option(help="Column of the candidates, lists of strings.")
    ] = "documents",
    prefix: Annotated[str, typer.Option(help="Prefix of the columns indices, scores and usage.")] = "",
    top_n: Annotated[int | None, typer.Option("--top-n", "-n", min=1, help="Results per row at most.")] = None,
    threshold: options.Threshold = None,
    adaptive_ratio: options.AdaptiveRatio = None,
    rows_per_part: Annotated[int, typer.Option(min=1, help="Rows per output file.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is left, and its cost.")] = False,
    max_cost: Annotated[
        float | None, typer.Option(min=0.0, help="US dollars that all runs together may cost.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, with Ray.")] = 1,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="Cores of each, with Ray.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0, help="GPUs of each.")] = 0.0,
    engine: Annotated[BatchEngine, typer.Option(help="Where it runs.")] = "auto",
    timeout: options.Timeout = None,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
    report: Annotated[Output, typer.Option("--output", "-o", help="How to write a plan or report.")] = "table",
) -> None:
    """Rerank the rows of a file into a folder; run it again to resume after an interruption.

    Finished rows are never paid for twice. The exit status is 1 if rows failed or the spending cap was reached.

    [bold]Examples[/]

    rerank-bridge batch pairs.parquet ranked --model cohere:rerank-v3.5 --dry-run

    rerank-bridge batch pairs.parquet ranked --model cohere:rerank-v3.5 --max-cost 20
    """
    given = {"base_url": base_url, "instruction": instruction}
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
            engine=engine,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
        )
    except ConfigurationError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if dry_run:
        plan = plan_file(input, output, job)
        _write_summary(plan, report, write_text, _describe_plan(plan))
        return
    with _show_progress() as on_progress, contextlib.redirect_stdout(sys.stderr):  # Ray reports workers that died
        ended = rerank_file(input, output, job, on_progress=on_progress)
    _write_summary(ended, report, note, _describe_report(ended))
    if ended.stopped is not None:
        note(ended.stopped)
    elif ended.failed:
        note(f"{ended.failed:,} rows failed: see {ended.output / 'errors'}; run again to try them again")
    if not ended.ok:
        raise typer.Exit(1)


def _write_summary(
    summary: BatchPlan | BatchReport, output: Output, write: Callable[[str], None], text: str
) -> None:
    if output == "table":
        write(text)
    else:
        write_results(output, text, [asdict(summary)], asdict(summary))


def _describe_plan(plan: BatchPlan) -> str:
    left = plan.rows - plan.finished - plan.bad
    return (
        f"rows        {plan.rows:,}: {plan.finished:,} finished, {left:,} left, {plan.bad:,} that cannot be read\n"
        f"candidates  {plan.documents:,} left to score\n"
        f"cost        estimate {format_dollars(plan.cost)}, at most {format_dollars(plan.cost_at_most)}, "
        f"so far {format_dollars(plan.spent)}"
    )


def _describe_report(report: BatchReport) -> str:
    fresh = report.finished - report.resumed
    return (
        f"{report.finished:,} of {report.rows:,} rows finished, {fresh:,} of them in this run, "
        f"{report.failed:,} failed; {report.seconds:.1f} s, cost so far {format_dollars(report.cost)}"
    )


@contextlib.contextmanager
def _show_progress() -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm  # slow to import

    with tqdm(total=0, bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {postfix}") as bar:

        def show(progress: Progress) -> None:
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            bar.total, bar.n = progress.rows, progress.done
            bar.set_postfix_str(f"{progress.rows_per_second:,.0f} rows/s{failed}, {format_dollars(progress.cost)}")

        yield show


def precompute(
    *,
    documents_file: Annotated[
        Path, typer.Argument(help="JSON, JSON lines, CSV, TSV or one document per line; - for standard input.")
    ],
    vectors: Annotated[Path, typer.Option(help="The vector file, made if it is missing.")],
    model: options.Model = "embedded",
    format: options.Format = "auto",  # noqa: A002
    text_field: options.TextField = "text",
) -> None:
    """Encode the documents of a file into a vector file, so that reranking them later takes milliseconds.

    What is stored already is not encoded again: to go on after an interruption, repeat the command.

    [bold]Example[/]

    rerank-bridge precompute articles.jsonl --vectors rerank.vectors
    """
    reranker = options.make_reranker(model, timeout=None, vectors=vectors)
    records = options.read_documents(documents_file, format, text_field)
    with reranker:
        usage = reranker.precompute(records, text_fn=lambda record: record.text, progress=sys.stderr.isatty())
    note(f"{usage.documents} documents encoded, {usage.stored} were stored already")


def serve(
    *,
    model: options.Model = "embedded",
    host: Annotated[str, typer.Option(help="Where to listen; by default, this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 for any free one.")] = 8000,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="What the header Host may be; * for any. Once for each."),
    ] = None,
    timeout: options.Timeout = None,
    vectors: options.Vectors = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at once.")] = 128,
    max_documents: Annotated[int, typer.Option(min=1, help="Documents per request.")] = 1000,
) -> None:
    """Serve a model as Cohere's /v2/rerank, Jina's /v1/rerank and TEI's /rerank; for development and tests.

    Requests on connections beyond the limit are answered 503, and connections whose headers or bodies take more
    than ten seconds are closed. Keys and quotas are a gateway's business.

    [bold]Example[/]

    rerank-bridge serve --model embedded --port 8000
    """
    from rerank_tools.serve import LOCAL_HOSTS, create_app, limit_headers

    note("for development and tests: it asks nobody for a key")
    uvicorn = require("uvicorn", extra="serve", purpose="rerank-bridge serve")
    uvicorn.run(
        create_app(
            options.make_reranker(model, timeout=timeout, vectors=vectors),
            max_documents=max_documents,
            allowed_hosts=allowed_host or LOCAL_HOSTS,
        ),
        host=host,
        port=port,
        limit_concurrency=max_connections + 1,  # uvicorn refuses from this number on
        http=limit_headers(10.0),
        timeout_keep_alive=5,
        timeout_graceful_shutdown=30,
        server_header=False,
        access_log=False,
    )
