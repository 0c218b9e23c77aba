"""Selection: order, cuts, and which values it takes."""

from __future__ import annotations

import math
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import ConfigurationError, Selection

HUGE = pytest.param(10**400, id="10**400")
SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=40)
SELECTIONS = st.builds(
    Selection,
    score_threshold=st.none() | st.floats(0, 1),
    adaptive_ratio=st.none() | st.floats(0, 1),
    min_keep=st.integers(0, 10),
    top_n=st.none() | st.integers(1, 50),
)


@given(SCORES)
def test_without_options_it_is_a_stable_sort(scores: list[float]) -> None:
    """Every index survives, by falling score, ties in the order of the input."""
    assert Selection().select(scores) == sorted(range(len(scores)), key=lambda index: (-scores[index], index))


@given(SCORES, SELECTIONS)
def test_it_returns_a_prefix_of_the_stable_sort(scores: list[float], selection: Selection) -> None:
    """Options only shorten the order, never change it."""
    kept = selection.select(scores)
    assert kept == Selection().select(scores)[: len(kept)]


@given(SCORES, SELECTIONS)
def test_nothing_survives_below_a_cut_but_for_min_keep(scores: list[float], selection: Selection) -> None:
    """A document below either cut is there only as one of the first ``min_keep``."""
    kept = selection.select(scores)
    for rank, index in enumerate(kept, start=1):
        below = (selection.score_threshold is not None and scores[index] < selection.score_threshold) or (
            selection.adaptive_ratio is not None and scores[index] < selection.adaptive_ratio * max(scores)
        )
        assert not below or rank <= selection.min_keep


@given(SCORES, SELECTIONS)
def test_nothing_is_dropped_that_passes_the_cuts(scores: list[float], selection: Selection) -> None:
    """As many survive as pass both cuts, at least ``min_keep``, at most ``top_n``."""
    threshold = selection.score_threshold or 0.0
    ratio = (selection.adaptive_ratio or 0.0) * max(scores, default=0.0)
    passing = sum(score >= threshold and score >= ratio for score in scores)
    wanted = min(len(scores), max(passing, selection.min_keep))
    limit = len(scores) if selection.top_n is None else selection.top_n
    assert len(selection.select(scores)) == min(wanted, limit)


@given(SCORES, SELECTIONS)
def test_no_more_than_top_n_survive(scores: list[float], selection: Selection) -> None:
    """``top_n`` comes last, so it bounds ``min_keep`` too."""
    assert selection.top_n is None or len(selection.select(scores)) <= selection.top_n


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [1, 2, 0, 3]),
        (Selection(top_n=2), [1, 2]),
        (Selection(top_n=100), [1, 2, 0, 3]),
        (Selection(score_threshold=0.5), [1, 2]),
        (Selection(score_threshold=0.95), []),
        (Selection(score_threshold=0.95, min_keep=1), [1]),
        (Selection(adaptive_ratio=0.25), [1, 2]),
        (Selection(adaptive_ratio=1.0), [1]),
        (Selection(adaptive_ratio=0.1, score_threshold=0.2), [1, 2, 0]),
        (Selection(score_threshold=0.95, min_keep=3, top_n=2), [1, 2]),
        (Selection(min_keep=100), [1, 2, 0, 3]),
    ],
)
def test_options_cut_as_documented(selection: Selection, expected: list[int]) -> None:
    """A score equal to the threshold stays; both cuts may be combined; ``top_n`` is last."""
    assert selection.select([0.2, 0.9, 0.5, 0.1]) == expected


def test_no_scores_select_nothing() -> None:
    """An empty list is no special case, whatever the options."""
    assert Selection(score_threshold=0.5, adaptive_ratio=0.5, min_keep=3, top_n=2).select([]) == []


@pytest.mark.parametrize("name", ["score_threshold", "adaptive_ratio"])
@pytest.mark.parametrize(
    "value", [-0.1, 1.1, math.nan, math.inf, -math.inf, True, False, "0.5", [0.5], Decimal("0.5"), HUGE, 1j]
)
def test_a_fraction_out_of_range_is_refused(name: str, value: Any) -> None:
    """The error names the option, its value and the range; bool, NaN and strings are no fractions."""
    with pytest.raises(ConfigurationError) as caught:
        Selection(**{name: value})
    assert f"{name} is {value!r}" in str(caught.value)
    assert "from 0.0 to 1.0" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "least", "value"),
    [
        (name, least, value)
        for name, least in (("min_keep", 0), ("top_n", 1))
        for value in (-1, 1.5, True, "3", math.nan)
    ]
    + [("top_n", 1, 0), ("top_n", 1, False), ("min_keep", 0, None)],
)
def test_a_count_out_of_range_is_refused(name: str, least: int, value: Any) -> None:
    """The error names the option, its value and the least; bool and NaN are no counts."""
    with pytest.raises(ConfigurationError) as caught:
        Selection(**{name: value})
    assert f"{name} is {value!r}" in str(caught.value)
    assert f"at least {least}" in str(caught.value)


def test_numbers_of_other_types_become_python_numbers() -> None:
    """What numpy or a fraction gives is kept as a float or an int, so that it can be serialised."""
    selection = Selection(
        score_threshold=np.float32(0.5), adaptive_ratio=Fraction(1, 4), min_keep=np.int64(1), top_n=np.int32(2)
    )
    kept = (selection.score_threshold, selection.adaptive_ratio, selection.min_keep, selection.top_n)
    assert kept == (0.5, 0.25, 1, 2)
    assert [type(value) for value in kept] == [float, float, int, int]


@given(SELECTIONS)
def test_it_survives_pickling_and_cannot_be_changed(selection: Selection) -> None:
    """A selection is a value: equal to its copy, hashable and frozen."""
    copy = pickle.loads(pickle.dumps(selection))
    assert copy == selection
    assert hash(copy) == hash(selection)
    with pytest.raises(AttributeError):
        selection.top_n = 3  # type: ignore[misc]
