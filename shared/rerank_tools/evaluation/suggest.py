"""Suggestions that follow from an evaluation: where to cut, and how many candidates to rerank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rerank_core._support.checks import check_amount, check_fraction
from rerank_tools.evaluation.measures import (
    make_decreasing,
    mean_interval,
    measure_run,
    parse_measures,
    ratio_interval,
)
from rerank_tools.evaluation.results import EvaluationResult

_Scores = Mapping[str, Sequence[tuple[str, float]]]
_Qrels = Mapping[str, Mapping[str, int]]

_FEW_QUERIES = 30
_FEW_DOCUMENTS = 30
_WIDE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What follows from an evaluation's scores, without another call.

    Attributes:
        system: whose scores these are.
        queries: how many queries this rests on.
        enough: False where the data cannot carry the suggestion; ``note`` says why.
        note: what to know before using it.
    """

    system: str
    queries: int
    enough: bool
    note: str


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """What a threshold would keep, over all queries.

    Attributes:
        threshold: keep score ≥ this.
        precision: share of the kept documents that are relevant.
        recall: share of the relevant candidates that are kept.
        kept: documents kept per query, on average.
    """

    threshold: float
    precision: float
    recall: float
    kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSuggestion(Suggestion):
    """The lowest threshold that reaches a precision, and the whole curve.

    Attributes:
        target_precision: what was asked for.
        threshold: for ``Selection(score_threshold=…)``; None where no threshold reaches the target.
        precision: at the threshold, on these queries; None without one.
        precision_interval: 95 % bootstrap interval over queries; None without a threshold.
        recall: at the threshold, of the relevant candidates; None without one.
        kept: documents kept per query, on average; None without a threshold.
        curve: by falling threshold; precision, recall and documents kept.
    """

    target_precision: float
    threshold: float | None
    precision: float | None
    precision_interval: tuple[float, float] | None
    recall: float | None
    kept: float | None
    curve: tuple[ThresholdPoint, ...]


@dataclass(frozen=True, slots=True)
class CandidatesPoint:
    """What reranking only the first stage's best ``candidates`` would give.

    Attributes:
        candidates: how many are reranked.
        mean: the measure's mean over queries.
        remaining: how much the best larger number of candidates adds to it; 0.0 where none does.
        remaining_interval: 95 % bootstrap interval of that, paired by query; None with fewer than two queries.
    """

    candidates: int
    mean: float
    remaining: float
    remaining_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesSuggestion(Suggestion):
    """How many candidates to rerank, because more would not help, and the whole curve.

    Attributes:
        measure: what "helping" is measured by.
        tolerance: gains up to this count as none.
        candidates: how many the first stage should return.
        mean: the measure's mean with so many.
        curve: by rising number of candidates.
    """

    measure: str
    tolerance: float
    candidates: int
    mean: float
    curve: tuple[CandidatesPoint, ...]


def suggest_threshold(
    results: EvaluationResult, *, target_precision: float = 0.8, system: str | None = None
) -> ThresholdSuggestion:
    """Suggest the lowest threshold at which enough of what is kept is relevant.

    The threshold is tuned on these queries; expect somewhat lower precision on new ones.
    ``precision_interval`` says how certain the precision is.

    Args:
        results: what :func:`evaluate` returned.
        target_precision: share of the kept documents that should be relevant; above 0, at most 1.
        system: which reranker; may be left out where there is only one.

    Raises:
        ConfigurationError: an option is out of its range, or nothing was scored.
    """
    target_precision = check_fraction("target_precision", target_precision, above_0=True)
    reranker = results.choose_reranker(system)
    scored = reranker.list_scores()
    curve = _compute_threshold_curve(scored, results.qrels)
    reached = [point for point in curve if point.precision >= target_precision]
    point = reached[-1] if reached else None
    hits, kept = _count_kept(scored, results.qrels, point.threshold) if point else ([], [])
    interval = ratio_interval(hits, kept) if point else None
    problems = _find_threshold_problems(len(scored), sum(kept), interval, found=point is not None)
    return ThresholdSuggestion(
        system=reranker.name,
        target_precision=target_precision,
        threshold=point.threshold if point else None,
        precision=point.precision if point else None,
        precision_interval=interval,
        recall=point.recall if point else None,
        kept=point.kept if point else None,
        curve=curve,
        queries=len(scored),
        enough=not problems,
        note=" ".join([*problems, "Documents that nobody judged count as not relevant."]),
    )


