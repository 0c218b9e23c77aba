"""Reading answers: any answer whatever gives documents of the question, each once, or none."""

from __future__ import annotations

import json
import math
import random
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core import InvalidResponseError
from rerank_core._call.event_loop import run
from rerank_core.llm.answer import Reply, complete, expect_grade, merge_samples, read_answer
from rerank_core.llm.prompt import Mode
from rerank_core.llm.windows import count_questions, rank_by_pivot, rank_by_sliding

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["id", "grade", "grades", "order", "1", "2", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)
IDS = st.integers(-3, 12) | st.sampled_from(["1", "2", "x", None, True, 1.0, 2.5, 10**400])
ROWS = st.lists(st.fixed_dictionaries({"id": IDS, "grade": st.integers(-2, 12) | st.floats()}), max_size=15)
MODES = [mode for mode in get_args(Mode) if mode != "pointwise"]
PIECES = ["Doc: 1", ", Relevance: 9", "\n", "[2]", " > ", "[1]", "-", "3", "</think>"]
HOSTILE = ["[" * 10**6, '{"id":' * 10**5, "Doc: " * 10**5, "- " * 10**6, "\n" * 10**6, '[{"id": 1' * 10**5]
COUNTS = st.integers(1, 10)


def check(judged: list[tuple[int, float]], count: int) -> None:
    """Fail unless these are positions of the question, each once, best first."""
    positions = [position for position, _ in judged]
    assert len(set(positions)) == len(positions)
    assert set(positions) <= set(range(count))
    scores = [score for _, score in judged]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=300, deadline=None)
@given(data=JSON | ROWS.map(lambda rows: {"grades": rows}), count=COUNTS)
def test_any_data_gives_a_ranking_of_some_documents(mode: Mode, data: Any, count: int) -> None:
    """Parsed by a framework, or as text."""
    judged = read_answer(Reply(data=data), mode, count)
    check(judged, count)
    check(complete(judged, range(count)), count)
    try:
        text = json.dumps(data)
    except ValueError:
        return
    check(read_answer(Reply(text=f"Sure! ```json\n{text}\n```"), mode, count), count)
    check(read_answer(Reply(text=text[: len(text) // 2]), mode, count), count)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=300, deadline=None)
@given(
    text=st.text()
    | st.text(alphabet='[]{}":,.123456789-idgraeDocRlvn \n<>/thk')
    | st.lists(st.sampled_from(["Doc: 1", ", Relevance: 9", "\n", "[2]", " > ", "[1]", "-", "3", "</think>"])).map(
        "".join
    ),
    count=COUNTS,
)
def test_any_text_gives_a_ranking_of_some_documents(mode: Mode, text: str, count: int) -> None:
    """Prose, digits and broken JSON too."""
    check(read_answer(Reply(text=text), mode, count), count)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:5].strip())
def test_a_hostile_answer_is_read_in_no_time(mode: Mode, text: str) -> None:
    """However deep or long it is; the limit is far above what it takes."""
    started = time.process_time()
    check(read_answer(Reply(text=text), mode, 5), 5)
    assert time.process_time() - started < 2


def test_an_order_is_read_of_brackets_too() -> None:
    """As models answer that were trained on rankings."""
    assert [position for position, _ in read_answer(Reply(text="[2] > [3] > [1]"), "order", 3)] == [1, 2, 0]
    assert [position for position, _ in read_answer(Reply(text='{"order": [2, 3, "1"]}'), "order", 3)] == [1, 2, 0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.permutations(range(5)), min_size=1, max_size=4), st.integers(0, 5))
def test_samples_merge_into_one_ranking(orders: list[list[int]], left_out: int) -> None:
    """By mean score; a document that only some answers name has the mean of these."""
    samples = [[(at, 1.0 - place / 5) for place, at in enumerate(order) if at != left_out] for order in orders]
    check(merge_samples(samples), 5)
    assert {at for at, _ in merge_samples(samples)} == set(range(5)) - {left_out}


@pytest.mark.parametrize("rank", [rank_by_pivot, rank_by_sliding])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0), count=st.integers(1, 60), window=st.integers(2, 20))
def test_windows_give_every_document_once(rank: Any, seed: int, count: int, window: int) -> None:
    """Whatever each window says; no window is larger than asked, and none holds a document twice."""
    asked = []
    if count <= window:
        return

    async def judge(positions: Any) -> Any:
        assert len(positions) == len(set(positions)) <= window
        asked.append(positions)
        shuffled = random.Random(seed + len(asked)).sample(list(positions), len(positions))
        return [(position, 1.0 - place / len(shuffled)) for place, position in enumerate(shuffled)]

    ranked = run(rank(judge, range(count), window))
    assert sorted(position for position, _ in ranked) == list(range(count))
    strategy = "pivot" if rank is rank_by_pivot else "sliding"
    if strategy == "sliding":
        assert len(asked) == count_questions(count, window, strategy)


@pytest.mark.parametrize("rank", [rank_by_pivot, rank_by_sliding])
@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_judge_brings_the_best_ten_to_the_top(rank: Any, seed: int) -> None:
    """Of a hundred, wherever they stood."""
    relevance = random.Random(seed).sample(range(100), 100)

    async def judge(positions: Any) -> Any:
        return sorted(((at, relevance[at] / 100) for at in positions), key=lambda row: -row[1])

    ranked = [relevance[at] for at, _ in run(rank(judge, range(100), 20))]
    assert ranked[:10] == list(range(99, 89, -1))


def test_an_expected_grade_needs_probabilities_of_digits() -> None:
    """The mean of the digits, by their shares; anything else is an error that names the other mode."""
    assert expect_grade({"9": math.log(0.5), "0": math.log(0.5)}) == pytest.approx(0.5)
    assert expect_grade({"9": 0.0, " 9": -9.0, "high": -9.0}) == pytest.approx(1.0)
    for none in ({}, {"high": 0.0, "9": -3.0}, {"10": 0.0}, {"²": 0.0}):
        with pytest.raises(InvalidResponseError, match="mode='grades'"):
            expect_grade(none)
