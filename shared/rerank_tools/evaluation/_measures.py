"""Measures of rankings: names to ``ir_measures``, and its values back; no arithmetic of our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rerank_tools.evaluation._runs import Run

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError

__all__ = ["default_measures", "measure_run", "parse_measures"]


def default_measures(k: int) -> list[str]:
    """Return nDCG, recall and precision of the best ``k``, reciprocal rank and average precision."""
    return [f"nDCG@{k}", "RR", "AP", f"R@{k}", f"P@{k}"]


def parse_measures(names: Iterable[object]) -> list[Any]:
    """Return the measures of these names, such as ``"nDCG@10"``; measures of ``ir_measures`` pass through.

    Raises:
        ConfigurationError: there is none, a name twice, or one that ``ir_measures`` cannot compute.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    ir_measures = require("ir_measures", extra="eval", purpose="evaluate")
    if isinstance(names, str):
        raise ConfigurationError(f"measures is the single string {names!r}: give a list of names")
    measures = [_parsed(name, ir_measures) for name in names]
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


def _parsed(name: object, ir_measures: Any) -> Any:
    if isinstance(name, str):
        try:
            name = ir_measures.parse_measure(name)
        except Exception as exc:  # NameError, ValueError and whatever its parser raises
            raise _unknown(name) from exc
    if not isinstance(name, ir_measures.measures.Measure) or not ir_measures.DefaultPipeline.supports(name):
        raise _unknown(name)
    return name


def _unknown(name: object) -> ConfigurationError:
    return ConfigurationError(
        f"{name!r} is no measure that ir_measures computes here: give 'nDCG@10', 'RR', 'AP@100' …"
    )
