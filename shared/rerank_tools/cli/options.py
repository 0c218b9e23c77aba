"""Options that several commands share, and what is made from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_core.errors import ConfigurationError
from rerank_core.registry import load_scorer
from rerank_core.reranker import Reranker
from rerank_tools.cli.output import Output, note
from rerank_tools.records import Record, RecordFormat, parse_records, read_records

_MODEL_HELP = "The scorer, such as [cyan]embedded[/] or [cyan]cohere:rerank-v3.5[/]; see the command models."

Query = Annotated[str, typer.Option("--query", "-q", help="The question.", show_default=False)]
DocumentsFile = Annotated[
    Path,
    typer.Option(
        "--documents-file",
        "-d",
        help="JSON, JSON lines, CSV, TSV or one document per line; - for standard input.",
    ),
]
Format = Annotated[RecordFormat, typer.Option("--format", "-f", help="auto never means csv for standard input.")]
TextField = Annotated[str, typer.Option(help="The field that holds a document's text.")]
Model = Annotated[str, typer.Option("--model", "-m", envvar="RERANK_BRIDGE_MODEL", help=_MODEL_HELP)]
Models = Annotated[
    list[str], typer.Option("--model", "-m", help=f"{_MODEL_HELP} Once for each model.", show_default=False)
]
Candidates = Annotated[int, typer.Option(min=1, help="How many results of the first stage to rerank.")]
TopN = Annotated[int, typer.Option("--top-n", "-n", min=1, help="How many results at most.")]
Threshold = Annotated[
    float | None, typer.Option("--threshold", "-t", min=0.0, max=1.0, help="Keep scores of at least this.")
]
AdaptiveRatio = Annotated[
    float | None,
    typer.Option(
        "--adaptive-ratio", "-r", min=0.0, max=1.0, help="Keep scores of at least this ratio of the best one."
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to write the results.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds that scoring may take, retries included.")]
BaseUrl = Annotated[str | None, typer.Option(help="Address of the service or server.")]
Vectors = Annotated[
    Path | None, typer.Option(help="A file that keeps documents' token vectors, see the command precompute.")
]
Instruction = Annotated[str | None, typer.Option(help="For models that follow one.")]

_STANDARD_INPUT = Path("-")


def read_documents(path: Path, form: RecordFormat, text_field: str) -> list[Record]:
    """Return the documents of a file, or of standard input."""
    if path != _STANDARD_INPUT:
        return read_records(path, format=form, text_field=text_field)
    if sys.stdin.isatty():
        note("reading documents from standard input; end with Ctrl-D")
    return parse_records(sys.stdin.buffer.read(), source="standard input", format=form, text_field=text_field)


def make_reranker(model: str, *, timeout: float | None, **options: Any) -> Reranker:
    """Return the reranker of a model's name; options that are None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Reranker(load_scorer(model, **given), timeout=timeout)
    except ConfigurationError as exc:
        raise typer.BadParameter(str(exc), param_hint="--model") from exc
