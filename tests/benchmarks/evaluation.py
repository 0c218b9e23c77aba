"""Print the quality of scorers over BM25's top 100, and what it suggests; check it against ir_measures by hand.

evaluation.py FOLDER [SCORER …]: a collection in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv),
which is read in place, and names of scorers, by default "embedded". Collections marked evaluation-only are never
tuned on.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import ir_measures
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, figure_key, simple_arguments

from rerank_core import ConfigurationError, Scorer, load_scorer
from rerank_tools.evaluation import (
    EvaluationResult,
    evaluate,
    suggest_candidates,
    suggest_retrieval_weight,
    suggest_threshold,
)

# Room for the vectors of the whole collection, since most documents are candidates of several queries.
CACHE_BYTES = 2**30
PRECISION = 0.5
NDCG = "nDCG@10"
WEIGHT = 0.15


def main() -> None:
    """Evaluate, check, and print."""
    parser, figures = simple_arguments(__doc__ or ""), Figures()
    parser.add_argument("folder", type=Path)
    parser.add_argument("scorers", nargs="*", default=["embedded"])
    asked = parser.parse_args()
    names = asked.scorers
    try:
        result = evaluate([loaded(name) for name in names], asked.folder, progress=sys.stderr.isatty())
    except ConfigurationError as exc:
        sys.exit(str(exc))
    Console(soft_wrap=True).print(result.to_table())
    check(result)
    for system in result.systems:
        quality = f"{NDCG} of {system.name} over BM25's top 100, {result.dataset}"
        figures.add(
            f"evaluation.{figure_key(system.name)}",
            quality,
            system.measures[NDCG],
            digits=3,
            interval=system.intervals[NDCG],
        )
    for name in names:
        weigh(result, name, figures)
    figures.write(asked)
    for name in names:
        cut = suggest_threshold(result, target_precision=PRECISION, system=name)
        print(f"\n{name}: lowest threshold for a precision of {PRECISION}: {shown(cut.threshold)}")
        if cut.precision_interval is not None:
            low, high = cut.precision_interval
            print(
                f"  precision {low:.2f} to {high:.2f}, recall {shown(cut.recall)}, "
                f"{shown(cut.kept)} kept per query"
            )
        print(f"  {cut.note}")
        depth = suggest_candidates(result, system=name)
        print(f"{name}: suggested candidates {depth.candidates}, {depth.measure} {depth.mean:.3f}. {depth.note}")
        print("  " + ", ".join(f"{point.candidates}: {point.mean:.3f}" for point in depth.curve))


def weigh(result: EvaluationResult, name: str, figures: Figures) -> None:
    """Print what the first stage's opinion adds, by its scores and by its ranks alone."""
    ranks = {
        query: replace(answer, scores=(None,) * len(answer.scores))
        for query, answer in result.baseline.queries.items()
    }
    ranked = replace(result, systems=(replace(result.baseline, queries=ranks), *result.rerankers))
    for key, what, known in (("weighted", "scores", result), ("weighted_by_rank", "ranks", ranked)):
        opinion = suggest_retrieval_weight(known, measure=NDCG, system=name)
        print(f"{name}: suggested retrieval_weight {opinion.weight:.2f} for BM25's {what}. {opinion.note}")
        print("  " + ", ".join(f"{point.weight:.2f}: {point.mean:.3f}" for point in opinion.curve))
        (point,) = (point for point in opinion.curve if point.weight == WEIGHT)
        about = f"of {name} with retrieval_weight={WEIGHT} for BM25's {what}"
        figures.add(f"evaluation.{name}.{key}", f"{NDCG} {about}", point.mean, digits=3)
        gain = f"what {NDCG} {about} gains"
        figures.add(f"evaluation.{name}.{key}_gain", gain, point.gain, digits=3, interval=point.gain_interval)


def shown(value: float | None) -> str:
    """Return a number to three decimals."""
    return "none" if value is None else f"{value:.3f}"


def loaded(name: str) -> Scorer:
    """Return a scorer of a name."""
    return load_scorer(name, cache_bytes=CACHE_BYTES) if name == "embedded" else load_scorer(name)


def check(result: EvaluationResult) -> None:
    """Compare every number with ir_measures on the saved run files."""
    qrels = [
        ir_measures.Qrel(query, document, grade)
        for query, grades in result.qrels.items()
        for document, grade in grades.items()
    ]
    measures = [ir_measures.parse_measure(name) for name in result.measures]
    with tempfile.TemporaryDirectory() as folder:
        for name, path in result.save_runs(folder).items():
            by_hand = ir_measures.calc(measures, qrels, ir_measures.read_trec_run(str(path)))
            for measure, value in by_hand.aggregated.items():
                if abs(result[name].measures[str(measure)] - value) > 1e-12:
                    sys.exit(f"{name}: {measure} is {value} by hand, {result[name].measures[str(measure)]} here")
            for metric in by_hand.per_query:
                if abs(result[name].per_query[str(metric.measure)][metric.query_id] - metric.value) > 1e-12:
                    sys.exit(f"{name}: {metric} by hand")
    print("every number agrees with ir_measures on the saved run files")


if __name__ == "__main__":
    main()
