"""Compare the local engine with every other local reranker on MiniLM-L6 shapes and real text.

Each subject lives in a process of its own; rounds are interleaved (every subject scores the same queries before
the next round begins), and speeds are medians of the ratios to ``CrossEncoder.predict`` within a round, so that
other load on the machine hits all alike.

    local_speed.py --folder FOLDER --rivals-venv FOLDER            # 4 rounds of 2 queries × 100 documents
    local_speed.py --folder FOLDER --rivals-venv FOLDER --full     # all 20 queries in each of 3 rounds
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import (
    Call,
    Figures,
    Subject,
    Worker,
    arguments,
    figure_key,
    kept,
    machine,
    machine_line,
    median,
    start_all,
    table,
)

REFERENCE = "CrossEncoder.predict"
FLOOR = "matrix products alone"


def our(name: str, scorer: str, *, threads: bool = True, **options: Any) -> Subject:
    """Return one of this project's scorers."""
    return Subject(f"ours: {name}", {"kind": "ours", "scorer": scorer, "options": options, "threads": threads})


SUBJECTS = [
    Subject(REFERENCE, {"kind": "sentence-transformers"}),
    Subject(FLOOR, {"kind": "products"}),
    Subject("its ONNX backend, fp32", {"kind": "sentence-transformers", "backend": "onnx"}, "rivals-onnx"),
    Subject(
        "its ONNX backend, int8", {"kind": "sentence-transformers", "backend": "onnx", "int8": True}, "rivals-onnx"
    ),
    Subject("its OpenVINO backend", {"kind": "sentence-transformers", "backend": "openvino"}, "rivals"),
    Subject("rerankers", {"kind": "rerankers"}, "rivals"),
    Subject("fastembed", {"kind": "fastembed"}, "rivals", fresh=True),
    Subject("flashrank", {"kind": "flashrank"}, "rivals", fresh=True),
    Subject("plain loop, ONNX Runtime", {"kind": "plain-loop"}),
    our("onnx: its ONNX file", "onnx:{folder}", runtime="onnxruntime"),
    *(
        our(
            f"onnx: {runtime} {precision}",
            "onnx:{folder}",
            runtime=runtime,
            precision=precision,
            file_name="model.safetensors",
        )
        for runtime in ("onnxruntime", "openvino")
        for precision in ("fp32", "int8", "bf16")
        if (runtime, precision) != ("onnxruntime", "bf16")  # which it does not have
    ),
    our("cross-encoder:", "cross-encoder:{folder}"),
]


def lengths_line(folder: Path, calls: list[Call]) -> str:
    """Return how long the pairs are, and how much padding batches of 32 would add."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    lengths = [
        [len(each.ids) for each in tokenizer.encode_batch_fast([(query, text) for text in found])]
        for query, found in calls
    ]
    every = sorted(length for row in lengths for length in row)
    padded = {}
    for name, rows in (("as they come", lengths), ("sorted", [sorted(row, reverse=True) for row in lengths])):
        batches = [row[start : start + 32] for row in rows for start in range(0, len(row), 32)]
        padded[name] = sum(len(batch) * max(batch) for batch in batches) / sum(every) - 1
    middle = [every[round(share * (len(every) - 1))] for share in (0, 0.1, 0.5, 0.9, 1)]
    extra = ", ".join(f"{name} {share:.0%}" for name, share in padded.items())
    return (
        f"{len(calls)} queries × {len(calls[0][1])} documents: {statistics.mean(every):.0f} tokens a pair "
        f"(0/10/50/90/100 %: {'/'.join(map(str, middle))}); padding in batches of 32: {extra}"
    )


def measure(
    workers: dict[str, Worker], calls: list[Call], rounds: int, each: int
) -> dict[str, list[dict[str, Any]]]:
    """Let every subject score the same queries in turn, round after round; one that fails is left out.

    Before its first round a process scores one query that does not count. An interrupt ends the measuring: the
    rounds that are complete count.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(rounds):
            picked = [calls[(number * each + i) % len(calls)] for i in range(each)]
            for name in list(found):
                try:
                    found[name].append(scored(workers[name], picked, None if number else calls[-1:]))
                except RuntimeError as exc:
                    print(f"left out: {name}: round {number + 1}: {exc}", flush=True)
                    del found[name]
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    complete = min((len(runs) for runs in found.values()), default=0)
    return {name: runs[:complete] for name, runs in found.items()} if complete else {}


def scored(worker: Worker, calls: list[Call], warm_up: list[Call] | None) -> dict[str, Any]:
    """Score in a process that is warm, and that ends afterwards where it holds on to too much."""
    if not worker.is_running:
        worker.start()
        warm_up = warm_up or calls[:1]
    if warm_up:
        worker.score(warm_up)
    answer = worker.score(calls)
    if worker.subject.fresh:
        worker.stop()
    return answer


