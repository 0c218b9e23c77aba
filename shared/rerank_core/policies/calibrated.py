"""Scores as probabilities, so that one threshold means the same for every model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from rerank_core._call.asking import call_scorer
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.policies.calibration import Calibration
from rerank_core.scorer import Scorer
from rerank_core.types import Scored

__all__ = ["Calibrated"]


class Calibrated(Policy):
    """Turns a scorer's scores into probabilities by a calibration; the order stays.

    Args:
        scorer: a scorer or its name.
        calibration: from :func:`rerank_core.policies.calibration.calibrate`, or the path of a file that it was saved to.

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
        if calibration.model != self.scorers[0].name:
            raise ConfigurationError(
                f"the calibration was fitted to {calibration.model}, not to {self.scorers[0].name}: "
                "calibrate each model by itself"
            )
        self.calibration = calibration

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return probabilities."""
        try:
            scored = await call_scorer(self.scorers[0], query, texts)
        except ScorerError as exc:
            exc.partial = {slot: self.calibration(score) for slot, score in exc.partial.items()}
            raise
        return replace(scored, scores=[self.calibration(score) for score in scored.scores])
