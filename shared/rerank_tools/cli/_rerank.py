"""``rerank-bridge rerank``: the documents of a file, by their relevance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerank_core.selection import Selection
from rerank_core.types import RankedDocument, Ranking
from rerank_core.usage import Usage
from rerank_tools.cli import _options as options
from rerank_tools.cli._output import Output, write_json, write_table
from rerank_tools.records import Record

__all__ = ["rerank", "usage_fields"]


def rerank(
    *,
    query: options.Query,
    documents_file: options.DocumentsFile = Path("-"),
    top_k: options.TopK = 10,
    model: options.Model = "embedded",
    threshold: options.Threshold = None,
    adaptive_ratio: options.AdaptiveRatio = None,
    format: options.Format = "auto",  # noqa: A002
    text_field: options.TextField = "text",
    output: options.OutputOption = Output.TABLE,
    timeout: options.Timeout = None,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
) -> None:
    """Rank the documents of a file, or of standard input, by their relevance to a query.

    [bold]Examples[/]

    rerank-bridge rerank -q "reset my password" -d articles.jsonl -k 5

    grep -ri password docs | rerank-bridge rerank -q "reset my password" -o jsonl | jq -r .document
    """
    reranker = options.reranker(model, timeout=timeout, base_url=base_url, instruction=instruction)
    records = options.documents(documents_file, format, text_field)
    selection = Selection(score_threshold=threshold, adaptive_ratio=adaptive_ratio, top_n=top_k)
    with reranker:
        ranking = reranker.rerank(query, records, text_fn=lambda record: record.text, selection=selection)
    if output is Output.TABLE:
        write_table(ranking)
    elif output is Output.JSONL:
        write_json(map(_fields, ranking), lines=True)
    else:
        write_json(_content(ranking))


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Return what a call consumed, for JSON."""
    names = ("seconds", "cost", "requests", "tokens", "search_units", "estimated")
    return {name: getattr(usage, name) for name in names}


def _content(ranking: Ranking[Record]) -> dict[str, Any]:
    return {
        "query": ranking.query,
        "model": ranking.model,
        "results": [_fields(row) for row in ranking],
        "usage": usage_fields(ranking.usage),
    }


def _fields(row: RankedDocument[Record]) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": row.index, "rank": row.rank, "score": row.score}
    if row.passage is not None:
        fields["passage"] = row.passage._asdict()
    return {**fields, "document": row.document.document}
