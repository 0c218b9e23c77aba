"""How long it takes to index a folder, and to search it: in this process, and by the command in a fresh one.

Usage: python tests/benchmarks/corpus_search.py [FOLDER]    by default the standard library without its tests
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rerank_core import Reranker, Selection
from rerank_tools.corpus import CorpusIndex

QUERIES = [
    "parse command line arguments",
    "read one member of a zip archive",
    "cancel a running asyncio task",
    "temporary directory that is removed",
    "retry when the connection is refused",
    "format a date as ISO 8601",
]
COMMAND = Path(sys.executable).parent / "rerank-bridge"


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(folder: Path) -> None:
    """Print what was measured."""
    seconds = timed(lambda: CorpusIndex.open(folder))
    index = CorpusIndex.open(folder)
    print(f"{index.files:,} files, {len(index):,} chunks: indexed in {seconds:.1f} s")
    print(f"index loaded in {timed(lambda: CorpusIndex.open(folder)):.2f} s")
    reranker = Reranker("embedded", selection=Selection(top_n=5))
    reranker.warm_up()

    def search(query: str) -> None:
        reranker.rerank(query, index.search(query, 20), text_fn=lambda hit: hit.chunk.reading)

    search("warm up")
    inside = [timed(lambda query=query: search(query)) for query in QUERIES]  # type: ignore[misc]
    fresh = [
        timed(
            lambda query=query: subprocess.run(  # type: ignore[misc]
                [COMMAND, "query", query, "-c", folder, "-o", "json"], check=True, capture_output=True
            )
        )
        for query in QUERIES
    ]
    for name, values in (("in this process", inside), ("in a fresh one", fresh)):
        print(f"query, 20 reranked, {name}: median {statistics.median(values):.2f} s, worst {max(values):.2f} s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as copy, tempfile.TemporaryDirectory() as cache:
            os.environ["RERANK_BRIDGE_CACHE"] = cache
            ignored = shutil.ignore_patterns("__pycache__", "site-packages", "test", "tests", "idle_test", "*.so")
            shutil.copytree(sysconfig.get_paths()["stdlib"], copy, ignore=ignored, dirs_exist_ok=True)
            measure(Path(copy))