def suggest_candidates(
    results: EvaluationResult,
    *,
    measure: str | None = None,
    tolerance: float = 0.005,
    system: str | None = None,
) -> CandidatesSuggestion:
    """Suggest how many candidates to rerank: the number beyond which more of them stop helping.

    Every number is computed from the scores that the evaluation has, without another call. So nothing is said
    about more candidates than the evaluation had, and for listwise rerankers it is a guess.

    Args:
        results: what :func:`evaluate` returned.
        measure: a name for ``ir_measures``; by default the evaluation's first one.
        tolerance: gains of the measure's mean up to this count as none.
        system: which reranker; may be left out where there is only one.

    Raises:
        ConfigurationError: an option is out of its range, or nothing was scored.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    tolerance = check_amount("tolerance", tolerance)
    reranker = results.choose_reranker(system)
    scored = reranker.list_scores()
    (parsed,) = parse_measures([results.measures[0] if measure is None else measure])
    qrels = {query: results.qrels[query] for query in scored}
    values = {
        depth: measure_order(parsed, qrels, {query: found[:depth] for query, found in scored.items()})
        for depth in _list_depths(max(map(len, scored.values())))
    }
    curve = _compute_candidates_curve(values)
    point = next(point for point in curve if point.remaining <= tolerance)
    problems = _find_candidates_problems(
        point, curve[-1].candidates, len(scored), tolerance, listwise=reranker.listwise
    )
    return CandidatesSuggestion(
        system=reranker.name,
        measure=str(parsed),
        tolerance=tolerance,
        candidates=point.candidates,
        mean=point.mean,
        curve=curve,
        queries=len(scored),
        enough=not problems,
        note=" ".join(problems),
    )


def _compute_threshold_curve(scored: _Scores, qrels: _Qrels) -> tuple[ThresholdPoint, ...]:
    pairs = sorted(
        (
            (score, qrels[query].get(document, 0) > 0)
            for query, found in scored.items()
            for document, score in found
        ),
        reverse=True,
    )
    relevant = sum(hit for _, hit in pairs)
    points, hits = [], 0
    for kept, ((score, hit), following) in enumerate(zip(pairs, [*pairs[1:], None], strict=True), start=1):
        hits += hit
        if following is None or following[0] < score:  # equal scores are kept together
            recall = hits / relevant if relevant else 0.0
            points.append(ThresholdPoint(score, hits / kept, recall, kept / len(scored)))
    return tuple(points)


def _count_kept(scored: _Scores, qrels: _Qrels, threshold: float) -> tuple[list[float], list[float]]:
    """Return how many relevant documents, and how many documents, a threshold keeps of each query."""
    hits, kept = [], []
    for query, found in scored.items():
        above = [document for document, score in found if score >= threshold]
        kept.append(float(len(above)))
        hits.append(float(sum(qrels[query].get(document, 0) > 0 for document in above)))
    return hits, kept


def _find_threshold_problems(
    queries: int, kept: float, interval: tuple[float, float] | None, *, found: bool
) -> list[str]:
    problems = []
    if not found:
        problems.append("No threshold reaches the target: lower it, or cut by rank (top_n) or adaptive_ratio.")
    elif kept < _FEW_DOCUMENTS:
        problems.append(f"Only {kept:.0f} documents of all queries are kept, fewer than {_FEW_DOCUMENTS}.")
    if interval is not None and interval[1] - interval[0] > _WIDE:
        problems.append(f"The precision is known only to lie from {interval[0]:.2f} to {interval[1]:.2f}.")
    return [*problems, *find_few_queries(queries)]


def _list_depths(deepest: int) -> list[int]:
    """Return 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100 and so on, and the deepest."""
    steps = (1, 1.5, 2, 3, 5, 7)
    rounds = [int(10**power * step) for power in range(len(str(deepest))) for step in steps]
    return sorted({depth for depth in rounds if depth < deepest} | {deepest})


def measure_order(measure: Any, qrels: _Qrels, scored: _Scores) -> dict[str, float]:
    """Return a measure's value for each query if its documents were ordered by these scores."""
    run = {}
    for query, found in scored.items():
        ranked = sorted(found, key=lambda pair: -pair[1])
        run[query] = dict(
            zip((document for document, _ in ranked), make_decreasing([score for _, score in ranked]), strict=True)
        )
    return measure_run([measure], qrels, run)[1][str(measure)]


def _compute_candidates_curve(values: Mapping[int, Mapping[str, float]]) -> tuple[CandidatesPoint, ...]:
    means = {depth: fmean(by_query.values()) for depth, by_query in values.items()}
    points = []
    for depth, by_query in values.items():
        best = max((deeper for deeper in values if deeper >= depth), key=lambda deeper: (means[deeper], -deeper))
        gains = [values[best][query] - value for query, value in by_query.items()]
        points.append(CandidatesPoint(depth, means[depth], means[best] - means[depth], mean_interval(gains)))
    return tuple(points)


def _find_candidates_problems(
    point: CandidatesPoint, deepest: int, queries: int, tolerance: float, *, listwise: bool
) -> list[str]:
    problems = []
    if point.candidates == deepest:
        problems.append(
            f"More candidates help up to {deepest}, the deepest measured: evaluate with more, if there are."
        )
    elif point.remaining_interval is not None and point.remaining_interval[1] > 2.0 * tolerance:
        problems.append(
            f"More candidates may still add up to {point.remaining_interval[1]:.3f}: more queries would tell."
        )
    if listwise:
        problems.append("The reranker scores documents by each other, so other depths would change its scores.")
    return [*problems, *find_few_queries(queries)]


def find_few_queries(queries: int) -> list[str]:
    """Return what to say where few queries carry a suggestion."""
    return [f"Only {queries} queries, fewer than {_FEW_QUERIES}."] if queries < _FEW_QUERIES else []
