"""``rerank-bridge evaluate``: measure models on a data set."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rerank_tools.cli import _options as options
from rerank_tools.cli._output import note, write_table, write_text

__all__ = ["evaluate"]


class Report(str, Enum):
    """How the result is written."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


def evaluate(
    *,
    dataset: Annotated[
        Path,
        typer.Argument(help="A folder with corpus.jsonl, queries.jsonl and qrels/*.tsv.", show_default=False),
    ],
    model: options.Models,
    first_stage: Annotated[str, typer.Option("--first-stage", help="bm25, or a TREC run file.")] = "bm25",
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many candidates to rerank.")] = 100,
    top_k: options.TopK = 10,
    measure: Annotated[
        list[str] | None, typer.Option("--measure", help="Of ir-measures, such as nDCG@10. Once for each.")
    ] = None,
    save_to: Annotated[
        Path | None,
        typer.Option("--save-to", help="Folder that keeps answers, so that a rerun asks for new ones only."),
    ] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder to write TREC run files to.")] = None,
    output: Annotated[Report, typer.Option("--output", "-o", help="How to write the result.")] = Report.TABLE,
    timeout: options.Timeout = None,
) -> None:
    """Measure models behind a first stage, on a data set in BEIR layout: quality, seconds and cost.

    [bold]Example[/]

    rerank-bridge evaluate my-data -m embedded -m cohere:rerank-v3.5 --save-to answers -o markdown
    """
    from rerank_tools import evaluation  # what it imports takes long

    rerankers = {name: options.reranker(name, timeout=timeout) for name in dict.fromkeys(model)}
    result = evaluation.evaluate(
        rerankers,
        dataset,
        first_stage=first_stage,
        k=top_k,
        top_k=limit,
        measures=measure or None,
        save_to=save_to,
        progress=sys.stderr.isatty(),
    )
    if runs is not None:
        for name, path in result.save_runs(runs).items():
            note(f"{name}: {path}")
    if output is Report.TABLE:
        write_table(result.to_table())
    else:
        made = {Report.JSON: result.to_json, Report.MARKDOWN: result.to_markdown, Report.HTML: result.to_html}
        write_text(made[output]())
