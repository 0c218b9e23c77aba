"""Print how long `import rerank_core` takes, as the median of 20 fresh processes; the goal is under 150 ms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, median, simple_arguments

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
RUNS = 20


def milliseconds(module: str) -> float:
    """Return the import time of a module in a fresh process, in milliseconds."""
    run = subprocess.run([sys.executable, "-c", TIMED.format(module)], capture_output=True, check=True)
    return 1000 * float(run.stdout)


def main() -> None:
    """Print the median and the range, beside those of asyncio, which is most of it; the two take turns."""
    asked, figures = simple_arguments(__doc__ or "").parse_args(), Figures()
    times: dict[str, list[float]] = {"asyncio": [], "rerank_core": []}
    for _ in range(RUNS):
        for module, taken in times.items():
            taken.append(milliseconds(module))
    for module, taken in times.items():
        figures.add(f"import_time.{module}", f"`import {module}` in a fresh process", taken, "ms", digits=0)
        print(f"import {module}: {median(taken)} ms, {RUNS} fresh processes")
    ratios = [ours / theirs for theirs, ours in zip(*times.values(), strict=True)]
    figures.add("import_time.ratio", "`import rerank_core` against `import asyncio`", ratios, "times", digits=1)
    figures.write(asked)


if __name__ == "__main__":
    main()
