"""``rerank-bridge compare``: the ranks of several models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from rerank_core._support.tables import Cell, Column, Table
from rerank_core.errors import RerankError
from rerank_core.types import Ranking
from rerank_tools.cli import options
from rerank_tools.cli.output import Output, note, write_json, write_table
from rerank_tools.records import Record

__all__ = ["compare"]

_Rankings = Mapping[str, Ranking[Record]]


def compare(
    *,
    query: options.Query,
    model: options.Models,
    documents_file: options.DocumentsFile = Path("-"),
    top_n: options.TopN = 10,
    format: options.Format = "auto",  # noqa: A002
    text_field: options.TextField = "text",
    output: options.OutputOption = Output.TABLE,
    timeout: options.Timeout = None,
) -> None:
    """Rank the same documents with several models; show ranks, seconds and cost side by side.

    A model that fails is reported, and the others are shown; the exit status is then 1.

    [bold]Example[/]

    rerank-bridge compare -q "reset my password" -d articles.jsonl -m embedded -m cohere:rerank-v3.5
    """
    records = options.read_documents(documents_file, format, text_field)
    names = list(dict.fromkeys(model))
    rankings: dict[str, Ranking[Record]] = {}
    for name in names:
        try:
            with options.make_reranker(name, timeout=timeout) as reranker:
                reranker.warm_up()  # loading the model does not count
                rankings[name] = reranker.rerank(query, records, text_fn=lambda record: record.text)
        except RerankError as exc:
            note(f"{name} failed: {str(exc).removeprefix(f'{name}: ')}")
    if rankings:
        _write(rankings, records, top_n, output)
    if len(rankings) < len(names):
        raise typer.Exit(1)


def _write(rankings: _Rankings, records: Sequence[Record], top_n: int, output: Output) -> None:
    # What one of the models has among its best, in the order of the first model.
    shown = dict.fromkeys(row.index for ranking in rankings.values() for row in ranking[:top_n])
    rows = [_row(rankings, index, records[index]) for index in shown]
    if output is Output.TABLE:
        write_table(_table(rankings, rows, top_n))
    elif output is Output.JSONL:
        write_json(rows, lines=True)
    else:
        models = [
            {"model": name, "overlap": _overlap(rankings, name, top_n), "usage": ranking.usage.to_dict()}
            for name, ranking in rankings.items()
        ]
        write_json({"models": models, "documents": rows})


def _row(rankings: _Rankings, index: int, record: Record) -> dict[str, Any]:
    ranks = {name: next(row.rank for row in ranking if row.index == index) for name, ranking in rankings.items()}
    scores = {name: ranking.scores[index] for name, ranking in rankings.items()}
    return {"index": index, "ranks": ranks, "scores": scores, "document": record.document, "text": record.text}


def _overlap(rankings: _Rankings, name: str, top_n: int) -> float:
    """Return the share of the first model's best that this model has among its best, too."""
    first, other = (
        {row.index for row in ranking[:top_n]} for ranking in (next(iter(rankings.values())), rankings[name])
    )
    return len(first & other) / len(first) if first else 1.0


def _table(rankings: _Rankings, documents: Sequence[Mapping[str, Any]], top_n: int) -> Table:
    usages = [ranking.usage for ranking in rankings.values()]
    costs = ["unknown" if usage.cost is None else f"${usage.cost:.6f}".rstrip("0").rstrip(".") for usage in usages]
    rows: list[list[Any]] = [
        [
            row["text"],
            *(Cell(row["ranks"][name], f"{row['ranks'][name]}  {row['scores'][name]:.3f}") for name in rankings),
        ]
        for row in documents
    ]
    rows.append(["seconds", *(usage.seconds for usage in usages)])
    rows.append(["cost", *costs])
    rows.append([f"same in top {top_n}", *(f"{_overlap(rankings, name, top_n):.0%}" for name in rankings)])
    return Table("", [Column("text"), *(Column(name, align="right") for name in rankings)], rows)
