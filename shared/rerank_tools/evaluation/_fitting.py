"""Fitting probabilities to labelled scores, and measuring how good they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rerank_core._call.scores import sigmoid

__all__ = ["Quality", "Sample", "fit_isotonic", "fit_platt", "held_out", "logit", "quality_of"]

Sample = Sequence[tuple[float, bool]]
"""Pairs of a score in [0, 1] and whether the text is relevant."""

_CLOSEST = 1e-15  # how close to 0 or 1 a score is taken to be at most: log-odds of about 34.5
_BINS = 10
_FOLDS = 5
_STEPS = 100
_HALVINGS = 30


@dataclass(frozen=True, slots=True)
class Quality:
    """How well scores work as probabilities; lower is better.

    Attributes:
        brier: mean squared difference of score and label.
        calibration_error: difference of mean score and share of relevant texts, averaged over ten equal ranges
            of the score, weighted by how many texts are in each.
    """

    brier: float
    calibration_error: float


def logit(score: float) -> float:
    """Return the log-odds of a score in [0, 1]; those of 0 and 1 are about ∓34.5."""
    inside = min(max(score, _CLOSEST), 1.0 - _CLOSEST)
    return math.log(inside) - math.log1p(-inside)


def quality_of(sample: Sample) -> Quality:
    """Return the quality of scores as probabilities."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, label in sample:
        bins.setdefault(min(int(score * _BINS), _BINS - 1), []).append((score, label))
    gaps = [abs(sum(score for score, _ in part) - sum(label for _, label in part)) for part in bins.values()]
    brier = sum((score - label) ** 2 for score, label in sample)
    return Quality(brier / len(sample), sum(gaps) / len(sample))


def held_out(sample: Sample, fit: Callable[[Sample], Callable[[float], float]]) -> list[tuple[float, bool]]:
    """Return every label with the probability that a fit to the other four fifths gives its score."""
    ordered = sorted(sample, key=lambda pair: pair[1])  # stable; so that each fold has its share of both labels
    mapped: list[tuple[float, bool]] = []
    for fold in range(_FOLDS):
        rest = [pair for position, pair in enumerate(ordered) if position % _FOLDS != fold]
        fitted = fit(rest)
        mapped += [(fitted(score), label) for score, label in ordered[fold::_FOLDS]]
    return mapped


def fit_isotonic(sample: Sample) -> tuple[tuple[float, float], ...]:
    """Return the knots (score, probability) of the rising step function closest to the labels.

    Pools adjacent violators; a knot at each end of a step, so that linear interpolation keeps the steps.
    """
    steps: list[tuple[float, float, float, int]] = []  # first score, last score, sum of labels, count
    for score, group in groupby(sorted(sample, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        labels = [label for _, label in group]
        steps.append((score, score, float(sum(labels)), len(labels)))
        while len(steps) > 1 and steps[-2][2] * steps[-1][3] >= steps[-1][2] * steps[-2][3]:
            _, last, total, count = steps.pop()
            first, _, more, others = steps.pop()
            steps.append((first, last, more + total, others + count))
    knots = {score: total / count for first, last, total, count in steps for score in (first, last)}
    return tuple(knots.items())


def fit_platt(sample: Sample) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve over log-odds that makes the labels most likely.

    Newton's method with halved steps, on Platt's targets: (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) for 1 and 0, which
    keep the curve finite where the labels are separable.
    """
    relevant = sum(label for _, label in sample)
    high, low = (relevant + 1) / (relevant + 2), 1 / (len(sample) - relevant + 2)
    points = [(logit(score), high if label else low) for score, label in sample]
    slope, intercept = 0.0, math.log((relevant + 1) / (len(sample) - relevant + 1))
    loss = _loss(points, slope, intercept)
    for _ in range(_STEPS):
        step = _newton_step(points, slope, intercept)
        scale = 1.0
        for _ in range(_HALVINGS):
            moved = slope + scale * step[0], intercept + scale * step[1]
            if (lower := _loss(points, *moved)) < loss:
                break
            scale /= 2
        else:
            break
        done = loss - lower < 1e-12 * len(points)
        (slope, intercept), loss = moved, lower
        if done:
            break
    return slope, intercept


def _loss(points: Sequence[tuple[float, float]], slope: float, intercept: float) -> float:
    """Return the negative log-likelihood, without overflow."""
    total = 0.0
    for x, target in points:
        z = slope * x + intercept
        total += max(z, 0.0) - target * z + math.log1p(math.exp(-abs(z)))
    return total


def _newton_step(points: Sequence[tuple[float, float]], slope: float, intercept: float) -> tuple[float, float]:
    g_slope = g_intercept = h_cross = 0.0
    h_slope = h_intercept = 1e-12  # so that it can be inverted where all scores are equal
    for x, target in points:
        p = sigmoid(slope * x + intercept)
        weight = p * (1.0 - p)
        g_slope += (p - target) * x
        g_intercept += p - target
        h_slope += weight * x * x
        h_cross += weight * x
        h_intercept += weight
    determinant = h_slope * h_intercept - h_cross * h_cross
    if determinant <= 0.0:
        return -g_slope / h_slope, -g_intercept / h_intercept
    return (
        -(h_intercept * g_slope - h_cross * g_intercept) / determinant,
        -(h_slope * g_intercept - h_cross * g_slope) / determinant,
    )
