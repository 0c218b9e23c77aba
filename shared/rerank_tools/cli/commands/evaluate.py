"""``rerank-bridge evaluate``: measure models on a data set."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rerank_tools.cli import options
from rerank_tools.cli.output import note, write_table, write_text

__all__ = ["evaluate"]


class _Format(str, Enum):
    """How to write the result."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


def evaluate(
    *,
    dataset: Annotated[
        Path,
        typer.Argument(
            help="A folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/*.tsv.", show_default=False
        ),
    ],
    model: options.Models,
    first_stage: Annotated[str, typer.Option("--first-stage", help="bm25, or a TREC run file.")] = "bm25",
    candidates: options.Candidates = 100,
    top_n: options.TopN = 10,
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", help="A measure of ir-measures, such as nDCG@10. Once for each."),
    ] = None,
    save_to: Annotated[
        Path | None,
        typer.Option("--save-to", help="Folder that keeps answers, so that another run asks only for new ones."),
    ] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder to write TREC run files to.")] = None,
    output: Annotated[_Format, typer.Option("--output", "-o", help="How to write the result.")] = _Format.TABLE,
    timeout: options.Timeout = None,
) -> None:
    """Measure models behind a first stage, on a data set in BEIR layout: quality, seconds and cost.

    [bold]Example[/]

    rerank-bridge evaluate my-data -m embedded -m cohere:rerank-v3.5 --save-to answers -o markdown
    """
    from rerank_tools import evaluation  # slow to import

    rerankers = {name: options.make_reranker(name, timeout=timeout) for name in dict.fromkeys(model)}
    result = evaluation.evaluate(
        rerankers,
        dataset,
        first_stage=first_stage,
        candidates=candidates,
        top_n=top_n,
        measures=measure or None,
        save_to=save_to,
        progress=sys.stderr.isatty(),
    )
    if runs is not None:
        for name, path in result.save_runs(runs).items():
            note(f"{name}: {path}")
    if output is _Format.TABLE:
        write_table(result.to_table())
    else:
        write = {
            _Format.JSON: result.to_json,
            _Format.MARKDOWN: result.to_markdown,
            _Format.HTML: result.to_html,
        }
        write_text(write[output]())
