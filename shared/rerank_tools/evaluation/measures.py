"""Measures of rankings, by ``ir_measures``, and how certain their means are, by scipy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_tools.evaluation.dataset import Run

_RESAMPLES = 2000
_PERMUTATIONS = 9999
_SEED = 0

TEST = (
    f"paired randomisation test, two-sided, {_PERMUTATIONS:,} permutations, Holm-corrected for several rerankers"
)
"""What reports call :func:`paired_p_value` with :func:`correct_p_values`."""


def parse_measures(names: Iterable[object]) -> list[Any]:
    """Return the measures of these names, such as ``"nDCG@10"``; measures of ``ir_measures`` pass through."""
    if isinstance(names, str):
        raise ConfigurationError(f"measures is the single string {names!r}: give a list of names")
    measures = [_parse_measure(name) for name in names]
    if not measures or len(set(map(str, measures))) < len(measures):
        raise ConfigurationError("measures is empty, or names one twice: give names such as 'nDCG@10', each once")
    return measures


def measure_run(
    measures: Iterable[Any], qrels: Mapping[str, Mapping[str, int]], run: Run
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return each measure's mean over the judged queries, and its value for each query.

    A judged query that is not in the run counts as one for which nothing was found.
    """
    ir_measures = require("ir_measures", extra="eval", purpose="evaluate")
    measures = list(measures)
    judged = [
        ir_measures.Qrel(query, key, grade) for query, grades in qrels.items() for key, grade in grades.items()
    ]
    ranked = [
        ir_measures.ScoredDoc(query, key, score) for query, scores in run.items() for key, score in scores.items()
    ]
    result = ir_measures.calc(measures, judged, ranked)
    per_query: dict[str, dict[str, float]] = {str(measure): {} for measure in measures}
    for metric in result.per_query:
        per_query[str(metric.measure)][metric.query_id] = float(metric.value)
    means = {str(measure): float(result.aggregated[measure]) for measure in measures}
    return means, {name: {query: values[query] for query in qrels} for name, values in per_query.items()}


def measure_order(
    measure: Any, qrels: Mapping[str, Mapping[str, int]], scored: Mapping[str, Sequence[tuple[str, float]]]
) -> dict[str, float]:
    """Return a measure's value for each query if its documents were ordered by these scores."""
    run = {}
    for query, found in scored.items():
        ranked = sorted(found, key=lambda pair: -pair[1])
        falling = make_decreasing([score for _, score in ranked])
        run[query] = dict(zip((document for document, _ in ranked), falling, strict=True))
    return measure_run([measure], qrels, run)[1][str(measure)]


def make_decreasing(scores: Sequence[float | None]) -> list[float]:
    """Return scores that fall strictly in single precision, in which evaluation tools compare.

    Those tools order equal scores by document id. A score that is not below the one before becomes the next
    number below that. Where nothing was scored, scores count down from 0.

    >>> make_decreasing([0.5, 0.25, None])
    [0.5, 0.25, 0.0]
    """
    import numpy as np

    falling: list[float] = np.array([score or 0.0 for score in scores], dtype=np.float32).tolist()
    for position in range(1, len(falling)):
        before = np.float32(falling[position - 1])
        if falling[position] >= before:
            falling[position] = float(np.nextafter(before, np.float32(-np.inf)))
    return falling


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % percentile-bootstrap interval of a mean; None with fewer than two values."""
    return _bootstrap((values,), lambda sample, axis: sample.mean(axis=axis))


def ratio_interval(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, float] | None:
    """Return the same interval of the sum of ``parts`` divided by that of ``wholes``, which are paired."""
    return _bootstrap(
        (parts, wholes), lambda some, all_, axis: some.sum(axis=axis) / all_.sum(axis=axis).clip(min=1.0)
    )


def paired_p_value(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return how likely a mean difference this large is by chance; None with fewer than two pairs.

    By chance: if it were random which value of a pair belongs to which side.
    """
    if len(one) < 2:
        return None
    result = require("scipy.stats", extra="eval", purpose="evaluate").permutation_test(
        (one, other),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=1000,
        rng=_SEED,
    )
    return float(result.pvalue)


def correct_p_values(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return p-values corrected for there being several (Holm 1979).

    >>> correct_p_values({"a": 0.25, "b": 0.0625, "c": None})
    {'a': 0.25, 'b': 0.125, 'c': None}
    """
    tested = sorted((value, name) for name, value in p_values.items() if value is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for position, (value, name) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - position)))
        corrected[name] = largest
    return corrected


def _bootstrap(samples: tuple[Sequence[float], ...], statistic: Any) -> tuple[float, float] | None:
    if len(samples[0]) < 2:
        return None
    result = require("scipy.stats", extra="eval", purpose="evaluate").bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        paired=len(samples) > 1,
        vectorized=True,
        rng=_SEED,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _parse_measure(name: object) -> Any:
    ir_measures = require("ir_measures", extra="eval", purpose="evaluate")
    measure: Any = name
    if isinstance(name, str):
        try:
            measure = ir_measures.parse_measure(name)
        except Exception:  # NameError, ValueError and whatever its parser raises
            measure = None
    if not isinstance(measure, ir_measures.measures.Measure) or not ir_measures.DefaultPipeline.supports(measure):
        raise ConfigurationError(
            f"{name!r} is no measure that ir_measures computes here: give 'nDCG@10', 'RR', 'AP@100' …"
        )
    return measure
