"""``rerank-bridge rerank`` and ``rerank-bridge query``: rank the documents of a file, or search a folder."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from rerank_core._support.tables import Cell, Column, Table, movement
from rerank_core.errors import RerankError
from rerank_core.reranker import Reranker
from rerank_core.selection import Selection
from rerank_core.types import RankedDocument
from rerank_tools.cli import options
from rerank_tools.cli.output import note, write_results
from rerank_tools.corpus import CorpusIndex, Hit
from rerank_tools.records import Record


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
    output: options.OutputOption = "table",
    timeout: options.Timeout = None,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
    vectors: options.Vectors = None,
) -> None:
    """Rank the documents of a file, or of standard input, by their relevance to a query.

    [bold]Examples[/]

    rerank-bridge rerank -q "reset my password" -d articles.jsonl -n 5

    grep -ri password docs | rerank-bridge rerank -q "reset my password" -o jsonl | jq -r .document
    """
    given = {"base_url": base_url, "instruction": instruction, "vectors": vectors}
    reranker = options.make_reranker(model, timeout=timeout, **given)
    records = options.read_documents(documents_file, format, text_field)
    selection = Selection(score_threshold=threshold, adaptive_ratio=adaptive_ratio, top_n=top_n)
    with reranker:
        ranking = reranker.rerank(query, records, text_fn=lambda record: record.text, selection=selection)
    rows = [_describe_row(row) for row in ranking]
    usage = ranking.usage.to_dict()
    whole = {"query": ranking.query, "model": ranking.model, "results": rows, "usage": usage}
    write_results(output, ranking, rows, whole)


def _describe_row(row: RankedDocument[Record]) -> dict[str, Any]:
    passage = {} if row.passage is None else {"passage": row.passage._asdict()}
    return {"index": row.index, "rank": row.rank, "score": row.score, **passage, "document": row.document.document}


def query(
    *,
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    corpus: Annotated[
        Path, typer.Option("--corpus", "-c", help="A folder of text and code, or a JSONL or CSV file.")
    ] = Path(),
    candidates: options.Candidates = 20,
    top_n: options.TopN = 5,
    rerank: Annotated[bool, typer.Option(help="Whether to rerank, or show the order of BM25.")] = True,
    model: options.Model = "embedded",
    threshold: options.Threshold = None,
    adaptive_ratio: options.AdaptiveRatio = None,
    text_field: options.TextField = "text",
    ignore: Annotated[bool, typer.Option(" /--no-ignore", help="Search ignored files, too.")] = True,
    output: options.OutputOption = "table",
    timeout: options.Timeout = None,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
    vectors: options.Vectors = None,
) -> None:
    """Search a folder: BM25 finds candidates, the model ranks them.

    The index is kept in your cache folder and built anew when files change. What .gitignore and .ignore name is
    left out.

    [bold]Examples[/]

    rerank-bridge query "How do I configure auth?" --corpus docs

    rerank-bridge query "retry a request" -c src -o jsonl | jq -r '"\\(.path):\\(.start_line)"'
    """
    selection = Selection(score_threshold=threshold, adaptive_ratio=adaptive_ratio, top_n=top_n)
    given = {"base_url": base_url, "instruction": instruction, "vectors": vectors}
    reranker = options.make_reranker(model, timeout=timeout, **given) if rerank else None
    if reranker is not None:
        # A local model loads while the index is read; the call that needs it reports what fails.
        threading.Thread(target=_warm_up, args=[reranker], daemon=True).start()
    start = perf_counter()
    index = _open_index(corpus, text_field, use_ignore_files=ignore)
    opened = perf_counter()
    hits = index.search(query, candidates)
    searched = perf_counter()
    answered = "not reranked"
    rows = [_describe_hit(hit, rank, rank) for rank, hit in enumerate(hits[:top_n], 1)]
    if reranker is not None:
        with reranker:
            ranking = reranker.rerank(query, hits, text_fn=lambda hit: hit.chunk.reading, selection=selection)
        answered = ranking.model
        rows = [_describe_hit(row.document, row.rank, row.index + 1, row.score) for row in ranking]
    timings = {"index": opened - start, "first_stage": searched - opened, "rerank": perf_counter() - searched}
    numbers = {"chunks": len(index), "candidates": len(hits), "seconds": timings}
    whole = {"query": query, "model": answered, **numbers, "results": rows}
    if rows or output != "table":
        write_results(output, _make_table(rows, reranked=rerank), rows, whole)
    else:
        note("nothing was found")
    if output == "table":
        note(
            f"{len(index):,} chunks, {len(hits)} candidates, {answered}; seconds: index {timings['index']:.2f}, "
            f"BM25 {timings['first_stage']:.3f}, rerank {timings['rerank']:.2f}"
        )


def _warm_up(reranker: Reranker) -> None:
    with contextlib.suppress(RerankError):
        reranker.warm_up()


def _open_index(corpus: Path, text_field: str, *, use_ignore_files: bool) -> CorpusIndex:
    start = perf_counter()
    index = CorpusIndex.open(corpus, text_field=text_field, use_ignore_files=use_ignore_files)
    if index.built:
        for name, problem in index.skipped.items():
            note(f"skipped {name}: {problem}")
        kept = f"kept in {index.kept_at}" if index.kept_at else "in memory only: the cache folder cannot be used"
        note(f"indexed {len(index):,} chunks (files: {index.files:,}) in {perf_counter() - start:.1f} s; {kept}")
    return index


def _describe_hit(hit: Hit, rank: int, first_rank: int, score: float | None = None) -> dict[str, Any]:
    return {
        "rank": rank,
        "score": score,
        "first_stage_rank": first_rank,
        "first_stage_score": hit.score,
        **asdict(hit.chunk),
    }


def _make_table(rows: Sequence[Mapping[str, Any]], *, reranked: bool) -> Table:
    names = ["#", "score", "moved", "BM25"] if reranked else ["#", "BM25"]
    cells = []
    for row in rows:
        moved = Cell(None, movement(row["first_stage_rank"] - row["rank"]))
        ours = (row["score"], moved) if reranked else ()
        bm25 = Cell(row["first_stage_score"], f"{row['first_stage_score']:.1f}")
        found = ": ".join(filter(None, (row["heading"], row["text"])))
        cells.append((row["rank"], *ours, bm25, Cell(f"{row['path']}:{row['start_line']}", detail=found)))
    return Table("", [*(Column(name, align="right") for name in names), Column("where")], cells)
