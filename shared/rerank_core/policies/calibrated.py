"""Turn scores into probabilities, so that one threshold means the same for every model."""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from rerank_core._call.asking import call_scorer
from rerank_core._call.event_loop import run_work
from rerank_core._call.scores import sigmoid
from rerank_core._support.checks import check_choice
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.scorer import Scorer
from rerank_core.types import Scored

__all__ = ["Calibrated", "Calibration", "CalibrationMethod", "CalibrationQuality", "log_odds"]

CalibrationMethod = Literal["platt", "isotonic"]
"""``platt``: two parameters, for tens to hundreds of labels; ``isotonic``: any monotone curve, for thousands."""

_FORMAT = "rerank-bridge calibration"
_STEPS_PER_SCORE = 2
_VERSION = 2
_MIN_DISTANCE = 1e-15  # of a score from 0 and 1, so that its log-odds are within ±34.6
_RAW_SHARE = 1e-3
"""Share of the raw score in an isotonic map: it keeps the order of scores that the fit makes equal."""


@dataclass(frozen=True, slots=True)
class CalibrationQuality:
    """How well scores work as probabilities; lower is better.

    Attributes:
        brier: mean squared difference of score and label.
        calibration_error: difference of mean score and share of relevant texts, averaged over ten equal ranges
            of the score, weighted by how many texts are in each.
    """

    brier: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A monotone map from relevance scores to probabilities; call it with a score.

    Made by :func:`rerank_tools.evaluation.calibrate`.

    Attributes:
        model: name of the scorer whose scores it maps.
        method: how it was fitted.
        slope: of the Platt map ``sigmoid(slope × log-odds of the score + intercept)``; above 0.
        intercept: of the same map.
        knots: of the isotonic map, as (score, probability), both ascending; linear between them.
        pairs: how many labelled pairs it was fitted to.
        relevant: how many of them were relevant.
        queries: how many queries the pairs are of. It says more than ``pairs`` about how certain the map is,
            because the pairs of one query resemble each other.
        documents: how many different texts the pairs are of.
        before: quality of the raw scores on these pairs.
        after: quality of the calibrated scores of each query when the map is fitted to other queries (5-fold
            cross-validation); None where there are too few queries for that.

    Raises:
        ConfigurationError: an attribute is out of its range, so that the map would not rise.
    """

    model: str
    method: CalibrationMethod
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    pairs: int = 0
    relevant: int = 0
    queries: int = 0
    documents: int = 0
    before: CalibrationQuality | None = None
    after: CalibrationQuality | None = None

    def __post_init__(self) -> None:
        check_choice("method", self.method, get_args(CalibrationMethod))
        if not 0.0 < self.slope < math.inf or not abs(self.intercept) < math.inf:
            raise ConfigurationError(
                f"slope is {self.slope!r} and intercept {self.intercept!r}: both must be finite, the slope above 0"
            )
        if not all(isinstance(part, tuple) for part in (self.knots, *self.knots)):  # lists have no hash
            raise ConfigurationError("knots are lists, or hold one: give a tuple of tuples")
        numbers = [number for knot in self.knots for number in knot]
        rises = all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(self.knots))
        if not rises or not all(0.0 <= number <= 1.0 for number in numbers):
            raise ConfigurationError("knots must rise within [0, 1]: fit the calibration anew")
        if self.method == "isotonic" and not self.knots:
            raise ConfigurationError("an isotonic calibration without knots maps nothing: fit it anew")

    def __call__(self, score: float) -> float:
        """Return the probability, in [0, 1], that a text with this relevance score is relevant."""
        if self.method == "platt":
            return sigmoid(self.slope * log_odds(score) + self.intercept)
        return (1.0 - _RAW_SHARE) * _interpolate(self.knots, score) + _RAW_SHARE * score

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, as JSON."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read it from a file that :meth:`save` wrote.

        Raises:
            ConfigurationError: the file cannot be read, holds something else, or has a version of the format
                that this package does not know.
        """
        from pydantic import TypeAdapter  # takes long to import

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
            return TypeAdapter(cls).validate_python({field.name: content[field.name] for field in fields(cls)})
        except (KeyError, ValueError) as exc:
            raise ConfigurationError(f"{path} holds a broken calibration: {' '.join(str(exc).split())}") from exc


class Calibrated(Policy):
    """Turns a scorer's scores into probabilities by a calibration; the order stays.

    Args:
        scorer: a scorer or its name.
        calibration: from :func:`rerank_tools.evaluation.calibrate`, or the path of a file that it was saved to.

    Raises:
        ConfigurationError: the calibration cannot be read, or was fitted to another model's scores.

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> calibration = Calibration(model="fake", method="platt", slope=2.0, intercept=1.0)
    >>> ranking = Reranker(Calibrated(FakeScorer(lambda query, text: 0.5), calibration)).rerank("leak", ["a leak"])
    >>> round(ranking.scores[0], 3)
    0.731
    """

    def __init__(self, scorer: Scorer | str, calibration: Calibration | str | os.PathLike[str]) -> None:
        super().__init__("calibrated", [scorer])
        if isinstance(calibration, (str, os.PathLike)):
            calibration = Calibration.load(calibration)
        if not isinstance(calibration, Calibration):
            raise ConfigurationError(
                f"calibration is a {type(calibration).__name__}: give a Calibration or the path of a saved one"
            )
        if calibration.model != self.scorer.name:
            raise ConfigurationError(
                f"the calibration was fitted to {calibration.model}, not to {self.scorer.name}: "
                "calibrate each model by itself"
            )
        self.calibration = calibration

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return probabilities."""
        try:
            scored = await call_scorer(self.scorer, query, texts)
        except ScorerError as exc:
            exc.partial = {slot: self.calibration(score) for slot, score in exc.partial.items()}
            raise
        steps = _STEPS_PER_SCORE * len(texts)
        scores = await run_work(steps, lambda: [self.calibration(score) for score in scored.scores])
        return replace(scored, scores=scores)


def log_odds(score: float) -> float:
    """Return the log-odds of a score in [0, 1]; those of 0 and 1 are about ∓34.5."""
    inside = min(max(score, _MIN_DISTANCE), 1.0 - _MIN_DISTANCE)
    return math.log(inside) - math.log1p(-inside)


def _interpolate(knots: Sequence[tuple[float, float]], score: float) -> float:
    """Return the value of a piecewise linear function, constant beyond its ends."""
    above = bisect_right(knots, score, key=lambda knot: knot[0])
    if above == 0:
        return knots[0][1]
    if above == len(knots):
        return knots[-1][1]
    (left, low), (right, high) = knots[above - 1], knots[above]
    return low + (high - low) * ((score - left) / (right - left))
