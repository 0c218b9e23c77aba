"""From answers to measures: means, intervals, and how each system compares with the first."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from rerank_tools.evaluation._measures import measure_run
from rerank_tools.evaluation._statistics import holm, mean_interval, paired_p_value, percentile
from rerank_tools.evaluation.results import QueryResult, SystemResult

from rerank_core.usage import Usage

__all__ = ["measured"]

_PerQuery = Mapping[str, Mapping[str, float]]


def measured(
    answers: Mapping[str, Mapping[str, QueryResult]],
    measures: Sequence[Any],
    qrels: Mapping[str, Mapping[str, int]],
    listwise: Container[str] = (),
) -> tuple[SystemResult, ...]:
    """Return one result a system, in order; the first is what the others are compared with.

    Args:
        answers: system, then query.
        measures: of ``ir_measures``.
        qrels: grades of the queries that were answered.
        listwise: names of the systems whose scores depend on the other candidates.
    """
    values = {}
    for name, queries in answers.items():
        values[name] = measure_run(measures, qrels, {query: answer.run for query, answer in queries.items()})
    first, *others = answers
    p_values: dict[str, dict[str, float | None]] = {name: {} for name in answers}
    for measure in map(str, measures):
        tested = {name: _p_value(values[name][1][measure], values[first][1][measure]) for name in others}
        for name, p_value in holm(tested).items():
            p_values[name][measure] = p_value
    return tuple(
        _system(name, answers[name], *values[name], p_values[name], listwise=name in listwise) for name in answers
    )


def _p_value(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    return paired_p_value(list(one.values()), [other[query] for query in one])


def _system(
    name: str,
    queries: Mapping[str, QueryResult],
    means: Mapping[str, float],
    per_query: _PerQuery,
    p_values: Mapping[str, float | None],
    *,
    listwise: bool,
) -> SystemResult:
    seconds = [answer.seconds for answer in queries.values() if answer.seconds is not None]
    return SystemResult(
        name=name,
        measures=means,
        per_query=per_query,
        intervals={measure: mean_interval(list(values.values())) for measure, values in per_query.items()},
        p_values=p_values,
        latency_p50=percentile(seconds, 50.0),
        latency_p95=percentile(seconds, 95.0),
        usage=reduce(add, (answer.usage for answer in queries.values()), Usage()),
        queries=queries,
        listwise=listwise,
    )
