"""``rerank-bridge rerank``: rank the documents of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerank_core.selection import Selection
from rerank_core.types import RankedDocument
from rerank_tools.cli import options
from rerank_tools.cli.output import Output, write_json, write_table
from rerank_tools.records import Record

__all__ = ["rerank"]


def rerank(
    *,
    query: options.Query,
    documents_file: options.DocumentsFile = Path("-"),
    top_n: options.TopN = 10,
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

    rerank-bridge rerank -q "reset my password" -d articles.jsonl -n 5

    grep -ri password docs | rerank-bridge rerank -q "reset my password" -o jsonl | jq -r .document
    """
    reranker = options.make_reranker(model, timeout=timeout, base_url=base_url, instruction=instruction)
    records = options.read_documents(documents_file, format, text_field)
    selection = Selection(score_threshold=threshold, adaptive_ratio=adaptive_ratio, top_n=top_n)
    with reranker:
        ranking = reranker.rerank(query, records, text_fn=lambda record: record.text, selection=selection)
    rows = [_fields(row) for row in ranking]
    if output is Output.TABLE:
        write_table(ranking)
    elif output is Output.JSONL:
        write_json(rows, lines=True)
    else:
        usage = ranking.usage.to_dict()
        write_json({"query": ranking.query, "model": ranking.model, "results": rows, "usage": usage})


def _fields(row: RankedDocument[Record]) -> dict[str, Any]:
    passage = {} if row.passage is None else {"passage": row.passage._asdict()}
    return {"index": row.index, "rank": row.rank, "score": row.score, **passage, "document": row.document.document}
