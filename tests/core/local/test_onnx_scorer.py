"""An ONNX model runs pairs together or one at a time, and can be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models import QUERY, TEXTS, Shape

from rerank_core.local.onnx.scorer import OnnxModel, OnnxScorer


@pytest.fixture
def one_at_a_time(checkpoint: Callable[[Shape], Path]) -> OnnxModel:
    """Return the model of a checkpoint, which runs each pair alone."""
    folder = checkpoint("bert-1")
    loaded = OnnxScorer(str(folder)).load()
    return OnnxModel(loaded._session, loaded._pairs, "logit", one_at_a_time=True)


def test_pairs_one_at_a_time_have_the_same_scores(
    one_at_a_time: OnnxModel, checkpoint: Callable[[Shape], Path]
) -> None:
    """In order, and no pair is padded."""
    shapes: list[tuple[int, ...]] = []
    run = one_at_a_time._session.run

    def watched(feed: Any) -> Any:
        shapes.append(feed["input_ids"].shape)
        return run(feed)

    together = OnnxScorer(str(checkpoint("bert-1"))).load()
    expected = together.forward(together.tokenize(QUERY, TEXTS))
    one_at_a_time._session.run = watched  # type: ignore[method-assign]
    pairs = one_at_a_time.tokenize(QUERY, TEXTS)
    assert one_at_a_time.forward(pairs) == pytest.approx(expected, abs=1e-5)
    assert shapes == [(1, len(pair)) for pair in pairs]


def test_pairs_one_at_a_time_are_interrupted_between_runs(one_at_a_time: OnnxModel) -> None:
    """The run after an interrupt raises at once, and the next batch runs."""
    pairs = one_at_a_time.tokenize(QUERY, TEXTS)
    begun: list[int] = []
    run = one_at_a_time._session.run

    def interrupted_after_the_third(feed: Any) -> Any:
        begun.append(len(begun))
        outputs = run(feed)
        if len(begun) == 3:
            thread = threading.Thread(target=one_at_a_time.interrupt)
            thread.start()
            thread.join()
        return outputs

    one_at_a_time._session.run = interrupted_after_the_third  # type: ignore[method-assign]
    one_at_a_time.arm()
    with pytest.raises(Exception, match="(?i)terminate|interrupt"):
        one_at_a_time.forward(pairs)
    assert len(begun) == 4  # the fourth raises at once
    one_at_a_time.arm()
    assert len(one_at_a_time.forward(pairs)) == len(pairs)
