"""Answers of scorers: checked, and converted to relevance scores in [0, 1]."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import InvalidResponseError
from rerank_core._call.scores import sigmoid, validate_scores

HUGE = pytest.param(10**400, id="10**400")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_sigmoid_stays_within_0_and_1(logit: float) -> None:
    """No logit overflows, however large, and the curve is symmetric."""
    assert 0.0 <= sigmoid(logit) <= 1.0
    assert math.isclose(sigmoid(logit) + sigmoid(-logit), 1.0)


@given(st.floats(-700, 700), st.floats(-700, 700))
def test_the_sigmoid_keeps_the_order(one: float, other: float) -> None:
    """A larger logit never gets a smaller score."""
    low, high = sorted((one, other))
    assert sigmoid(low) <= sigmoid(high)


def test_the_sigmoid_of_known_logits() -> None:
    """Values from a table."""
    assert sigmoid(0.0) == 0.5
    assert sigmoid(2.0) == pytest.approx(0.880797077977882)
    assert sigmoid(-2.0) == pytest.approx(0.119202922022118)


def check(scores: Any, *, expected: int | None = None, logit: bool = False) -> list[float]:
    """Check an answer of as many scores as there are, or as expected."""
    return validate_scores(
        scores,
        expected=len(scores) if expected is None else expected,
        scale="logit" if logit else "probability",
    )


@given(st.lists(st.floats(0, 1)))
def test_probabilities_pass_unchanged(scores: list[float]) -> None:
    """The order and the values are the scorer's."""
    assert check(scores) == scores


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_logits_get_one_sigmoid(scores: list[float]) -> None:
    """Each logit becomes its sigmoid, once."""
    assert check(scores, logit=True) == [sigmoid(score) for score in scores]


@pytest.mark.parametrize(
    "scores",
    [
        np.array([0.25, 0.5], dtype=np.float32),
        np.array([0.25, 0.5], dtype=np.float16),
        (np.float64(0.25), 0.5),
        [Fraction(1, 4), Fraction(1, 2)],
    ],
)
def test_numbers_of_other_types_become_python_floats(scores: Any) -> None:
    """numpy's numbers, which no JSON takes, do not leave the core."""
    checked = check(scores)
    assert checked == [0.25, 0.5]
    assert all(type(score) is float for score in checked)


def test_integers_are_numbers() -> None:
    """A scorer may answer 0 and 1."""
    assert [repr(score) for score in check([0, 1])] == ["0.0", "1.0"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_scores_is_refused(count: int) -> None:
    """Too few and too many alike; the error names both numbers."""
    with pytest.raises(InvalidResponseError, match=f"returned {count} scores for 2 texts"):
        check([0.5] * count, expected=2)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, np.float32("nan"), HUGE])
@pytest.mark.parametrize("logit", [False, True])
def test_a_score_that_is_not_finite_is_refused(score: Any, logit: bool) -> None:
    """NaN and infinity would leave the order undefined; the error names the value and the text."""
    with pytest.raises(InvalidResponseError, match="returned (nan|-?inf) for text 1"):
        check([0.5, score], logit=logit)


@pytest.mark.parametrize("score", ["0.5", None, True, np.True_, [0.5], Decimal("0.5"), 1j, b"1"])
def test_a_score_that_is_no_number_is_refused(score: Any) -> None:
    """The error names the type and the text, not the value."""
    with pytest.raises(InvalidResponseError, match=f"a {type(score).__name__} for text 1: a finite number"):
        check([0.5, score])


@pytest.mark.parametrize("score", [1.01, -0.01, 7.5, -11.0])
def test_a_probability_out_of_range_is_refused(score: float) -> None:
    """Logits passed off as probabilities are noticed, and the error says what to do."""
    with pytest.raises(InvalidResponseError, match=r"for text 0, outside \[0, 1\].*scale must be 'logit'"):
        check([score])


def test_rounding_errors_are_clipped() -> None:
    """A softmax in single precision may leave [0, 1] by a few ulp."""
    assert check([1.0 + 1e-7, -1e-7, 0.5]) == [1.0, 0.0, 0.5]


def test_cosines_become_scores_in_0_to_1() -> None:
    """By (1 + s) / 2, rounding errors clipped; what lies outside is refused."""
    assert validate_scores([-1.0, 0, 1 + 1e-7], expected=3, scale="cosine") == [0.0, 0.5, 1.0]
    with pytest.raises(InvalidResponseError, match=r"outside \[-1, 1\]"):
        validate_scores([1.1], expected=1, scale="cosine")
