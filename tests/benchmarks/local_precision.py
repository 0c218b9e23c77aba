"""Print what reduced precision does to the order of close candidates, and to scores in different company.

A ranker with real weights scores 20 queries × 100 candidates of BM25; every precision is compared with
``CrossEncoder.predict`` on torch in fp32, without which nothing is printed: overlap of the ten best, Spearman's
correlation, largest difference of a score. Then four pairs are scored alone, with 10 others and with 99 others:
their scores should not depend on the company.

    local_precision.py --folder FOLDER [--rivals-venv FOLDER] [--queries 20]
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

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
    start_all,
    table,
)
from benchmarks.local_speed import REFERENCE, SUBJECTS, our

PAIRS, COMPANY = 4, (0, 10, 99)


def overlap(left: Sequence[float], right: Sequence[float], best: int = 10) -> float:
    """Return which share of the best by one score is among the best by another."""
    tops = [set(sorted(range(len(each)), key=lambda i, each=each: -each[i])[:best]) for each in (left, right)]
    return len(tops[0] & tops[1]) / best


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the correlation of ranks."""
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic)


def logit(score: float) -> float:
    """Return a probability's logit."""
    clipped = min(max(score, 1e-9), 1 - 1e-9)
    return math.log(clipped / (1 - clipped))


def spread(worker: Worker, call: Call) -> tuple[float, float]:
    """Return by how much a score differs at most between companies: as a probability, and as a logit."""
    query, texts = call
    differences = []
    for position in range(PAIRS):
        others = texts[:position] + texts[position + 1 :]
        calls = [(query, [texts[position], *others[-count:]] if count else [texts[position]]) for count in COMPANY]
        scores = [found[0] for found in worker.score(calls)["scores"]]
        logits = [logit(score) for score in scores]
        differences.append((max(scores) - min(scores), max(logits) - min(logits)))
    return max(each for each, _ in differences), max(each for _, each in differences)


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rivals-venv", type=Path, help="where sentence-transformers' ONNX backend is installed")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--documents", type=int, default=100, help="documents a query, at most 100")
    parser.add_argument("--only", default="", help="subjects whose name has this in it, besides fp32")
    asked, figures = parser.parse_args(), Figures()
    with kept(asked) as folder:
        from benchmarks._texts import kept_candidates
        from benchmarks._weights import fitted_minilm

        model = fitted_minilm(folder)
        calls = [(query, found[: asked.documents]) for query, found in kept_candidates(folder)[: asked.queries]]
        rivals = asked.rivals_venv.resolve() if asked.rivals_venv else None
        print(f"{len(calls)} queries × {len(calls[0][1])} candidates; {machine_line(machine(asked.threads))}")
        reference, *others = (each for each in SUBJECTS if each.name == REFERENCE or is_reduced(each, asked.only))
        assert reference.name == REFERENCE
        expected: list[list[float]] = []
        rows = []
        for subject in [reference, *others, our("embedded", "embedded", cache_bytes=0)]:
            for name, worker in start_all([subject], model, asked.threads, rivals).items():
                try:
                    scores = worker.score(calls)["scores"]
                    between, logits = spread(worker, calls[0])
                except RuntimeError as exc:
                    print(f"left out: {name}: {exc}", flush=True)
                    continue
                finally:
                    worker.stop()
                expected = expected or scores
                beside = [""] * 5 if "embedded" in name else compared(expected, scores, name, figures)
                rows.append([name, *beside, f"{between:.1e}", f"{logits:.1e}"])
                print(f"measured: {name}", file=sys.stderr, flush=True)
            if not expected:
                sys.exit(f"{REFERENCE} in fp32, the reference, could not be measured")
        columns = ["top-10 overlap", "least", "Spearman", "least", "score diff.", "spread", "in logits"]
        print(
            f"compared with {REFERENCE} on torch in fp32; embedded is another model, and is compared with itself"
        )
        print(table(["", *columns], rows))
        figures.write(asked)


def is_reduced(subject: Subject, only: str) -> bool:
    """Return whether to compare a subject: ours, and those of others that are int8 or plain ONNX Runtime."""
    of_interest = ("ours", "int8", "plain loop")
    return only in subject.name and any(each in subject.name for each in of_interest)


def compared(expected: list[list[float]], scores: list[list[float]], name: str, figures: Figures) -> list[str]:
    """Return the figures beside the reference's."""
    overlaps = [overlap(left, right) for left, right in zip(expected, scores, strict=True)]
    correlations = [spearman(left, right) for left, right in zip(expected, scores, strict=True)]
    pairs = [each for left, right in zip(expected, scores, strict=True) for each in zip(left, right, strict=True)]
    key = f"local_precision.{figure_key(name)}"
    about = f"{name}: share of the ten best that are those of `{REFERENCE}` in fp32"
    figures.add(f"{key}.overlap", about, statistics.mean(overlaps), digits=3, interval=(min(overlaps), 1.0))
    return [
        f"{statistics.mean(overlaps):.3f}",
        f"{min(overlaps):.2f}",
        f"{statistics.mean(correlations):.4f}",
        f"{min(correlations):.4f}",
        f"{max(abs(left - right) for left, right in pairs):.1e}",
    ]


if __name__ == "__main__":
    main()
