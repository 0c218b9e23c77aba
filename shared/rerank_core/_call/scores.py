"""From a model's scale to relevance scores in [0, 1], and their mixture with a first stage's scores."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence, Sized
from math import isfinite
from numbers import Real
from typing import TypeVar

from rerank_core._support.checks import check_finite, to_float
from rerank_core.errors import ConfigurationError, InvalidResponseError
from rerank_core.scorer import Scale

K = TypeVar("K", bound=Hashable)

_ROUNDING = 1e-6
"""How far a score may leave its range: single-precision sums of a softmax do, by a few ulp."""


def sigmoid(logit: float) -> float:
    """Return the logistic function of a logit, in [0, 1]; no logit overflows."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    exp = math.exp(logit)
    return exp / (1.0 + exp)


def validate_scores(scores: Sequence[object], *, expected: int, scale: Scale) -> list[float]:
    """Return a scorer's answer, which is checked, as Python floats in [0, 1], in the same order.

    Logits become probabilities by the sigmoid, cosines by (1 + s) / 2.
    """
    if not isinstance(scores, Sized):
        raise InvalidResponseError(f"returned a {type(scores).__name__}: a list of scores was expected")
    if len(scores) != expected:
        raise InvalidResponseError(
            f"returned {len(scores)} scores for {expected} texts: nothing can be ranked from that"
        )
    numbers = [
        score if type(score) is float and isfinite(score) else check_score(score, index)
        for index, score in enumerate(scores)
    ]
    if scale == "logit":
        return [sigmoid(number) for number in numbers]
    lowest = -1.0 if scale == "cosine" else 0.0
    if numbers and not lowest <= min(numbers) <= max(numbers) <= 1.0:
        for index, number in enumerate(numbers):
            if not lowest - _ROUNDING <= number <= 1.0 + _ROUNDING:
                raise InvalidResponseError(
                    f"returned {number!r} for text {index}, outside [{lowest:g}, 1]: "
                    "if it returns logits, its scale must be 'logit' (option score_scale=)"
                )
            numbers[index] = min(1.0, max(lowest, number))
    return [(1.0 + number) / 2.0 for number in numbers] if scale == "cosine" else numbers


def check_score(score: object, index: int) -> float:
    """Return a scorer's score of a text as a Python float."""
    number = to_float(score)
    if not isfinite(number):
        is_number = isinstance(score, Real) and not isinstance(score, bool)
        shown = repr(number) if is_number else f"a {type(score).__name__}"
        raise InvalidResponseError(f"returned {shown} for text {index}: a finite number was expected")
    return number


def read_scores(name: str, scores: object, expected: int) -> list[float | None]:
    """Return scores that a caller gave, one finite number or None per document, as Python floats."""
    if isinstance(scores, (str, bytes)) or not isinstance(scores, Iterable):
        raise ConfigurationError(f"{name} is a {type(scores).__name__}: give one score per document")
    values = list(scores)
    if len(values) != expected:
        raise ConfigurationError(
            f"{name} has {len(values)} scores for {expected} documents: give one each, or None where there is none"
        )
    return [None if value is None else check_finite(f"{name}[{at}]", value) for at, value in enumerate(values)]


def find_ranks(items: Sequence[K]) -> dict[K, int]:
    """Return the rank of each item in a list, from 1; of one that the list repeats, the best."""
    return {item: rank for rank, item in reversed([*enumerate(items, start=1)])}


def stretch(scores: Sequence[float]) -> list[float]:
    """Return scores moved and scaled so that the lowest is 0.0 and the highest 1.0; equal ones are all 1.0."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    # By halves: the difference of two floats may be beyond all floats.
    span = high / 2 - low / 2
    return [(score / 2 - low / 2) / span if span > 0.0 else 1.0 for score in scores]


def mix_scores(
    relevance: Sequence[float | None], retrieval: Sequence[float | None], weight: float, *, ordinal: bool = False
) -> list[float]:
    """Return (1 − weight) × relevance + weight × the first stage's scores, each stretched to [0, 1].

    Both are in the first stage's order, higher is better. A document without relevance was not scored and comes
    after all others, as -1.0; one without a retrieval score counts as the lowest. Where all of these are missing,
    −log2(1 + rank) takes their place; so it does for relevance scores that only say the order (``ordinal``).
    """
    scored = [(at, score) for at, score in enumerate(relevance) if score is not None]
    known = [score for at, _ in scored if (score := retrieval[at]) is not None] if retrieval else []
    if known:
        lowest = min(known)
        first = [lowest if (score := retrieval[at]) is None else score for at, _ in scored]
    else:
        first = [-math.log2(2 + at) for at, _ in scored]
    second = [score for _, score in scored]
    if ordinal:
        ranks = find_ranks(sorted(second, reverse=True))
        second = [-math.log2(1 + ranks[score]) for score in second]
    mixed = [-1.0] * len(relevance)
    for (at, _), ours, theirs in zip(scored, stretch(second), stretch(first), strict=True):
        mixed[at] = (1.0 - weight) * ours + weight * theirs
    return mixed
