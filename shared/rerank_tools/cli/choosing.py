"""``rerank-bridge compare``, ``evaluate`` and ``models``: choosing a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rerank_core._support.tables import Cell, Column, Table
from rerank_core.errors import RerankError
from rerank_core.pricing import PRICES_AS_OF
from rerank_core.types import Ranking
from rerank_tools.cli import options
from rerank_tools.cli.output import Output, format_dollars, note, write_results, write_text
from rerank_tools.known_models import KnownModel, known_models
from rerank_tools.records import Record


def compare(
    *,
    query: options.Query,
    model: options.Models,
    documents_file: options.DocumentsFile = Path("-"),
    top_n: options.TopN = 10,
    format: options.Format = "auto",  # noqa: A002
    text_field: options.TextField = "text",
    output: options.OutputOption = "table",
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
        _write_comparison(rankings, records, top_n, output)
    if len(rankings) < len(names):
        raise typer.Exit(1)


def _write_comparison(
    rankings: Mapping[str, Ranking[Record]], records: Sequence[Record], top_n: int, output: Output
) -> None:
    best = {name: [row.index for row in ranking[:top_n]] for name, ranking in rankings.items()}
    ranks = {name: {row.index: row.rank for row in ranking} for name, ranking in rankings.items()}
    # What one of the models has among its best, in the order of the first model.
    documents = [
        {
            "index": index,
            "ranks": {name: ranks[name][index] for name in rankings},
            "scores": {name: ranking.scores[index] for name, ranking in rankings.items()},
            "document": records[index].document,
            "text": records[index].text,
        }
        for index in dict.fromkeys(chain.from_iterable(best.values()))
    ]
    first = set(next(iter(best.values())))
    models = [
        {
            "model": name,
            "overlap": len(first.intersection(best[name])) / len(first),
            "usage": ranking.usage.to_dict(),
        }
        for name, ranking in rankings.items()
    ]
    rows: list[list[Any]] = [
        [one["text"], *(Cell(rank, f"{rank}  {one['scores'][name]:.3f}") for name, rank in one["ranks"].items())]
        for one in documents
    ]
    usages = [ranking.usage for ranking in rankings.values()]
    rows.append(["seconds", *(usage.seconds for usage in usages)])
    rows.append(["cost", *(format_dollars(usage.cost) for usage in usages)])
    rows.append([f"same in top {top_n}", *(f"{model['overlap']:.0%}" for model in models)])
    table = Table("", [Column("text"), *(Column(name, align="right") for name in rankings)], rows)
    write_results(output, table, documents, {"models": models, "documents": documents})


def evaluate(
    *,
    dataset: Annotated[
        Path,
        typer.Argument(
            help="A folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/*.tsv.", show_default=False
        ),
    ],
    model: options.Models,
    first_stage: Annotated[str, typer.Option(help="bm25, or a TREC run file.")] = "bm25",
    candidates: options.Candidates = 100,
    top_n: options.TopN = 10,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="A measure of ir-measures, such as nDCG@10. Once for each."),
    ] = None,
    save_to: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps scores, so that another run asks only for new ones."),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder to write TREC run files to.")] = None,
    output: Annotated[
        Literal["table", "json", "markdown", "html"],
        typer.Option("--output", "-o", help="How to write the result."),
    ] = "table",
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
    table = result.to_table()
    if output in ("table", "json"):
        write_results(output, table, (), result.to_dict())
    else:
        write_text(table.to_markdown() if output == "markdown" else table.to_html())


def models(*, output: options.OutputOption = "table") -> None:
    """Show each known model: context, price, scale, instructions, and whether its key is in the environment.

    [bold]Example[/]

    rerank-bridge models -o jsonl | jq -r 'select(.has_key) | .name'
    """
    known = known_models()
    facts = {"prices_as_of": PRICES_AS_OF.isoformat()}
    rows = [{**asdict(model), "has_key": model.has_key, **facts} for model in known]
    write_results(output, _list_models(known), rows, rows)


def _list_models(known: list[KnownModel]) -> Table:
    columns = [
        Column("model"),
        Column("context", align="right"),
        Column("price", align="right"),
        *(Column(name) for name in ("scale", "instr.", "key")),
    ]
    rows = [
        (
            model.name,
            f"{model.context:,}" if model.context else "–",
            _format_price(model),
            {"probability": "prob.", None: "–"}.get(model.scale, model.scale),
            {None: "–", True: "yes", False: "no"}[model.instructions],
            _format_key(model),
        )
        for model in known
    ]
    note = f"By the price lists of {PRICES_AS_OF}: per 1,000 searches (/1k) or a million tokens (/1M)."
    return Table("", columns, rows, note=f"{note} – means not known, or depends on the model.")


def _format_price(model: KnownModel) -> str:
    if model.local:
        return "free"
    if model.price is None:
        return "–"
    if model.price.per_1m_tokens is not None:
        return f"{format_dollars(model.price.per_1m_tokens)}/1M"
    return f"{format_dollars(model.price.per_1k_search_units)}/1k"


def _format_key(model: KnownModel) -> str:
    if model.has_key:
        return "set"
    if not model.key_variables:
        return "none needed"
    return "missing" if model.key_required else "optional"
