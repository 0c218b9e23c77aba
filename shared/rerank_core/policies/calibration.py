"""Calibration: a monotone map from a model's scores to probabilities, fitted to labelled pairs."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

from rerank_core._call.scores import sigmoid
from rerank_core.errors import ConfigurationError
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_tools.evaluation._fitting import (
    Quality,
    fit_isotonic,
    fit_platt,
    held_out,
    logit,
    quality_of,
)

__all__ = ["Calibration", "Method", "Quality", "acalibrate", "calibrate"]

Method = Literal["platt", "isotonic"]
"""``platt``: two parameters, for tens to hundreds of labels; ``isotonic``: any monotone curve, for thousands."""

_FORMAT = "rerank-bridge calibration"
_VERSION = 1
_LEAST_OF_EACH = 10
_STRICTNESS = 1e-3
"""The share of the raw score in an isotonic map: keeps the order of scores that the fit makes equal."""

_Pairs = Iterable[Any]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A monotone map from relevance scores to probabilities; call it with a score.

    Attributes:
        model: name of the scorer whose scores it maps.
        method: how it was fitted.
        slope: of the Platt map ``sigmoid(slope × log-odds of the score + intercept)``; above 0.
        intercept: of the same map.
        knots: of the isotonic map, as (score, probability), both rising; linear between them.
        pairs: how many labelled pairs it was fitted to.
        relevant: how many of them were relevant.
        before: quality of the raw scores on these pairs.
        after: quality of calibrated ones, each fifth of the pairs mapped by a fit to the other four.

    Raises:
        ConfigurationError: an attribute is out of its range, so that the map would not rise.
    """

    model: str
    method: Method
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    pairs: int = 0
    relevant: int = 0
    before: Quality | None = None
    after: Quality | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigurationError(f"method is {self.method!r}: give one of {', '.join(get_args(Method))}")
        if not 0.0 < self.slope < float("inf") or not abs(self.intercept) < float("inf"):
            raise ConfigurationError(
                f"slope is {self.slope!r} and intercept {self.intercept!r}: both must be finite, the slope above 0"
            )
        numbers = [number for knot in self.knots for number in knot]
        rising = all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(self.knots))
        if not rising or not all(0.0 <= number <= 1.0 for number in numbers):
            raise ConfigurationError("knots must rise within [0, 1]: fit the calibration anew")
        if self.method == "isotonic" and not self.knots:
            raise ConfigurationError("an isotonic calibration without knots maps nothing: fit it anew")

    def __call__(self, score: float) -> float:
        """Return the probability in [0, 1] that a text with this relevance score is relevant."""
        if self.method == "platt":
            return sigmoid(self.slope * logit(score) + self.intercept)
        return (1.0 - _STRICTNESS) * _interpolated(self.knots, score) + _STRICTNESS * score

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, as JSON."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read it from a file that :meth:`save` wrote.

        Raises:
            ConfigurationError: the file cannot be read, is something else, or of a version of the format that
                this package does not know.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"no calibration can be read from {path}: {type(exc).__name__}") from exc
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ConfigurationError(f"{path} holds no calibration: give a file that Calibration.save wrote")
        if content.get("version") != _VERSION:
            raise ConfigurationError(
                f"{path} has version {content.get('version')!r} of the format, this package reads {_VERSION}"
            )
        try:
            return cls(**_values(content))
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise ConfigurationError(f"{path} holds a broken calibration: {exc}") from exc


def calibrate(reranker: Reranker | Scorer | str, labelled_pairs: _Pairs, method: Method = "platt") -> Calibration:
    """Fit a calibration to pairs whose relevance is known.

    Platt's map is fitted to log-odds by maximum likelihood, with his smoothed targets (Platt 1999; Lin, Lin and
    Weng 2007); the isotonic one by pooling adjacent violators.

    Args:
        reranker: a reranker, a scorer or a scorer's name; each query's texts are scored in one call.
        labelled_pairs: ``((query, text), label)`` or ``(query, text, label)``, label true (1) for relevant, false
            (0) for not; of the kind, and in about the proportion, that the reranker will see. At least 10 of
            each label.
        method: see :data:`Method`.

    Raises:
        ConfigurationError: too few pairs, only one label, a pair of another form, or relevant texts do not
            score higher than others.
        ScorerError: the scorer failed.

    >>> from rerank_core.testing import FakeScorer
    >>> texts = [f"a leak {number}" for number in range(20)] + [f"tea {number}" for number in range(20)]
    >>> pairs = [("leak", text, "leak" in text) for text in texts]
    >>> calibration = calibrate(FakeScorer(), pairs)
    >>> calibration(0.95) > 0.9, calibration(0.05) < 0.1
    (True, True)
    """
    asked, sample = _prepared(reranker, labelled_pairs, method)
    rankings = asked.rerank_many(*sample.grouped())
    return _fitted(asked.scorer.name, sample.scored([ranking.scores for ranking in rankings]), method)