def summary(name: str, runs: list[dict[str, Any]], found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a subject's figures, each of them beside the reference's in the same round."""
    reference = found[REFERENCE]
    summed: dict[str, Any] = {
        "speed": [ref["wall"] / run["wall"] for ref, run in zip(reference, runs, strict=True)],
        "cpu": [ref["cpu"] / run["cpu"] for ref, run in zip(reference, runs, strict=True)],
        "cpu_of_wall": statistics.median(run["cpu"] / run["wall"] for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
        "wall": [run["wall"] for run in runs],
    }
    if FLOOR in found:
        summed["of_floor"] = [floor["wall"] / run["wall"] for floor, run in zip(found[FLOOR], runs, strict=True)]
    if name != FLOOR:
        summed["difference"] = max(
            abs(mine - theirs)
            for ref, run in zip(reference, runs, strict=True)
            for expected, scores in zip(ref["scores"], run["scores"], strict=True)
            for theirs, mine in zip(expected, scores, strict=True)
        )
    return summed


def report(summed: dict[str, dict[str, Any]], workers: dict[str, Worker]) -> str:
    """Return the table."""
    head = ["", "speed", "CPU work", "of the floor", "cpu/wall", "score diff.", "peak MB", "loaded MB", "load s"]
    rows = []
    for name, each in summed.items():
        loaded = workers[name].loaded
        rows.append(
            [
                name,
                median(each["speed"]),
                f"{statistics.median(each['cpu']):.2f}",
                f"{statistics.median(each['of_floor']):.0%}" if "of_floor" in each else "",
                f"{each['cpu_of_wall']:.2f}",
                f"{each['difference']:.1e}" if "difference" in each else "",
                f"{each['peak_mb']:.0f}",
                f"{loaded['loaded_mb']:.0f}",
                f"{loaded['seconds']:.1f}",
            ]
        )
    return table(head, rows)


def main() -> None:
    """Measure, print, and write the figures where that is asked for."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rivals-venv", type=Path, help="where the other packages are installed, on first use")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--queries", type=int, help="queries a round")
    parser.add_argument("--documents", type=int, default=100, help="documents a query, at most 100")
    parser.add_argument("--full", action="store_true", help="all 20 queries in each of 3 rounds")
    parser.add_argument("--only", help="subjects whose name has this in it (and the reference)")
    asked = parser.parse_args()
    with kept(asked) as folder:
        run(asked, folder)


def run(asked: argparse.Namespace, folder: Path) -> None:
    """Measure what was asked for, with the models in a folder."""
    from benchmarks._texts import kept_candidates
    from benchmarks._weights import fitted_minilm

    model = fitted_minilm(folder)
    calls = [(query, found[: asked.documents]) for query, found in kept_candidates(folder)]
    rounds = asked.rounds or (3 if asked.full else 4)
    each = asked.queries or (len(calls) if asked.full else 2)
    print(f"the ranker: {' '.join((model / 'fitted.json').read_text(encoding='utf-8').split())}")
    print(lengths_line(model, calls), flush=True)
    rivals = asked.rivals_venv.resolve() if asked.rivals_venv else None
    wanted = [
        subject
        for subject in SUBJECTS
        if not asked.only or subject.name in (REFERENCE, FLOOR) or asked.only in subject.name
    ]
    before, start = machine(asked.threads), time.perf_counter()
    workers = start_all(wanted, model, asked.threads, rivals)
    try:
        found = measure(workers, calls, rounds, each)
    finally:
        for worker in workers.values():
            worker.stop()
    took = time.perf_counter() - start
    rounds = len(found.get(REFERENCE, ()))
    if not rounds:
        print(f"no round of {REFERENCE} was complete")
        return
    summed = {name: summary(name, runs, found) for name, runs in found.items()}
    print(f"{rounds} rounds of {each} queries × {asked.documents} documents in {took:.0f} s")
    print(machine_line(before))
    print(f"load average afterwards {machine(asked.threads)['load']}; speed against {REFERENCE}: median (range)")
    print(report(summed, workers))
    figures = Figures()
    for name, each in summed.items():
        keep(figures, f"local_speed.{figure_key(name)}", name, each)
    figures.write(asked)


def keep(figures: Figures, name: str, subject: str, summed: dict[str, Any]) -> None:
    """Keep a subject's figures."""
    figures.add(f"{name}.speed", f"{subject}: speed against `{REFERENCE}`", summed["speed"], "times")
    if "of_floor" in summed:
        share = [100 * each for each in summed["of_floor"]]
        figures.add(f"{name}.of_floor", f"{subject}: speed against {FLOOR}", share, "%", digits=0)
    figures.add(f"{name}.peak", f"{subject}: peak memory", summed["peak_mb"], "MB", digits=0)
    if "difference" in summed:
        about = f"{subject}: largest difference of a score from `{REFERENCE}`"
        figures.add(f"{name}.difference", about, summed["difference"], digits=7)


if __name__ == "__main__":
    main()
