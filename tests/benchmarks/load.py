"""Print what becomes of 2,000 calls of 100 documents, from 32 threads and from one event loop.

The service refuses 5 % of the requests with 429 and drops 2 % of the connections. Arguments: providers, by
default cohere, voyage and jina.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["NO_PROXY"] = "127.0.0.1"

from support.load import Load, LoadResult
from support.loopback import running


def report(provider: str, door: str, result: LoadResult) -> None:
    """Print one row."""
    print(
        f"{provider:8} {door:14} {result.calls} calls, {result.wrong} wrong, {result.lost} lost, "
        f"{result.retries} retries, {result.seconds:.1f} s, {result.extra_memory:.0f} MiB extra at the peak",
        flush=True,
    )


def main(providers: list[str]) -> None:
    """Run all loads."""
    logging.getLogger("rerank_core").setLevel(logging.ERROR)
    with running() as loopback:
        for provider in providers:
            load = Load(loopback, provider)
            report(provider, "32 threads", load.from_threads())
            report(provider, "one event loop", load.from_one_loop())


if __name__ == "__main__":
    main(sys.argv[1:] or ["cohere", "voyage", "jina"])
