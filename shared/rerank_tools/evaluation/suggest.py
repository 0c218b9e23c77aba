"""Suggestions that follow from an evaluation: where to cut, how many candidates, and the first stage's weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from statistics import fmean

from rerank_core._call.scores import mix_scores
from rerank_core._support.checks import check_amount, check_fraction
from rerank_tools.evaluation.measures import mean_interval, measure_order, parse_measures, ratio_interval
from rerank_tools.evaluation.results import EvaluationResult, SystemResult

_Scores = Mapping[str, Sequence[tuple[str, float]]]
_ByQuery = Mapping[str, float]

_FEW_QUERIES = 30
_FEW_DOCUMENTS = 30
_WIDE = 0.2
_WEIGHTS = [step / 20 for step in range(21)]


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


@dataclass(frozen=True, slots=True)
class WeightPoint:
    """What a weight of the first stage's scores would give.

    Attributes:
        weight: for ``Reranker(retrieval_weight=…)``.
        mean: the measure's mean over queries.
        gain: how much that is above the mean without a weight.
        gain_interval: 95 % bootstrap interval of that, paired by query; None with fewer than two queries.
    """

    weight: float
    mean: float
    gain: float
    gain_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSuggestion(Suggestion):
    """The weight with the highest mean if it is sure to help, else 0.0, and the whole curve.

    Attributes:
        measure: what "helping" is measured by.
        weight: for ``Reranker(retrieval_weight=…)``.
        gain: what choosing the weight with the highest mean gives on queries that it was not chosen by: each query
            is measured with the weight that is best on all others.
        gain_interval: 95 % bootstrap interval of that; None with fewer than two queries.
        curve: by rising weight, from 0.0 to 1.0.
    """

    measure: str
    weight: float
    gain: float
    gain_interval: tuple[float, float] | None
    curve: tuple[WeightPoint, ...]


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
    judged = [
        [(score, results.qrels[query].get(document, 0) > 0) for document, score in found]
        for query, found in reranker.list_scores().items()
    ]
    curve = _compute_threshold_curve(judged)
    point = next((point for point in reversed(curve) if point.precision >= target_precision), None)
    interval = None
    problems = _find_few_queries(len(judged))
    if point is None:
        problems.append("No threshold reaches the target: lower it, or cut by rank (top_n) or adaptive_ratio.")
    else:
        kept = [[is_hit for score, is_hit in found if score >= point.threshold] for found in judged]
        interval = ratio_interval([float(sum(hits)) for hits in kept], [float(len(hits)) for hits in kept])
        documents = sum(map(len, kept))
        if documents < _FEW_DOCUMENTS:
            problems.append(f"Only {documents} documents of all queries are kept, fewer than {_FEW_DOCUMENTS}.")
    if interval is not None and interval[1] - interval[0] > _WIDE:
        problems.append(f"The precision is known only to lie from {interval[0]:.2f} to {interval[1]:.2f}.")
    return ThresholdSuggestion(
        system=reranker.name,
        target_precision=target_precision,
        threshold=point.threshold if point else None,
        precision=point.precision if point else None,
        precision_interval=interval,
        recall=point.recall if point else None,
        kept=point.kept if point else None,
        curve=curve,
        queries=len(judged),
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
    reranker, scored, measure, measure_order = _prepare(results, measure, system)
    deepest = max(map(len, scored.values()))
    values = {
        depth: measure_order({query: found[:depth] for query, found in scored.items()})
        for depth in _list_depths(deepest)
    }
    means = {depth: fmean(by_query.values()) for depth, by_query in values.items()}
    curve = []
    for depth, by_query in values.items():
        best = max((other for other in values if other >= depth), key=lambda other: (means[other], -other))
        curve.append(CandidatesPoint(depth, means[depth], *_compare(values[best], by_query)))
    point = next(point for point in curve if point.remaining <= tolerance)
    interval = point.remaining_interval
    problems = _find_few_queries(len(scored))
    if point.candidates == deepest:
        problems.append(
            f"More candidates help up to {deepest}, the deepest measured: evaluate with more, if there are."
        )
    elif interval is not None and interval[1] > 2.0 * tolerance:
        problems.append(f"More candidates may still add up to {interval[1]:.3f}: more queries would tell.")
    if reranker.listwise:
        problems.append("The reranker scores documents by each other, so other depths would change its scores.")
    return CandidatesSuggestion(
        system=reranker.name,
        measure=measure,
        tolerance=tolerance,
        candidates=point.candidates,
        mean=point.mean,
        curve=tuple(curve),
        queries=len(scored),
        enough=not problems,
        note=" ".join(problems),
    )


def suggest_retrieval_weight(
    results: EvaluationResult, *, measure: str | None = None, system: str | None = None
) -> WeightSuggestion:
    """Suggest how much the first stage's scores should count: ``Reranker(retrieval_weight=…)``.

    Arguments and errors are those of :func:`suggest_candidates`; here, too, nothing is sent.
    """
    reranker, scored, measure, measure_order = _prepare(results, measure, system)
    known = {
        query: dict(zip(one.candidates, one.scores, strict=True))
        for query, one in results.baseline.queries.items()
    }
    values: dict[float, _ByQuery] = {}
    for weight in _WEIGHTS:
        mixed = {}
        for query, found in scored.items():
            retrieval = [known[query][document] for document, _ in found]
            keys = mix_scores([score for _, score in found], retrieval, weight, ordinal=reranker.ordinal)
            mixed[query] = [(document, key) for (document, _), key in zip(found, keys, strict=True)]
        values[weight] = measure_order(mixed)
    plain = values[0.0]
    gains = [values[_find_best(values, without=query)][query] - plain[query] for query in plain]
    interval = mean_interval(gains)
    is_sure = interval is not None and interval[0] > 0.0
    problems = _find_few_queries(len(scored))
    if not is_sure:
        problems.append("No weight is sure to help on other queries.")
    return WeightSuggestion(
        system=reranker.name,
        measure=measure,
        weight=_find_best(values) if is_sure else 0.0,
        gain=fmean(gains),
        gain_interval=interval,
        curve=tuple(
            WeightPoint(weight, fmean(each.values()), *_compare(each, plain)) for weight, each in values.items()
        ),
        queries=len(scored),
        enough=not problems,
        note=" ".join(problems),
    )


def _prepare(
    results: EvaluationResult, measure: str | None, system: str | None
) -> tuple[SystemResult, _Scores, str, Callable[[_Scores], _ByQuery]]:
    """Return the reranker, its scores, the measure's name, and what measures orders by other scores."""
    reranker = results.choose_reranker(system)
    scored = reranker.list_scores()
    (parsed,) = parse_measures([results.measures[0] if measure is None else measure])
    qrels = {query: results.qrels[query] for query in scored}
    return reranker, scored, str(parsed), partial(measure_order, parsed, qrels)


