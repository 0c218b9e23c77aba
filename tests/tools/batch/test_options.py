"""The options of a batch: checked when they are given, and compared when a job is resumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.providers import KEY

from rerank_core import ConfigurationError, MissingExtraError, Selection, load_scorer
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, rerank_dataset, rerank_file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows_per_part": 0}, "rows_per_part is 0: give a whole number of at least 1"),
        ({"max_cost": -1}, "max_cost is -1: give US dollars, at least 0"),
        ({"gpus_per_worker": True}, "gpus_per_worker is True: give a number of GPUs"),
        ({"timeout": 0}, "timeout is 0: give seconds above 0"),
        ({"engine": "spark"}, "engine is 'spark': give one of auto, process, ray"),
        ({"selection": 3}, "selection is a int: give a Selection"),
        ({"model": FakeScorer(), "model_options": {"a": 1}}, "leave out model_options="),
        ({"model": "nobody"}, "no scorer is called 'nobody'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    """When they are given, with the value and the fix."""
    with pytest.raises(ConfigurationError, match=message):
        BatchOptions(**options)


def test_a_scorer_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """A run that could not tell whether another one had the same scorer does not begin."""
    (tmp_path / "in.jsonl").write_text("")
    options = BatchOptions(FakeScorer(lambda query, text: 0.5))
    with pytest.raises(ConfigurationError, match="a later run could not tell whether it has the same scorer"):
        rerank_file(tmp_path / "in.jsonl", tmp_path / "out", options)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more than one worker is asked for, or Ray itself."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fake = FakeScorer()
    for options in (BatchOptions(fake, workers=4), BatchOptions(fake, engine="ray")):
        with pytest.raises(MissingExtraError, match=r"rerank-bridge\[ray\]"):
            options.choose_engine()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"rerank_dataset needs the package 'ray'"):
        rerank_dataset(Any)  # type: ignore[arg-type]


def test_with_ray_the_workers_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker is this process, more are Ray, unless the engine is named."""
    monkeypatch.setattr("rerank_tools.batch.options.check_installed", lambda *names, **why: None)
    fake = FakeScorer()
    assert BatchOptions(fake).choose_engine() == "process"
    assert BatchOptions(fake, workers=2).choose_engine() == "ray"
    assert BatchOptions(fake, workers=2, engine="process").choose_engine() == "process"


def test_what_decides_a_result_is_json() -> None:
    """The scorer's name and what changes scores; neither key nor speed, and a scorer as well as its name."""

    def deciding(**options: Any) -> dict[str, Any]:
        given = {"api_key": KEY, **options}
        return BatchOptions(
            "cohere:rerank-v3.5", model_options=given, selection=Selection(top_n=3)
        ).fingerprint_options()

    first = deciding(max_retries=1)
    assert first["selection"]["top_n"] == 3
    assert KEY not in json.dumps(first)
    assert deciding(max_retries=2, max_concurrency=1) == first
    assert deciding(max_tokens_per_doc=9) != first
    assert (
        BatchOptions(
            load_scorer("cohere:rerank-v3.5", api_key=KEY), selection=Selection(top_n=3)
        ).fingerprint_options()
        == first
    )
