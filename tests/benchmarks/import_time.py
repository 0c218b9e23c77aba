"""Print how long `import rerank_core` takes, as the median of 20 fresh processes; the goal is under 150 ms."""

from __future__ import annotations

import statistics
import subprocess
import sys

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
RUNS = 20


def milliseconds(module: str) -> list[float]:
    """Return the import times of a module in fresh processes, in milliseconds."""
    return [
        1000 * float(subprocess.run([sys.executable, "-c", TIMED.format(module)], capture_output=True).stdout)
        for _ in range(RUNS)
    ]


def main() -> None:
    """Print the median and the range, beside those of asyncio, which is most of it."""
    for module in ("asyncio", "rerank_core"):
        times = milliseconds(module)
        print(
            f"import {module}: median {statistics.median(times):.0f} ms "
            f"({min(times):.0f} to {max(times):.0f}) of {RUNS} fresh processes"
        )


if __name__ == "__main__":
    main()