async def acalibrate(
    reranker: Reranker | Scorer | str, labelled_pairs: _Pairs, method: Method = "platt"
) -> Calibration:
    """Fit a calibration, as :func:`calibrate` does."""
    asked, sample = _prepared(reranker, labelled_pairs, method)
    rankings = await asked.arerank_many(*sample.grouped())
    return _fitted(asked.scorer.name, sample.scored([ranking.scores for ranking in rankings]), method)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Labelled pairs, in the order in which they were given."""

    queries: list[str]
    texts: list[str]
    labels: list[bool]

    def grouped(self) -> tuple[list[str], list[list[str]]]:
        """Return each query once, and its texts."""
        groups: dict[str, list[str]] = {}
        for query, text in zip(self.queries, self.texts, strict=True):
            groups.setdefault(query, []).append(text)
        return list(groups), list(groups.values())

    def scored(self, scores: Sequence[Sequence[float | None]]) -> list[tuple[float, bool]]:
        """Return score and label of each pair, from the scores of the groups."""
        left = dict(zip(dict.fromkeys(self.queries), map(iter, scores), strict=True))
        found = [next(left[query]) for query in self.queries]
        return [(score or 0.0, label) for score, label in zip(found, self.labels, strict=True)]


def _prepared(reranker: object, labelled_pairs: _Pairs, method: object) -> tuple[Reranker, _Sample]:
    if method not in get_args(Method):
        raise ConfigurationError(f"method is {method!r}: give one of {', '.join(get_args(Method))}")
    timeout = reranker.timeout if isinstance(reranker, Reranker) else None
    scorer: Any = reranker.scorer if isinstance(reranker, Reranker) else reranker
    sample = _Sample([], [], [])
    for position, pair in enumerate(labelled_pairs):
        query, text, label = _parts(position, pair)
        sample.queries.append(query)
        sample.texts.append(text)
        sample.labels.append(label)
    relevant = sum(sample.labels)
    if min(relevant, len(sample.labels) - relevant) < _LEAST_OF_EACH:
        raise ConfigurationError(
            f"{relevant} of {len(sample.labels)} labelled pairs are relevant: "
            f"give at least {_LEAST_OF_EACH} relevant ones and {_LEAST_OF_EACH} others"
        )
    return Reranker(scorer, timeout=timeout), sample


def _parts(position: int, pair: Any) -> tuple[str, str, bool]:
    try:
        query, text, label = pair if len(pair) == 3 else (*pair[0], pair[1])
    except (TypeError, ValueError, IndexError, KeyError):
        query = text = label = None
    numeric = isinstance(label, Real) and float(label) in (0.0, 1.0)
    if not (isinstance(query, str) and isinstance(text, str) and numeric):
        raise ConfigurationError(
            f"labelled pair {position} is not of the form (query, text, label): "
            "give two texts and a label that is True or False, 1 or 0"
        )
    return query, text, bool(label)


def _fitted(model: str, sample: list[tuple[float, bool]], method: Method) -> Calibration:
    def fit(part: Sequence[tuple[float, bool]]) -> Calibration:
        if method == "isotonic":
            return Calibration(model, method, knots=fit_isotonic(part))
        slope, intercept = fit_platt(part)
        if not slope > 0.0:
            raise ConfigurationError(
                f"relevant texts do not score higher than others with {model}: check the labels, or the model"
            )
        return Calibration(model, method, slope, intercept)

    fitted = fit(sample)
    return Calibration(
        model,
        method,
        fitted.slope,
        fitted.intercept,
        fitted.knots,
        len(sample),
        sum(label for _, label in sample),
        quality_of(sample),
        quality_of(held_out(sample, fit)),
    )


def _interpolated(knots: Sequence[tuple[float, float]], score: float) -> float:
    """Return the value of a piecewise linear function, constant beyond its ends."""
    above = bisect_right(knots, score, key=lambda knot: knot[0])
    if above == 0:
        return knots[0][1]
    if above == len(knots):
        return knots[-1][1]
    (left, low), (right, high) = knots[above - 1], knots[above]
    return low + (high - low) * ((score - left) / (right - left))


def _values(content: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes from a file's content, the nested ones made."""
    values = {field.name: content[field.name] for field in fields(Calibration)}
    values["knots"] = tuple((float(score), float(probability)) for score, probability in values["knots"])
    for name in ("slope", "intercept"):
        values[name] = float(values[name])
    for name in ("before", "after"):
        values[name] = None if values[name] is None else Quality(**values[name])
    if not isinstance(values["model"], str):
        raise TypeError("its model is no text")
    return values
