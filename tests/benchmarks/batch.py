"""Print how many rows per second a file job ranks, in one process and on Ray, and what kills cost.

Arguments: rows for the scorer without a model (by default 20,000), and for the embedded one (2,000). Every row has
20 candidates. Rates are taken between the first and the last part, so that no start of a cluster is in them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.batches import plain_loop, results, worker_pids, write_rows

from rerank_core import Reranker, Scorer, Selection, load_scorer
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, Progress, rerank_file

CANDIDATES = 20
STARTS, ENDS = ("mem", "leak", "sock", "loop", "tok", "rank"), ("ory", "ed", "et", "ing", "en", "er")
WORDS = [start + end for start in STARTS for end in ENDS]


def candidate(row: int, position: int) -> str:
    """Return a text of 8 to 37 words, unlike any other."""
    words = (WORDS[(row * 7 + position * 5 + word * (position + 1)) % 32] for word in range(8 + position * 3 % 30))
    return f"{' '.join(words)} {row}"


def rows_of(count: int) -> list[dict[str, object]]:
    """Return rows of different queries and candidates."""
    return [
        {
            "id": row,
            "query": f"how does the {WORDS[row % 32]} {WORDS[row % 29]} work {row}",
            "documents": [candidate(row, position) for position in range(CANDIDATES)],
        }
        for row in range(count)
    ]


def rate(source: Path, output: Path, options: BatchOptions) -> float:
    """Run a job, and return its rows per second between the first and the last part."""
    told: list[Progress] = []
    report = rerank_file(source, output, options, on_progress=told.append)
    assert report.ok
    first, last = told[0], told[-1]
    print(f"  {options.workers} × {report.engine:8}", end="")
    per_second = (last.done - first.done) / (last.seconds - first.seconds)
    print(f"{per_second:8.1f} rows/s, {report.seconds:6.1f} s in all", flush=True)
    return per_second


def compare(name: str, scorer: Scorer, count: int, rows_per_part: int, tolerance: float) -> None:
    """Print the rates of a scorer, and check every result against a plain loop."""
    rows = rows_of(count)
    print(f"{name}: {count:,} rows × {CANDIDATES}")
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder) / "in.jsonl", rows)
        found = {}
        rates = {}
        for engine, workers in (("process", 1), ("ray", 1), ("ray", 2)):
            options = BatchOptions(scorer, engine=engine, workers=workers, rows_per_part=rows_per_part)  # type: ignore[arg-type]
            output = Path(folder) / f"{engine}{workers}"
            rates[engine, workers] = rate(source, output, options)
            found[engine, workers] = [(row["id"], row["indices"], row["scores"]) for row in results(output)]
    start = time.perf_counter()
    expected = plain_loop(Reranker(scorer), rows, Selection())  # type: ignore[arg-type]
    print(f"  plain loop  {count / (time.perf_counter() - start):8.1f} rows/s")
    worst = 0.0
    for each in found.values():
        assert [number for number, _, _ in each] == list(range(count))
        for (_, indices, scores), (order, wanted) in zip(each, expected, strict=True):
            given = dict(zip(indices, scores, strict=True))
            assert sorted(indices) == sorted(order)
            worst = max(worst, *(abs(given[i] - w) for i, w in zip(order, wanted, strict=True) if w is not None))
    assert worst <= tolerance, worst
    print(f"  largest difference of a score to the loop's: {worst:.2g}")
    print(f"  2 workers rank {rates['ray', 2] / rates['ray', 1]:.2f} × as many rows as 1", flush=True)


JOB = """
import sys
from rerank_tools.batch import BatchOptions, rerank_file
from rerank_core.testing import FakeScorer
_, source, output, engine = sys.argv
rerank_file(source, output, BatchOptions(FakeScorer(latency=0.02), engine=engine, workers=2, rows_per_part=500))
"""


def killed(count: int, *, driver: bool) -> None:
    """Kill the driver, or one worker, at a fifth of the job; let it end, and print what was done twice."""
    options = BatchOptions(FakeScorer(latency=0.02), engine="ray", workers=2, rows_per_part=500)
    with tempfile.TemporaryDirectory() as folder:
        source, output = write_rows(Path(folder) / "in.jsonl", rows_of(count)), Path(folder) / "out"
        if driver:
            process = subprocess.Popen([sys.executable, "-c", JOB, str(source), str(output), "ray"])
            wait(output, count // 5)
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:

            def kill() -> None:
                wait(output, count // 5)
                os.kill(worker_pids()[0], signal.SIGKILL)

            threading.Thread(target=kill, daemon=True).start()
        report = rerank_file(source, output, options)
        assert report.ok
        assert [row["id"] for row in results(output)] == list(range(count))
        kept = f"; {report.resumed:,} were there before the second run" if driver else ""
        print(
            f"{'driver' if driver else 'worker'} killed: {count:,} rows, none lost, none doubled{kept}", flush=True
        )


def wait(output: Path, rows: int) -> None:
    """Wait until so many rows are written down."""
    while True:
        journals = list((output / "state").glob("*.journal")) if output.exists() else []
        lines = sum(path.read_bytes().count(b"\n") for path in journals if path.exists())
        if lines + 500 * len(list((output / "rows").glob("part*"))) > rows:
            return
        time.sleep(0.02)


def main(fake: int, embedded: int) -> None:
    """Run all."""
    compare("scorer without a model", FakeScorer(), fake, 500, 0.0)
    compare("embedded, 1 thread", load_scorer("embedded", threads=1, cache_bytes=0), embedded, 20, 1e-4)
    killed(fake, driver=False)
    killed(fake, driver=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or ("20000", "2000")))
