"""Print the peak memory of one call of 100 to 100,000 pairs, and the time from a cold start to first scores.

All texts but each twentieth are cut to a few words: the time is about their number, the memory about the longest.

    local_memory.py --folder FOLDER [--pairs 100 1000 10000] [--runs 5]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, arguments, figure_key, kept, machine, machine_line, start_all, table
from benchmarks.local_speed import REFERENCE, SUBJECTS, our

WORDS = 12
COLD = """
import json, sys
query, texts, name, options = json.load(sys.stdin)
from rerank_core import Reranker, load_scorer
print(Reranker(load_scorer(name, **options)).rerank(query, texts)[0].score, flush=True)
"""


def first_scores(name: str, options: dict[str, object], call: tuple[str, list[str]]) -> float:
    """Return the seconds from the start of a process to its first scores."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", COLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        json.dump([*call, name, options], process.stdin)
        process.stdin.close()
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        if not line:
            raise RuntimeError(process.stderr.read().strip().splitlines()[-1])
    return seconds


def main() -> None:
    """Print both tables."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--runs", type=int, default=5, help="cold processes")
    parser.add_argument("--texts", type=int, default=10, help="documents of the first query")
    parser.add_argument("--only", default="", help="subjects whose name has this in it")
    asked, figures = parser.parse_args(), Figures()
    with kept(asked) as folder:
        from benchmarks._texts import kept_candidates
        from benchmarks._weights import fitted_minilm

        model = fitted_minilm(folder)
        call = kept_candidates(folder)[0]
        embedded = our("embedded", "embedded", cache_bytes=0)
        subjects = [each for each in SUBJECTS if each.name == REFERENCE or each.name.startswith("ours")]
        rows = []
        for subject in [embedded, *subjects]:
            if asked.only not in subject.name:
                continue
            row = [subject.name]
            for count in asked.pairs:
                for worker in start_all([subject], model, asked.threads).values():
                    try:
                        found = worker.score_many(call, count, WORDS)
                    except RuntimeError as exc:
                        print(f"left out: {subject.name}: {exc}")
                        continue
                    finally:
                        worker.stop()
                    about = f"{subject.name}: peak memory of one call of {count:,} pairs"
                    name = f"local_memory.{figure_key(subject.name)}.of_{count}"
                    figures.add(name, about, found["peak_mb"], "MB", digits=0)
                    row += [f"{found['peak_mb']:.0f}", f"{found['peak_mb'] - found['before_mb']:+.0f}"]
            if len(row) == 1 + 2 * len(asked.pairs):
                rows.append(row)
                print(f"measured: {subject.name}", file=sys.stderr, flush=True)
        print(machine_line(machine(asked.threads)))
        print("peak memory in MB of one call of so many pairs, and by how much it is above that before the call")
        print(table(["", *(head for count in asked.pairs for head in (f"{count:,}", "growth"))], rows))
        rows = []
        for subject in [embedded, *subjects]:
            if asked.only not in subject.name or subject.name == REFERENCE:
                continue
            options = subject.asked["options"] | {"threads": asked.threads}
            name = subject.asked["scorer"].format(folder=model)
            try:
                times = [first_scores(name, options, (call[0], call[1][: asked.texts])) for _ in range(asked.runs)]
            except RuntimeError as exc:
                print(f"left out: {subject.name}: {exc}")
                continue
            rows.append([subject.name, f"{statistics.median(times):.2f}", f"{min(times):.2f}–{max(times):.2f}"])
            about = f"{subject.name}: from the start of a process to the scores of {asked.texts} documents"
            figures.add(f"local_memory.{figure_key(subject.name)}.cold", about, times, "s", digits=1)
        figures.write(asked)
        print(f"seconds from a cold start to the scores of {asked.texts} documents, {asked.runs} processes each")
        print(table(["", "median", "range"], rows))


if __name__ == "__main__":
    main()
