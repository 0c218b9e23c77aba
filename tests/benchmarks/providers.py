"""Print what our scorers add to the bare SDK clients, doing the same calls in the same run.

1. 300 calls of 100 documents each way, turn and turn about, to a service that answers at once: the medians.
2. 5,000 documents in one call, to a service that answers in 50 ms, and the SDK asked 1,000 at a time in turn.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["NO_PROXY"] = "127.0.0.1"

import cohere
import voyageai
from benchmarks._bench import Figures, simple_arguments
from support.loopback import Loopback, running
from support.providers import KEY, MODELS, scorer_of

from rerank_core import Reranker

QUERY = "find a memory leak"
SMALL = [f"document {number} about memory leaks ".ljust(1000, "x") for number in range(100)]
LARGE = [f"document {number} about memory leaks ".ljust(200, "x") for number in range(5000)]
CALLS = 300
REPEATS = 7

Ask = Callable[[list[str]], Awaitable[Any]]


def bare_clients(loopback: Loopback) -> dict[str, Ask]:
    """Return a function a provider that asks its SDK."""
    ours = cohere.AsyncClientV2(api_key=KEY, base_url=loopback.url("cohere"))
    theirs = voyageai.AsyncClient(api_key=KEY, base_url=f"{loopback.url('voyage')}/v1")

    async def ask_cohere(texts: list[str]) -> Any:
        response = await ours.rerank(model=MODELS["cohere"], query=QUERY, documents=texts)
        return [(result.index, result.relevance_score) for result in response.results]

    async def ask_voyage(texts: list[str]) -> Any:
        response = await theirs.rerank(QUERY, texts, MODELS["voyage"])
        return [(result.index, result.relevance_score) for result in response.results]

    return {"cohere": ask_cohere, "voyage": ask_voyage}


async def timed(work: Awaitable[Any]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def overhead(provider: str, bare: Ask, reranker: Reranker, figures: Figures) -> None:
    """Print the medians of single calls."""
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(CALLS + 20):
        times["bare"].append(await timed(bare(SMALL)))
        times["ours"].append(await timed(reranker.arerank(QUERY, SMALL)))
    bare_ms, ours_ms = (statistics.median(values[20:]) * 1000 for values in times.values())
    print(
        f"{provider}: 100 documents, bare SDK {bare_ms:.2f} ms, ours {ours_ms:.2f} ms: "
        f"{ours_ms - bare_ms:+.2f} ms ({(ours_ms / bare_ms - 1) * 100:+.1f} %)",
        flush=True,
    )
    figures.add(
        f"providers.{provider}.added", "what a call of 100 documents adds to the SDK", ours_ms - bare_ms, "ms"
    )


async def large(provider: str, bare: Ask, reranker: Reranker, figures: Figures) -> None:
    """Print the medians of a large call."""

    async def in_sequence() -> None:
        for start in range(0, len(LARGE), 1000):
            await bare(LARGE[start : start + 1000])

    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(REPEATS + 1):
        times["bare"].append(await timed(in_sequence()))
        times["ours"].append(await timed(reranker.arerank(QUERY, LARGE)))
    bare_ms, ours_ms = (statistics.median(values[1:]) * 1000 for values in times.values())
    print(
        f"{provider}: 5,000 documents, bare SDK 1,000 at a time {bare_ms:.0f} ms, ours {ours_ms:.0f} ms: "
        f"{bare_ms / ours_ms:.1f} times as fast",
        flush=True,
    )
    about = "5,000 documents at once, against the SDK with 1,000 at a time"
    ratios = [theirs / ours for theirs, ours in zip(times["bare"][1:], times["ours"][1:], strict=True)]
    figures.add(f"providers.{provider}.large", about, ratios, "times", digits=1)


async def main() -> None:
    """Measure both SDKs."""
    asked, figures = simple_arguments(__doc__ or "").parse_args(), Figures()
    with running() as loopback:
        for provider, bare in bare_clients(loopback).items():
            reranker = Reranker(scorer_of(provider, loopback))
            loopback.plan(record=False, flat=True)
            await overhead(provider, bare, reranker, figures)
            loopback.plan(record=False, flat=True, delay=0.05)
            await large(provider, bare, reranker, figures)
    figures.write(asked)


if __name__ == "__main__":
    asyncio.run(main())
