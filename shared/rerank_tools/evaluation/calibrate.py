"""Fit a calibration (a monotone map from scores to probabilities) to labelled pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from numbers import Real
from typing import Any, get_args

from rerank_core._support.checks import check_choice
from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.policies.calibrated import Calibration, CalibrationMethod, CalibrationQuality, log_odds
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.types import Ranking

_Groups = dict[str, list[tuple[str, bool]]]  # texts and labels, by query

_MIN_OF_EACH_LABEL = 10
_BINS = 10
_FOLDS = 5


def calibrate(
    reranker: Reranker | Scorer | str, labelled_pairs: Iterable[Any], method: CalibrationMethod = "platt"
) -> Calibration:
    """Fit a calibration to pairs whose relevance is known.

    Platt's map is fitted to log-odds by maximum likelihood, with his smoothed targets (Platt 1999; Lin, Lin and
    Weng 2007). The isotonic map is fitted by pooling adjacent violators.

    Args:
        reranker: a reranker, a scorer or a scorer's name; each query's texts are scored in one call.
        labelled_pairs: ``((query, text), label)`` or ``(query, text, label)``; the label is true (1) for
            relevant, false (0) for not. The pairs should resemble what the reranker will see, also in the share
            of relevant ones. At least 10 of each label.
        method: see :data:`rerank_core.policies.calibrated.CalibrationMethod`.

    Raises:
        ConfigurationError: there are too few pairs of a label, a pair has another form, or relevant texts do not
            score higher than others.
        MissingExtraError: scipy is not installed (extra ``eval``).
        ScorerError: the scorer failed.

    >>> from rerank_core.testing import FakeScorer
    >>> texts = [f"a leak {number}" for number in range(20)] + [f"tea {number}" for number in range(20)]
    >>> pairs = [("leak", text, "leak" in text) for text in texts]
    >>> calibration = calibrate(FakeScorer(), pairs)
    >>> calibration(0.95) > 0.9, calibration(0.05) < 0.1
    (True, True)
    """
    plain, groups = _prepare(reranker, labelled_pairs, method)
    return _fit(plain.scorer.name, groups, plain.rerank_many(list(groups), _texts(groups)), method)


async def acalibrate(
    reranker: Reranker | Scorer | str, labelled_pairs: Iterable[Any], method: CalibrationMethod = "platt"
) -> Calibration:
    """Fit a calibration, as :func:`calibrate` does."""
    plain, groups = _prepare(reranker, labelled_pairs, method)
    return _fit(plain.scorer.name, groups, await plain.arerank_many(list(groups), _texts(groups)), method)


def fit_isotonic(scores: Sequence[float], labels: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """Return the knots (score, probability) of the rising step function closest to the labels.

    Each step has a knot at both ends, so that linear interpolation keeps the steps.
    """
    optimize = require("scipy.optimize", extra="eval", purpose="calibrate")
    import numpy as np  # scipy brings it

    distinct, slots, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(slots, weights=labels) / counts
    fitted = optimize.isotonic_regression(means, weights=counts)
    starts, ends = fitted.blocks[:-1], fitted.blocks[1:] - 1
    ends_of_steps = np.unique(np.concatenate([starts, ends]))
    probabilities = np.clip(fitted.x, 0.0, 1.0)
    return tuple((float(distinct[slot]), float(probabilities[slot])) for slot in ends_of_steps)


def fit_platt(scores: Sequence[float], labels: Sequence[bool]) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve over log-odds under which the labels are most likely.

    The labels 1 and 0 are replaced by (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), as Platt proposed: so the curve is
    finite even if the labels are separable.
    """
    optimize = require("scipy.optimize", extra="eval", purpose="calibrate")
    special = require("scipy.special", extra="eval", purpose="calibrate")
    import numpy as np  # scipy brings it

    odds = np.array([log_odds(score) for score in scores])
    relevant = int(np.sum(labels))
    others = len(odds) - relevant
    targets = np.where(labels, (relevant + 1) / (relevant + 2), 1 / (others + 2))

    def loss(parameters: Any) -> tuple[Any, Any]:
        logits = parameters[0] * odds + parameters[1]
        errors = (special.expit(logits) - targets) / len(odds)
        return np.mean(np.logaddexp(0.0, logits) - targets * logits), np.array([errors @ odds, errors.sum()])

    start = np.array([0.0, np.log((relevant + 1) / (others + 1))])
    slope, intercept = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return float(slope), float(intercept)


