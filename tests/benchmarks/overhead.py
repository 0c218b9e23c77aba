"""Print what a call costs beside the model: 100 documents of 1,000 characters, FakeScorer, sync and async."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, simple_arguments

from rerank_core import Reranker
from rerank_core.testing import FakeScorer

DOCUMENTS = [f"document {number} about memory leaks ".ljust(1000, "x") for number in range(100)]
QUERY = "finding a memory leak"
RUNS = 500


def report(door: str, seconds: list[float], bare: float, figures: Figures) -> None:
    """Print the median of a door, whole and without the scorer's own time."""
    median = statistics.median(seconds) * 1000
    print(f"{door}: median {median:.2f} ms a call, {median - bare * 1000:.2f} ms of it beside the scorer")
    about = f"`{door}` of 100 documents, beside the scorer's own time"
    figures.add(f"overhead.{door}", about, median - bare * 1000, "ms")


async def bare_seconds(scorer: FakeScorer) -> float:
    """Return the median time of the scorer alone."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        await scorer.score(QUERY, DOCUMENTS)
        times.append(time.perf_counter() - start)
        scorer.seen.clear()
    return statistics.median(times)


async def async_seconds(reranker: Reranker, scorer: FakeScorer) -> list[float]:
    """Return the times of async calls."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        await reranker.arerank(QUERY, DOCUMENTS)
        times.append(time.perf_counter() - start)
        scorer.seen.clear()
    return times


def sync_seconds(reranker: Reranker, scorer: FakeScorer) -> list[float]:
    """Return the times of sync calls."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        reranker.rerank(QUERY, DOCUMENTS)
        times.append(time.perf_counter() - start)
        scorer.seen.clear()
    return times


def main() -> None:
    """Print both doors; the goal is at most 1 ms each."""
    asked, figures = simple_arguments(__doc__ or "").parse_args(), Figures()
    scorer = FakeScorer()
    reranker = Reranker(scorer)
    bare = asyncio.run(bare_seconds(scorer))
    print(f"FakeScorer alone: median {bare * 1000:.2f} ms for {len(DOCUMENTS)} documents of 1,000 characters")
    report("rerank", sync_seconds(reranker, scorer), bare, figures)
    report("arerank", asyncio.run(async_seconds(reranker, scorer)), bare, figures)
    figures.write(asked)


if __name__ == "__main__":
    main()
