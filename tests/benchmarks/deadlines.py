"""Print how long after its deadline a call passes through: in a request, a queue, a batch and in policies."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.loopback import Loopback, running
from support.providers import scorer_of
from support.scorers import Endless

from rerank_core import Reranker, Scorer, ScorerTimeoutError, load_scorer
from rerank_core.policies import Cascade, Fallback, Hedged, Windowed
from rerank_core.testing import FakeScorer

QUERY = "find a memory leak"
TEXTS = [f"text {number} about memory leaks ".ljust(1000, "x") for number in range(100)]
LONG = [f"text {number} " + "memory " * 240 for number in range(100)]
TIMEOUT = 0.2
RUNS = 40
GOAL = 0.02


def cases(loopback: Loopback) -> dict[str, tuple[Scorer, list[str]]]:
    """Return what to run into a deadline, by name."""

    def service(**options: int) -> Scorer:
        return scorer_of("cohere", loopback, max_retries=5, **options)

    return {
        "no scorer that answers": (Endless(), TEXTS),
        "a request": (service(), TEXTS),
        "eight requests, one at a time": (service(documents_per_request=13, max_concurrency=1), TEXTS),
        "a hedge": (Hedged(service(), delay=0.05), TEXTS),
        "a fallback": (Fallback([service(), Endless()], timeout=0.1), TEXTS),
        "a cascade of windows": (Cascade([FakeScorer(), Windowed(service(), window=64)], keep=[50]), TEXTS),
        "a batch of the embedded model": (load_scorer("embedded", cache_bytes=0), LONG),
        "windows of the embedded model": (Windowed(load_scorer("embedded", cache_bytes=0), window=64), LONG),
    }


def late(reranker: Reranker, texts: list[str], ready: Callable[[], object]) -> float:
    """Return the seconds between the deadline and the answer."""
    ready()
    began = time.perf_counter()
    ranking = reranker.rerank(QUERY, texts)
    seconds = time.perf_counter() - began - TIMEOUT
    if not isinstance(ranking.error, ScorerTimeoutError):
        raise SystemExit(f"no deadline passed: {ranking!r}")
    return max(0.0, seconds)


def main() -> None:
    """Print each case's median and maximum; the goal is 20 ms."""
    logging.disable(logging.WARNING)
    with running() as loopback:
        for name, (scorer, texts) in cases(loopback).items():
            with Reranker(scorer, timeout=TIMEOUT, on_error="passthrough") as reranker:
                reranker.warm_up()
                seconds = sorted(
                    late(reranker, texts, lambda: loopback.plan(delay=30.0, record=False)) for _ in range(RUNS)
                )
            within = sum(second <= GOAL for second in seconds)
            print(
                f"{name}: median {seconds[RUNS // 2] * 1000:.1f} ms, maximum {seconds[-1] * 1000:.1f} ms, "
                f"{within} of {RUNS} within {GOAL * 1000:.0f} ms"
            )


if __name__ == "__main__":
    main()
