"""From a model's scale to relevance scores in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from numbers import Real

from rerank_core.errors import InvalidResponseError
from rerank_core.scorer import Scale

__all__ = ["sigmoid", "validate_scores"]

_ROUNDING = 1e-6
"""How far a score may leave its range: single-precision sums of a softmax do, by a few ulp."""


def sigmoid(logit: float) -> float:
    """Return the logistic function of a logit, in [0, 1]; no logit overflows."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    exp = math.exp(logit)
    return exp / (1.0 + exp)


def validate_scores(scores: Sequence[object], *, expected: int, scale: Scale) -> list[float]:
    """Return a scorer's answer as Python floats in [0, 1], in the same order.

    Logits become probabilities by the sigmoid, cosines by (1 + s) / 2.

    Raises:
        InvalidResponseError: too few or too many scores, one that is no number, NaN or infinite, or one that
            leaves the scale's range, [0, 1] for a probability and [-1, 1] for a cosine, by more than 1e-6.
    """
    if not isinstance(scores, Sized):
        raise InvalidResponseError(f"returned a {type(scores).__name__}: a list of scores was expected")
    if len(scores) != expected:
        raise InvalidResponseError(
            f"returned {len(scores)} scores for {expected} texts: nothing can be ranked from that"
        )
    numbers = [_finite(score, index) for index, score in enumerate(scores)]
    if scale == "logit":
        return [sigmoid(number) for number in numbers]
    lowest = -1.0 if scale == "cosine" else 0.0
    for index, number in enumerate(numbers):
        if not lowest <= number <= 1.0:
            if not lowest - _ROUNDING <= number <= 1.0 + _ROUNDING:
                raise InvalidResponseError(
                    f"returned {number!r} for text {index}, outside [{lowest:g}, 1]: "
                    "if it returns logits, its scale must be 'logit' (option score_scale=)"
                )
            numbers[index] = min(1.0, max(lowest, number))
    return [(1.0 + number) / 2.0 for number in numbers] if scale == "cosine" else numbers


def _finite(score: object, index: int) -> float:
    if type(score) is not float and (isinstance(score, bool) or not isinstance(score, Real)):
        raise InvalidResponseError(f"returned a {type(score).__name__} for text {index}: a number was expected")
    try:
        number = float(score)
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not math.isfinite(number):
        raise InvalidResponseError(f"returned {number!r} for text {index}: a finite number was expected")
    return number
