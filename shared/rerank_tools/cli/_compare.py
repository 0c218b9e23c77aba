"""``rerank-bridge compare``: the ranks of several models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rerank_core._support.tables import terminal_text
from rerank_core.errors import RerankError
from rerank_core.types import Ranking
from rerank_tools.cli import _options as options
from rerank_tools.cli._output import Output, note, write_json, write_table
from rerank_tools.cli._rerank import usage_fields
from rerank_tools.records import Record

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["compare"]

Rankings = Mapping[str, Ranking[Record]]


def compare(
    *,
    query: options.Query,
    model: options.Models,
    documents_file: options.DocumentsFile = Path("-"),
    top_k: options.TopK = 10,
    format: options.Format = "auto",  # noqa: A002
    text_field: options.TextField = "text",
    output: options.OutputOption = Output.TABLE,
    timeout: options.Timeout = None,
) -> None:
    """Rank the same documents with several models, and show ranks, seconds and cost side by side.

    A model that fails is reported; the exit status is then 1, and the others are shown.

    [bold]Example[/]

    rerank-bridge compare -q "reset my password" -d articles.jsonl -m embedded -m cohere:rerank-v3.5
    """
    records = options.documents(documents_file, format, text_field)
    names = list(dict.fromkeys(model))
    rankings: dict[str, Ranking[Record]] = {}
    for name in names:
        try:
            with options.reranker(name, timeout=timeout) as reranker:
                reranker.warm_up()  # loading a model is no part of the seconds
                rankings[name] = reranker.rerank(query, records, text_fn=lambda record: record.text)
        except RerankError as exc:
            note(f"{name} failed: {exc}")
    if rankings:
        _write(rankings, records, top_k, output)
    if len(rankings) < len(names):
        raise typer.Exit(1)


def _write(rankings: Rankings, records: Sequence[Record], top_k: int, output: Output) -> None:
    shown = _shown(rankings, top_k)
    rows = [_row(rankings, index, records[index]) for index in shown]
    if output is Output.TABLE:
        write_table(_table(rankings, rows, top_k))
    elif output is Output.JSONL:
        write_json(rows, lines=True)
    else:
        summary = [
            {"model": name, "overlap": _overlap(rankings, name, top_k), "usage": usage_fields(ranking.usage)}
            for name, ranking in rankings.items()
        ]
        write_json({"models": summary, "documents": rows})


def _shown(rankings: Rankings, top_k: int) -> list[int]:
    """Return the documents that one of the models has among its best, those of the first model first."""
    return list(dict.fromkeys(row.index for ranking in rankings.values() for row in ranking[:top_k]))


def _row(rankings: Rankings, index: int, record: Record) -> dict[str, Any]:
    ranks = {name: next(row.rank for row in ranking if row.index == index) for name, ranking in rankings.items()}
    scores = {name: ranking.scores[index] for name, ranking in rankings.items()}
    return {"index": index, "ranks": ranks, "scores": scores, "document": record.document, "text": record.text}


def _overlap(rankings: Rankings, name: str, top_k: int) -> float:
    """Return which share of a model's best the first model has among its best, too."""
    first, other = (
        {row.index for row in ranking[:top_k]} for ranking in (next(iter(rankings.values())), rankings[name])
    )
    return len(first & other) / len(first) if first else 1.0


def _table(rankings: Rankings, rows: Sequence[Mapping[str, Any]], top_k: int) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    table.add_column("text", footer=f"seconds\ncost\nsame in top {top_k}", overflow="fold", ratio=1)
    for name, ranking in rankings.items():
        cost = "unknown" if ranking.usage.cost is None else f"${ranking.usage.cost:.6f}".rstrip("0").rstrip(".")
        footer = f"{ranking.usage.seconds:.3f}\n{cost}\n{_overlap(rankings, name, top_k):.0%}"
        table.add_column(terminal_text(name), footer=footer, justify="right", overflow="fold")
    for row in rows:
        cells = [f"{row['ranks'][name]}  {row['scores'][name]:.3f}" for name in rankings]
        table.add_row(terminal_text(row["text"]), *cells)
    return table
