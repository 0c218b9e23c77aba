"""Calibrated: scores become probabilities, and the order stays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rerank_core import ConfigurationError, Reranker, Scorer, ScorerError
from rerank_core.policies import Calibrated, Calibration
from rerank_core.policies.calibrated import CalibrationQuality
from rerank_core.testing import FakeScorer, ScorerContract

PLATT = Calibration("fake", "platt", slope=0.5, intercept=-1.0, pairs=3, before=CalibrationQuality(0.2, 0.1))
ISOTONIC = Calibration("fake", "isotonic", knots=((0.1, 0.0), (0.3, 0.4), (0.9, 0.4)))


class TestCalibratedContract(ScorerContract):
    """A calibrated scorer on the logit scale."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Calibrated(FakeScorer(scale="logit"), PLATT)


@pytest.mark.parametrize("calibration", [PLATT, ISOTONIC])
def test_it_is_saved_and_loaded(calibration: Calibration, tmp_path: Path) -> None:
    """The file gives back the same map, and a scorer takes its path."""
    calibration.save(tmp_path / "map.json")
    assert Calibration.load(tmp_path / "map.json") == calibration
    scorer = Calibrated(FakeScorer(lambda query, text: float(text)), tmp_path / "map.json")
    assert Reranker(scorer).rerank("query", ["0.2", "0.7"]).scores == (calibration(0.2), calibration(0.7))


def test_partial_scores_are_mapped_too() -> None:
    """What arrived before a failure is on the same scale as the rest."""
    error = ScorerError("lost the second half")
    error.partial = {0: 0.5}
    with pytest.raises(ScorerError) as caught:
        Reranker(Calibrated(FakeScorer(error=error), PLATT)).rerank("query", ["a", "b"])
    assert caught.value.partial == {0: PLATT(0.5)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method is 'best'"),
        ({"method": "platt", "slope": -1.0}, "slope is -1.0"),
        ({"method": "platt", "intercept": math.nan}, "intercept nan"),
        ({"method": "isotonic"}, "without knots"),
        ({"method": "isotonic", "knots": ((0.5, 0.5), (0.4, 0.6))}, "knots must rise"),
        ({"method": "isotonic", "knots": ((0.5, 1.5),)}, "knots must rise"),
    ],
)
def test_maps_that_do_not_rise_are_refused(options: dict[str, Any], message: str) -> None:
    """They would turn rankings around."""
    with pytest.raises(ConfigurationError, match=message):
        Calibration(model="fake", **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no calibration can be read"),
        ("[]", "holds no calibration"),
        (json.dumps({"format": "rerank-bridge calibration", "version": 9}), "version 9 of the format"),
        (json.dumps({"format": "rerank-bridge calibration", "version": 2}), "broken calibration"),
    ],
)
def test_files_of_another_kind_are_refused(content: str, message: str, tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        Calibration.load(path)


def test_a_broken_model_name_is_refused(tmp_path: Path) -> None:
    """Values are checked one by one."""
    PLATT.save(tmp_path / "map.json")
    content = json.loads((tmp_path / "map.json").read_text())
    (tmp_path / "map.json").write_text(json.dumps({**content, "model": 3}))
    with pytest.raises(ConfigurationError, match="broken calibration: .* model .*string"):
        Calibration.load(tmp_path / "map.json")


def test_a_calibration_of_another_model_is_refused() -> None:
    """Its map would mean nothing."""
    with pytest.raises(ConfigurationError, match="fitted to fake, not to other"):
        Calibrated(FakeScorer(name="other"), PLATT)
    with pytest.raises(ConfigurationError, match="calibration is a int"):
        Calibrated(FakeScorer(), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("knots", [[(0.0, 0.1)], ([0.0, 0.1],)])
def test_knots_are_tuples(knots: Any) -> None:
    """Lists could be changed, and a calibration is compared and hashed."""
    with pytest.raises(ConfigurationError, match="knots are lists, or hold one: give a tuple of tuples"):
        Calibration("fake", "isotonic", knots=knots)
