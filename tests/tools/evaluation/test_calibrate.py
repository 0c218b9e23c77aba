"""Fitting a calibration: what labelled pairs say about a model's scores."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import ConfigurationError, Reranker
from rerank_core._call.scores import sigmoid
from rerank_core.policies.calibrated import Calibration, CalibrationMethod, CalibrationQuality
from rerank_core.testing import FakeScorer
from rerank_tools.evaluation import acalibrate, calibrate
from rerank_tools.evaluation.calibrate import fit_isotonic, fit_platt, measure_quality

METHODS: tuple[CalibrationMethod, ...] = ("platt", "isotonic")
samples = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=30)


def split(sample: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    """Return scores and labels apart."""
    return [score for score, _ in sample], [label for _, label in sample]


def overconfident(query: str, text: str) -> float:
    """Return the score that is written in the text."""
    return float(text.split()[-1])


def labelled(count: int = 400) -> list[tuple[str, str, bool]]:
    """Return pairs whose scores are overconfident: twice the log-odds of the probability, and shifted by 1."""
    dice = random.Random(0)
    pairs = []
    for number in range(count):
        log_odds = dice.gauss(0.0, 2.0)
        text = f"text {number} with {sigmoid(2.0 * log_odds + 1.0):.12f}"
        pairs.append((f"query {number % 7}", text, dice.random() < sigmoid(log_odds)))
    return pairs


@pytest.mark.parametrize("method", METHODS)
def test_it_undoes_overconfidence(method: CalibrationMethod) -> None:
    """The curve is near the one that the labels were drawn from, and held-out quality improves."""
    calibration = calibrate(FakeScorer(overconfident), labelled(), method)
    for truth in (0.1, 0.3, 0.5, 0.7, 0.9):
        score = sigmoid(2.0 * math.log(truth / (1.0 - truth)) + 1.0)
        assert abs(calibration(score) - truth) < (0.08 if method == "platt" else 0.2)
    assert calibration.before is not None
    assert calibration.after is not None
    assert calibration.after.brier < calibration.before.brier
    assert calibration.after.calibration_error < calibration.before.calibration_error / 2
    assert (calibration.model, calibration.pairs) == ("fake", 400)
    assert calibration.relevant == sum(label for _, _, label in labelled())


def test_held_out_pairs_are_of_other_queries() -> None:
    """Pairs of one query resemble each other; a fit that has seen some of them would flatter itself."""
    dice = random.Random(1)
    pairs = []
    for query in range(40):
        score, label = dice.random(), dice.random() < 0.5  # the score says nothing, but tells the query
        pairs += [(f"query {query}", f"{number} {score:.9f}", label) for number in range(10)]
    calibration = calibrate(FakeScorer(overconfident), pairs, "isotonic")
    assert calibration.after is not None
    assert calibration.after.brier > 0.2
    assert (calibration.queries, calibration.documents, calibration.pairs) == (40, 400, 400)


def test_without_other_queries_nothing_is_said_of_held_out_ones() -> None:
    """Nor where the pairs of the other queries cannot be fitted. A text that occurs twice is one document."""
    one = [("query", f"{n // 2} {n % 2}", n % 2 == 1) for n in range(40)]
    calibration = calibrate(FakeScorer(overconfident), [*one, one[0]])
    assert calibration.after is None
    assert (calibration.queries, calibration.documents, calibration.pairs) == (1, 40, 41)
    apart = [(f"query {label}", text, label) for _, text, label in one]
    assert calibrate(FakeScorer(overconfident), apart).after is None


def test_platt_is_what_scikit_learn_fits() -> None:
    """Its calibration has the same target smoothing, on log-odds."""
    library = pytest.importorskip("sklearn.calibration")
    sample = [(overconfident("", text), label) for _, text, label in labelled()]
    log_odds = [math.log(score / (1.0 - score)) for score, _ in sample]
    a, b = library._sigmoid_calibration(__import__("numpy").array(log_odds), [int(label) for _, label in sample])
    assert fit_platt(*split(sample)) == pytest.approx((-a, -b), abs=1e-4)


@given(samples)
def test_isotonic_is_what_scikit_learn_fits(sample: list[tuple[float, bool]]) -> None:
    """Pooling adjacent violators has one right answer."""
    library = pytest.importorskip("sklearn.isotonic")
    # Its result has single precision where scores are closer than that.
    sample = [(round(score, 3), label) for score, label in sample]
    expected = library.IsotonicRegression().fit_transform([score for score, _ in sample], [y for _, y in sample])
    knots = dict(fit_isotonic(*split(sample)))
    calibration = Calibration("fake", "isotonic", knots=fit_isotonic(*split(sample)))
    for (score, _), value in zip(sample, expected, strict=True):
        assert score not in knots or knots[score] == pytest.approx(value)
        assert calibration(score) == pytest.approx(0.999 * value + 0.001 * score, abs=1e-9)


@given(samples, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_both_maps_rise(sample: list[tuple[float, bool]], one: float, other: float) -> None:
    """Within [0, 1], whatever the labels are."""
    low, high = sorted((one, other))
    slope, intercept = fit_platt(*split(sample))
    maps = [Calibration("fake", "isotonic", knots=fit_isotonic(*split(sample)))]
    if slope > 0.0:
        maps.append(Calibration("fake", "platt", slope, intercept))
    for calibration in maps:
        assert 0.0 <= calibration(low) <= calibration(high) <= 1.0
    if high - low > 1e-6:
        assert maps[0](low) < maps[0](high)


@pytest.mark.parametrize("method", METHODS)
def test_separable_labels_have_a_finite_fit(method: CalibrationMethod) -> None:
    """Also with scores of exactly 0 and 1."""
    pairs = [("query", f"{n} {n % 2}", n % 2 == 1) for n in range(40)]
    calibration = calibrate(FakeScorer(overconfident), pairs, method)
    assert calibration(1.0) > 0.9
    assert calibration(0.0) < 0.1


def test_pairs_may_be_nested_and_async() -> None:
    """Both forms and both doors give the same."""
    nested = [((query, text), int(label)) for query, text, label in labelled(60)]
    reranker = Reranker(FakeScorer(overconfident, scale="logit"))
    assert calibrate(reranker, nested) == asyncio.run(acalibrate(reranker, labelled(60)))


def test_the_quality_of_scores() -> None:
    """Brier's score and the expected calibration error, by hand."""
    assert measure_quality([0.95, 0.95, 0.05], [True, False, False]) == CalibrationQuality(
        pytest.approx((0.05**2 + 0.95**2 + 0.05**2) / 3),  # type: ignore[arg-type]
        pytest.approx((0.9 + 0.05) / 3),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("q", f"{n} 0.5", True) for n in range(30)], "30 of 30 labelled pairs are relevant"),
        ([("q", "a 0.5", False)], "0 of 1 labelled pairs are relevant"),
        ([("q", "a 0.5", 0.5)], "labelled pair 0 is not of the form"),
        ([("q", "a 0.5")], "labelled pair 0 is not of the form"),
        ([7], "labelled pair 0 is not of the form"),
        ([("q", f"{n} {n % 2}", n % 2 == 0) for n in range(40)], "do not score higher"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(pairs: list[Any], message: str) -> None:
    """Too few, of one label, of another form, or with labels that run against the scores."""
    with pytest.raises(ConfigurationError, match=message):
        calibrate(FakeScorer(overconfident), pairs)


def test_an_unknown_method_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(ConfigurationError, match="method is 'best': give one of platt, isotonic"):
        calibrate(FakeScorer(), [], "best")  # type: ignore[arg-type]