def measure_quality(scores: Sequence[float], labels: Sequence[bool]) -> CalibrationQuality:
    """Return how well scores work as probabilities."""
    import numpy as np

    differences = np.subtract(scores, labels)
    bins = np.minimum((np.asarray(scores) * _BINS).astype(int), _BINS - 1)
    gaps = np.abs(np.bincount(bins, weights=differences))
    return CalibrationQuality(float(np.mean(differences**2)), float(gaps.sum() / len(differences)))


def _prepare(reranker: object, labelled_pairs: Iterable[Any], method: object) -> tuple[Reranker, _Groups]:
    check_choice("method", method, get_args(CalibrationMethod))
    timeout = reranker.timeout if isinstance(reranker, Reranker) else None
    scorer: Any = reranker.scorer if isinstance(reranker, Reranker) else reranker
    groups: _Groups = {}
    for position, pair in enumerate(labelled_pairs):
        query, text, label = _unpack(position, pair)
        groups.setdefault(query, []).append((text, label))
    labels = [label for group in groups.values() for _, label in group]
    if min(sum(labels), len(labels) - sum(labels)) < _MIN_OF_EACH_LABEL:
        raise ConfigurationError(
            f"{sum(labels)} of {len(labels)} labelled pairs are relevant: "
            f"give at least {_MIN_OF_EACH_LABEL} relevant ones and {_MIN_OF_EACH_LABEL} others"
        )
    return Reranker(scorer, timeout=timeout), groups


def _texts(groups: _Groups) -> list[list[str]]:
    return [[text for text, _ in group] for group in groups.values()]


def _unpack(position: int, pair: Any) -> tuple[str, str, bool]:
    try:
        query, text, label = pair if len(pair) == 3 else (*pair[0], pair[1])
    except (TypeError, ValueError, IndexError, KeyError):
        query = text = label = None
    is_label = isinstance(label, Real) and float(label) in (0.0, 1.0)
    if not (isinstance(query, str) and isinstance(text, str) and is_label):
        raise ConfigurationError(
            f"labelled pair {position} is not of the form (query, text, label): "
            "give two texts and a label that is True or False, 1 or 0"
        )
    return query, text, bool(label)


def _fit(model: str, groups: _Groups, rankings: Sequence[Ranking[str]], method: CalibrationMethod) -> Calibration:
    def fit(scores: Sequence[float], labels: Sequence[bool]) -> Calibration:
        if method == "isotonic":
            return Calibration(model, method, knots=fit_isotonic(scores, labels))
        slope, intercept = fit_platt(scores, labels)
        if not slope > 0.0:
            raise ConfigurationError(
                f"relevant texts do not score higher than others with {model}: check the labels, or the model"
            )
        return Calibration(model, method, slope, intercept)

    samples = [
        [(score or 0.0, label) for score, (_, label) in zip(ranking.scores, group, strict=True)]
        for ranking, group in zip(rankings, groups.values(), strict=True)
    ]
    scores, labels = zip(*chain.from_iterable(samples), strict=True)
    return replace(
        fit(scores, labels),
        pairs=len(labels),
        relevant=sum(labels),
        queries=len(groups),
        documents=len({text for group in groups.values() for text, _ in group}),
        before=measure_quality(scores, labels),
        after=_cross_validate(samples, fit),
    )


def _cross_validate(
    samples: list[list[tuple[float, bool]]], fit: Callable[[Sequence[float], Sequence[bool]], Calibration]
) -> CalibrationQuality | None:
    """Return the quality of each query's scores when they are mapped by a fit to the queries of other folds.

    None where there is one query, or where the others' pairs cannot be fitted.
    """
    samples = sorted(samples, key=lambda sample: sum(label for _, label in sample))  # each fold gets both labels
    folds = min(_FOLDS, len(samples))
    mapped: list[tuple[float, bool]] = []
    for fold in range(folds):
        others = [pair for number, sample in enumerate(samples) if number % folds != fold for pair in sample]
        if len({label for _, label in others}) < 2:
            return None
        try:
            fitted = fit(*zip(*others, strict=True))
        except ConfigurationError:
            return None
        mapped += [(fitted(score), label) for sample in samples[fold::folds] for score, label in sample]
    return measure_quality(*zip(*mapped, strict=True))
