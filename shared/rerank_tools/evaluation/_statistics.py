"""How sure one can be of a mean and of a difference, by scipy; the same for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_core._support.extras import require

__all__ = ["TEST", "holm", "mean_interval", "paired_p_value", "percentile", "ratio_interval"]

_RESAMPLES = 2000
_PERMUTATIONS = 9999
_SEED = 0

TEST = (
    f"paired randomisation test, two-sided, {_PERMUTATIONS:,} permutations, Holm-corrected for several rerankers"
)
"""How :func:`paired_p_value` and :func:`holm` together are called in reports."""


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % percentile-bootstrap interval of a mean; None with fewer than two values."""
    return _interval((values,), _mean)


def ratio_interval(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, float] | None:
    """Return the same interval of the sum of ``parts`` over that of ``wholes``, which are paired."""
    return _interval((parts, wholes), _ratio)


def paired_p_value(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return how likely a mean difference this large is if the pairs' labels mean nothing.

    None with fewer than two pairs.
    """
    if len(one) < 2:
        return None
    stats = _stats()
    result = stats.permutation_test(
        (one, other),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=1000,
        rng=_SEED,
    )
    return float(result.pvalue)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return p-values corrected for there being several (Holm 1979).

    >>> holm({"a": 0.25, "b": 0.0625, "c": None})
    {'a': 0.25, 'b': 0.125, 'c': None}
    """
    tested = sorted((value, name) for name, value in p_values.items() if value is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for position, (value, name) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - position)))
        corrected[name] = largest
    return corrected


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile, None without values."""
    numpy = require("numpy", extra="eval", purpose="evaluate")
    return float(numpy.percentile(values, percent)) if values else None


def _interval(samples: tuple[Sequence[float], ...], statistic: Any) -> tuple[float, float] | None:
    if len(samples[0]) < 2:
        return None
    result = _stats().bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        paired=len(samples) > 1,
        vectorized=True,
        rng=_SEED,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _mean(values: Any, axis: int) -> Any:
    return values.mean(axis=axis)


def _ratio(parts: Any, wholes: Any, axis: int) -> Any:
    return parts.sum(axis=axis) / wholes.sum(axis=axis).clip(min=1.0)


def _stats() -> Any:
    return require("scipy.stats", extra="eval", purpose="evaluate")
