"""Compare the embedded scorer with its own first version, taken out of the repository's history.

embedded_first.py [--rounds 5] [--queries 2]
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, Worker, arguments, kept, machine, machine_line, median, table
from benchmarks.local_speed import our

FIRST = "d5e1720b99d0d635ee676541daefdbd1c9f7fb0e"
ROOT = Path(__file__).parents[2]


def first_version(folder: Path) -> Path | None:
    """Return a folder with the first version's sources; None where there is no history."""
    made = subprocess.run(["git", "-C", str(ROOT), "archive", FIRST, "shared"], capture_output=True)
    if made.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder)
    return folder / "shared"


def main() -> None:
    """Print speed, memory and the largest difference of a score; rounds are interleaved, caches are off."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=2, help="queries a round")
    parser.add_argument("--documents", type=int, default=100, help="documents a query, at most 100")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, kept(asked) as folder:
        from benchmarks._texts import kept_candidates

        first = first_version(Path(temporary))
        if first is None:
            print("left out: the embedded scorer's first version: there is no git history here")
            return
        calls = [(query, found[: asked.documents]) for query, found in kept_candidates(folder)]
        subject = our("embedded", "embedded", cache_bytes=0)
        workers = {
            "first version": Worker(subject, sys.executable, folder, asked.threads, paths=[first]),
            "now": Worker(subject, sys.executable, folder, asked.threads),
        }
        runs: dict[str, list[dict[str, object]]] = {name: [] for name in workers}
        try:
            for name, worker in workers.items():
                error = worker.start()
                if error:
                    print(f"left out: {name}: {error}")
                    return
                worker.score(calls[-1:])
            for number in range(asked.rounds):
                picked = [calls[(number * asked.queries + i) % len(calls)] for i in range(asked.queries)]
                for name, worker in workers.items():
                    runs[name].append(worker.score(picked))
        finally:
            for worker in workers.values():
                worker.stop()
    print_table(runs, asked)


def print_table(runs: dict[str, list[dict[str, object]]], asked: argparse.Namespace) -> None:
    """Print what was measured."""
    figures = Figures()
    first, now = runs.values()
    difference = max(
        abs(old - new)
        for before, after in zip(first, now, strict=True)
        for olds, news in zip(before["scores"], after["scores"], strict=True)  # type: ignore[call-overload]
        for old, new in zip(olds, news, strict=True)
    )
    rows = []
    for name, found in runs.items():
        speed = [old["wall"] / new["wall"] for old, new in zip(first, found, strict=True)]  # type: ignore[operator]
        work = [old["cpu"] / new["cpu"] for old, new in zip(first, found, strict=True)]  # type: ignore[operator]
        peak = max(run["peak_mb"] for run in found)  # type: ignore[type-var]
        if name == "now":
            figures.add("embedded_first.speed", "`embedded` against its own first version", speed, "times")
        rows.append([name, median(speed), f"{statistics.median(work):.2f}", f"{peak:.0f}"])
    print(f"{len(now)} rounds; {machine_line(machine(asked.threads))}")
    print(table(["embedded", "speed", "CPU work", "peak MB"], rows))
    print(f"largest difference of a score: {difference:.1e}")
    figures.write(asked)


if __name__ == "__main__":
    main()