def _compute_threshold_curve(judged: Sequence[Sequence[tuple[float, bool]]]) -> tuple[ThresholdPoint, ...]:
    pairs = sorted((pair for found in judged for pair in found), reverse=True)
    relevant = sum(is_hit for _, is_hit in pairs)
    points, hits, kept = [], 0, 0
    for score, group in groupby(pairs, key=itemgetter(0)):  # equal scores are kept together
        equal = [is_hit for _, is_hit in group]
        hits, kept = hits + sum(equal), kept + len(equal)
        recall = hits / relevant if relevant else 0.0
        points.append(ThresholdPoint(score, hits / kept, recall, kept / len(judged)))
    return tuple(points)


def _list_depths(deepest: int) -> list[int]:
    """Return 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100 and so on, and the deepest."""
    steps = (1, 1.5, 2, 3, 5, 7)
    rounds = [int(10**power * step) for power in range(len(str(deepest))) for step in steps]
    return sorted({depth for depth in rounds if depth < deepest} | {deepest})


def _find_best(values: Mapping[float, _ByQuery], without: str | None = None) -> float:
    """Return the weight with the highest sum, of equal ones the lowest; one query may be left out."""
    return max(values, key=lambda weight: sum(values[weight].values()) - values[weight].get(without or "", 0.0))


def _compare(values: _ByQuery, base: _ByQuery) -> tuple[float, tuple[float, float] | None]:
    """Return the mean gain over other values of the same queries, and its interval."""
    gains = [value - base[query] for query, value in values.items()]
    return fmean(gains), mean_interval(gains)


def _find_few_queries(queries: int) -> list[str]:
    return [f"Only {queries} queries, fewer than {_FEW_QUERIES}."] if queries < _FEW_QUERIES else []
