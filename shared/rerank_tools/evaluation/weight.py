"""How much a first stage's scores should count beside the reranker's, by an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from rerank_core._call.scores import mix_scores
from rerank_tools.evaluation.measures import mean_interval, parse_measures
from rerank_tools.evaluation.results import EvaluationResult
from rerank_tools.evaluation.suggest import Suggestion, find_few_queries, measure_order

_STEPS = 20


@dataclass(frozen=True, slots=True)
class WeightPoint:
    """What a weight would give.

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


def suggest_retrieval_weight(
    results: EvaluationResult, *, measure: str | None = None, system: str | None = None
) -> WeightSuggestion:
    """Suggest how much the first stage's scores should count: ``Reranker(retrieval_weight=…)``.

    Every number is computed from the scores that the evaluation has, without another call.

    Args:
        results: what :func:`evaluate` returned.
        measure: a name for ``ir_measures``; by default the evaluation's first one.
        system: which reranker; may be left out where there is only one.

    Raises:
        ConfigurationError: an option is out of its range, or nothing was scored.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    reranker = results.choose_reranker(system)
    scored = reranker.list_scores()
    (parsed,) = parse_measures([results.measures[0] if measure is None else measure])
    retrieval = {
        query: dict(zip(answer.candidates, answer.scores, strict=True))
        for query, answer in results.baseline.queries.items()
    }
    qrels = {query: results.qrels[query] for query in scored}
    values: dict[float, Mapping[str, float]] = {}
    for weight in (step / _STEPS for step in range(_STEPS + 1)):
        mixed = {}
        for query, found in scored.items():
            first = [retrieval[query][document] for document, _ in found]
            scores = mix_scores([score for _, score in found], first, weight, ordinal=reranker.ordinal)
            mixed[query] = [(document, key) for (document, _), key in zip(found, scores, strict=True)]
        values[weight] = measure_order(parsed, qrels, mixed)
    plain = values[0.0]
    gains = [values[_find_best(values, without=query)][query] - plain[query] for query in plain]
    interval = mean_interval(gains)
    is_sure = interval is not None and interval[0] > 0.0
    problems = find_few_queries(len(scored))
    if not is_sure:
        problems.insert(0, "No weight is sure to help on other queries.")
    return WeightSuggestion(
        system=reranker.name,
        measure=str(parsed),
        weight=_find_best(values) if is_sure else 0.0,
        gain=fmean(gains),
        gain_interval=interval,
        curve=tuple(_make_point(weight, by_query, plain) for weight, by_query in values.items()),
        queries=len(scored),
        enough=not problems,
        note=" ".join(problems),
    )


def _find_best(values: Mapping[float, Mapping[str, float]], without: str | None = None) -> float:
    """Return the weight with the highest sum, of equal ones the lowest; one query may be left out."""
    return max(values, key=lambda weight: sum(values[weight].values()) - values[weight].get(without or "", 0.0))


def _make_point(weight: float, values: Mapping[str, float], plain: Mapping[str, float]) -> WeightPoint:
    gains = [value - plain[query] for query, value in values.items()]
    return WeightPoint(weight, fmean(values.values()), fmean(gains), mean_interval(gains))
