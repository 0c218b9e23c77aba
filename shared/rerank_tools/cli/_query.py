"""``rerank-bridge query``: search a folder in two stages."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rerank_core._support.tables import movement, one_line, terminal_text
from rerank_core.errors import RerankError
from rerank_core.reranker import Reranker
from rerank_core.selection import Selection
from rerank_tools.cli import _options as options
from rerank_tools.cli._output import Output, note, write_json, write_table
from rerank_tools.corpus import CorpusIndex, Hit

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["query"]


@dataclass(frozen=True, slots=True)
class _Found:
    """A hit and where both stages put it; no score where nothing was reranked."""

    hit: Hit
    first_rank: int
    score: float | None


def query(
    *,
    query: Annotated[str, typer.Argument(help="What is asked.", show_default=False)],
    corpus: Annotated[
        Path, typer.Option("--corpus", "-c", help="A folder of text and code, or a JSONL or CSV file.")
    ] = Path(),
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many results of BM25 to rerank.")] = 20,
    top_k: options.TopK = 5,
    rerank: Annotated[bool, typer.Option(help="Whether to rerank, or show the order of BM25.")] = True,
    model: options.Model = "embedded",
    threshold: options.Threshold = None,
    adaptive_ratio: options.AdaptiveRatio = None,
    text_field: options.TextField = "text",
    output: options.OutputOption = Output.TABLE,
    timeout: options.Timeout = None,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
) -> None:
    """Search a folder: BM25 finds candidates, the model ranks them.

    The index is kept in the corpus's hidden folder .rerank-bridge and follows its files.

    [bold]Examples[/]

    rerank-bridge query "How do I configure auth?" --corpus docs

    rerank-bridge query "retry a request" -c src -o jsonl | jq -r '"\\(.path):\\(.start_line)"'
    """
    selection = Selection(score_threshold=threshold, adaptive_ratio=adaptive_ratio, top_n=top_k)
    reranker = (
        options.reranker(model, timeout=timeout, base_url=base_url, instruction=instruction) if rerank else None
    )
    if reranker is not None:
        # A local model loads while the index is read; what goes wrong is told by the call that needs it.
        threading.Thread(target=_warm_up, args=[reranker], daemon=True).start()
    start = perf_counter()
    index = _opened(corpus, text_field)
    opened = perf_counter()
    hits = index.search(query, limit)
    searched = perf_counter()
    found, answered = _ranked(reranker, query, hits, selection)
    timings = {"index": opened - start, "first_stage": searched - opened, "rerank": perf_counter() - searched}
    if output is Output.TABLE:
        write_table(_table(found, reranked=rerank)) if found else note("nothing was found")
        note(
            f"{len(index):,} chunks, {len(hits)} candidates, {answered}; seconds: index {timings['index']:.2f}, "
            f"BM25 {timings['first_stage']:.3f}, rerank {timings['rerank']:.2f}"
        )
    elif output is Output.JSONL:
        write_json([_fields(each, rank) for rank, each in enumerate(found, 1)], lines=True)
    else:
        write_json(
            {
                "query": query,
                "model": answered,
                "chunks": len(index),
                "candidates": len(hits),
                "seconds": timings,
                "results": [_fields(each, rank) for rank, each in enumerate(found, 1)],
            }
        )


def _warm_up(reranker: Reranker) -> None:
    with contextlib.suppress(RerankError):
        reranker.warm_up()


def _opened(corpus: Path, text_field: str) -> CorpusIndex:
    start = perf_counter()
    index = CorpusIndex.open(corpus, text_field=text_field)
    if index.built:
        kept = f"kept in {index.kept_at}" if index.kept_at else "in memory only, since no folder can be written to"
        note(f"indexed {len(index):,} chunks (files: {index.files:,}) in {perf_counter() - start:.1f} s; {kept}")
    return index


def _ranked(
    reranker: Reranker | None, query: str, hits: Sequence[Hit], selection: Selection
) -> tuple[list[_Found], str]:
    if reranker is None:
        return [_Found(hit, rank, None) for rank, hit in enumerate(hits[: selection.top_n], 1)], "not reranked"
    with reranker:
        ranking = reranker.rerank(query, hits, text_fn=lambda hit: hit.chunk.reading, selection=selection)
    return [_Found(row.document, row.index + 1, row.score) for row in ranking], ranking.model


def _fields(found: _Found, rank: int) -> dict[str, Any]:
    chunk = found.hit.chunk
    return {
        "rank": rank,
        "score": found.score,
        "first_stage_rank": found.first_rank,
        "first_stage_score": found.hit.score,
        "path": chunk.path,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "heading": chunk.heading,
        "text": chunk.text,
    }


def _table(found: Sequence[_Found], *, reranked: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    if reranked:
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("moved", justify="right", no_wrap=True)
    table.add_column("BM25", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold", ratio=1)
    for rank, each in enumerate(found, 1):
        chunk = each.hit.chunk
        # Paths are not cut: they are what one copies.
        where = Text(one_line(chunk.where, len(chunk.where) + 1), style="bold")
        lines = [where, terminal_text(chunk.heading, style="italic"), terminal_text(chunk.text, style="dim")]
        shown = Text("\n").join(line for line in lines if line.plain)
        scores = [f"{each.score:.3f}", movement(each.first_rank - rank)] if each.score is not None else []
        table.add_row(str(rank), *scores, f"{each.hit.score:.1f}", shown)
    return table
