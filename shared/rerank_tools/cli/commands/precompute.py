"""``rerank-bridge precompute``: encode documents before they are reranked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rerank_tools.cli import options
from rerank_tools.cli.output import note

__all__ = ["precompute"]


def precompute(
    *,
    documents_file: Annotated[
        Path, typer.Argument(help="JSON, JSON lines, CSV, TSV or one document per line; - for standard input.")
    ],
    vectors: Annotated[Path, typer.Option("--vectors", help="The vector file, made if it is missing.")],
    model: options.Model = "embedded",
    format: options.Format = "auto",  # noqa: A002
    text_field: options.TextField = "text",
) -> None:
    """Encode the documents of a file into a vector file, so that reranking them later takes milliseconds.

    What is stored already is not encoded again: to go on after an interruption, repeat the command.

    [bold]Example[/]

    rerank-bridge precompute articles.jsonl --vectors rerank.vectors
    """
    reranker = options.make_reranker(model, timeout=None, vectors=str(vectors))
    records = options.read_documents(documents_file, format, text_field)
    with reranker:
        usage = reranker.precompute(records, text_fn=lambda record: record.text, progress=sys.stderr.isatty())
    note(f"{usage.documents} documents encoded, {usage.stored} were stored already")
