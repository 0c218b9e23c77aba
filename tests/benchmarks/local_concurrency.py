"""Print what 16 callers of 20 documents each at once cost, against one call of 320.

Throughput is the time of one call of 320 divided by the time until all 16 have their answer; latency is a
caller's, divided by the ideal share, which is the time of one call of 320 as well: the machine is as busy with
either. Rounds are interleaved: one call, then 16 coroutines, then 16 threads.

    local_concurrency.py --folder FOLDER [--rounds 5] [--scorer onnx:{folder}] [--options '{"precision": "int8"}']
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, arguments, kept, machine, machine_line, median, table

from rerank_core import Reranker, load_scorer

CALLERS, EACH = 16, 20
Times = tuple[float, list[float]]


def one_call(reranker: Reranker, query: str, texts: list[str]) -> Times:
    """Score all texts in one call."""
    start = time.perf_counter()
    reranker.rerank(query, texts)
    seconds = time.perf_counter() - start
    return seconds, [seconds]


def coroutines(reranker: Reranker, query: str, texts: list[str]) -> Times:
    """Score them in 16 calls of one event loop; return the time of all, and of each."""

    async def call(part: list[str]) -> float:
        start = time.perf_counter()
        await reranker.arerank(query, part)
        return time.perf_counter() - start

    async def all_calls() -> Times:
        start = time.perf_counter()
        each = await asyncio.gather(*(call(part) for part in parts(texts)))
        return time.perf_counter() - start, list(each)

    return asyncio.run(all_calls())


def threads(reranker: Reranker, query: str, texts: list[str]) -> Times:
    """Score them in 16 threads that begin together; return the time of all, and of each."""
    together = threading.Barrier(CALLERS)

    def call(part: list[str]) -> tuple[float, float]:
        together.wait()
        start = time.perf_counter()
        reranker.rerank(query, part)
        return start, time.perf_counter()

    with ThreadPoolExecutor(CALLERS) as pool:
        spans = list(pool.map(call, parts(texts)))
    return max(end for _, end in spans) - min(start for start, _ in spans), [end - start for start, end in spans]


def parts(texts: list[str]) -> list[list[str]]:
    """Return what each caller has."""
    return [texts[number * EACH : (number + 1) * EACH] for number in range(CALLERS)]


WAYS: dict[str, Callable[[Reranker, str, list[str]], Times]] = {"coroutines": coroutines, "threads": threads}


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, help="cut the documents to so many words, for a quick look")
    parser.add_argument("--scorer", default="onnx:{folder}")
    parser.add_argument("--options", type=json.loads, default={}, help="the scorer's other options, as JSON")
    asked = parser.parse_args()
    with kept(asked) as folder:
        from benchmarks._texts import kept_candidates
        from benchmarks._weights import fitted_minilm

        model = fitted_minilm(folder)
        calls = kept_candidates(folder)
        found_texts = (" ".join(text.split()[: asked.words]) for _, found in calls for text in found)
        texts = list(dict.fromkeys(found_texts))[: CALLERS * EACH]
        name = asked.scorer.format(folder=model)
        with Reranker(load_scorer(name, threads=asked.threads, **asked.options)) as reranker:
            reranker.rerank(calls[0][0], texts[:EACH])
            ones: list[float] = []
            runs: dict[str, list[Times]] = {way: [] for way in WAYS}
            for _ in range(asked.rounds):
                ones.append(one_call(reranker, calls[0][0], texts)[0])
                for way, run in WAYS.items():
                    runs[way].append(run(reranker, calls[0][0], texts))
    rows, figures = [], Figures()
    for way, found in runs.items():
        throughput = [one / whole for one, (whole, _) in zip(ones, found, strict=True)]
        late = [statistics.quantiles(each, n=20)[-1] / one for one, (_, each) in zip(ones, found, strict=True)]
        middle = [statistics.median(each) / one for one, (_, each) in zip(ones, found, strict=True)]
        about = f"{CALLERS} {way} with {EACH} documents each, against one call of {CALLERS * EACH}"
        figures.add(f"local_concurrency.{way}.throughput", f"{about}: throughput", throughput, "times")
        figures.add(f"local_concurrency.{way}.p95", f"{about}: p95 latency", late, "times")
        rows.append([f"{CALLERS} {way} × {EACH}", median(throughput), median(late), median(middle)])
    print(f"{asked.scorer} {asked.options or ''} {asked.rounds} rounds; {machine_line(machine(asked.threads))}")
    print(f"against one call of {CALLERS * EACH}, medians (ranges):")
    print(table(["", "throughput", "p95 latency", "median latency"], rows))
    figures.write(asked)


if __name__ == "__main__":
    main()
