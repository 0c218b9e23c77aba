"""Whose items run next, in a model that takes as long as it has padded tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.local.scheduler import Schedule, batch_end

BUDGET = 1024
QUANTUM = 8 * BUDGET
BATCH_COST = 16
"""Tokens that beginning a batch costs, measured."""


@dataclass(eq=False)
class Call:
    """A call's lengths, and what became of it; items without tokens need no model."""

    lengths: Sequence[int]
    arrival: int = 0
    outputs: list[int] = field(default_factory=list)
    end: int | None = None
    encoded: int = 0
    wanted: bool = True


@dataclass
class Run:
    """What a model has done: the padded tokens of its batches, and those with what their beginnings cost."""

    tokens: int = 0
    batches: list[list[tuple[Call, int]]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """Tokens, and what beginning batches costs in tokens."""
        return self.tokens + BATCH_COST * len(self.batches)


def encode(call: Call, start: int, stop: int) -> list[tuple[int, range]]:
    """Return items whose length is that of the texts."""
    call.encoded = stop
    return [(index, range(call.lengths[index])) for index in range(start, stop) if call.lengths[index]]


def served(calls: Iterable[Call], *, then: Callable[[Run], None] = lambda _: None, budget: int = BUDGET) -> Run:
    """Run calls as the engine does, each from its arrival on, in tokens; ``then`` is called after each batch."""
    schedule: Schedule[Call] = Schedule(budget)
    to_come = sorted(calls, key=lambda call: call.arrival)
    run = Run()
    while to_come or len(schedule):
        while to_come and (to_come[0].arrival <= run.tokens or not len(schedule)):
            call = to_come.pop(0)
            schedule.add(call, len(call.lengths))
        for ended in schedule.prepare(encode):
            ended.end = run.tokens
        batch = schedule.next_batch()
        if batch:
            run.tokens += len(batch) * max(len(item) for _, _, item in batch)
            run.batches.append([(place.owner, len(item)) for place, _, item in batch])
        for place, position, _ in batch:
            place.owner.outputs.append(position)
        for place in schedule:
            if place.is_exhausted:
                place.owner.end = run.tokens
        then(run)
        schedule.keep(lambda call: call.end is None and call.wanted)
    return run


def texts(count: int, seed: int = 0) -> list[int]:
    """Return lengths as those of query and passage: most near 100 tokens, some of 300."""
    chance = random.Random(seed)
    return [min(300, max(16, round(chance.lognormvariate(4.7, 0.5)))) for _ in range(count)]


def in_turns(calls: Sequence[Call]) -> float:
    """Return the mean time of completion where each call runs one batch and then it is the next one's turn."""
    left = [sorted(call.lengths, reverse=True) for call in calls]
    time, ends = 0, []
    while any(left):
        for lengths in filter(None, left):
            end = batch_end(lengths, 0, BUDGET)
            time += lengths[0] * end
            del lengths[:end]
            if not lengths:
                ends.append(time)
    return fmean(ends)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 300), max_size=40), st.integers(0, 3000)), min_size=1, max_size=8),
    st.integers(1, 600),
)
def test_each_item_runs_once_in_a_batch_within_the_budget(drawn: list[tuple[list[int], int]], budget: int) -> None:
    """Whoever calls, whenever; an item beyond the budget has a batch of its own, and padding is small."""
    calls = [Call(lengths, arrival) for lengths, arrival in drawn]
    run = served(calls, budget=budget)
    for call in calls:
        assert sorted(call.outputs) == [index for index, length in enumerate(call.lengths) if length]
        assert call.end is not None
    for batch in run.batches:
        lengths = [length for _, length in batch]
        assert len(batch) == 1 or len(batch) * max(lengths) <= budget
        assert len(batch) * max(lengths) - sum(lengths) <= budget // 64


@pytest.mark.parametrize("arrival", [0, 1, 5_000, 70_000, 3_000_000])
@pytest.mark.parametrize("lengths", [[300], [16], texts(20)])
def test_a_small_call_waits_for_a_quantum_of_a_large_one(lengths: list[int], arrival: int) -> None:
    """And for the batch under way, however much is left of 100,000 texts; its own work is extra."""
    large = Call(texts(100_000))
    small = Call(lengths, arrival)

    def stop(_: Run) -> None:
        large.wanted = small.end is None

    served([large, small], then=stop)
    assert small.end is not None
    # Its own batches are small ones: nothing of the large call makes them any longer.
    assert small.end - arrival <= QUANTUM + BUDGET + len(lengths) * max(lengths)


def test_the_end_of_a_large_call_makes_a_small_one_wait_for_two_quanta_at_most() -> None:
    """It keeps its turn where that ends it."""
    for count in range(50, 200, 10):
        large, small = Call(texts(count)), Call([100], 1)
        served([large, small])
        assert small.end is not None
        assert small.end - 1 <= 2 * QUANTUM + 2 * BUDGET + 100


def test_a_large_call_comes_on_beside_small_ones_without_end() -> None:
    """It has its quantum between them."""
    large = Call(texts(5_000))
    small = [Call(texts(20, seed), arrival) for seed, arrival in enumerate(range(0, 2_000_000, 5_000))]
    served([large, *small])
    assert large.end is not None
    assert large.end < 1_800_000
    assert max(call.end - call.arrival for call in small if call.end is not None) < 4 * QUANTUM


@pytest.mark.parametrize("order", [1, -1])
def test_callers_together_cost_as_much_as_one(order: int) -> None:
    """16 of 20 texts each as one of 320, in padded tokens and with what their batches cost."""
    lengths = sorted(texts(320)) if order < 0 else texts(320)
    together = served([Call(lengths[start : start + 20]) for start in range(0, 320, 20)])
    alone = served([Call(lengths)])
    assert together.tokens <= 1.1 * alone.tokens
    assert together.cost <= 1.1 * alone.cost


@pytest.mark.parametrize(("calls", "count"), [(64, 20), (16, 100), (32, 50), (64, 5)])
def test_equal_calls_end_in_order(calls: int, count: int) -> None:
    """Each as early as it can: on average after little more than half of the time that taking turns takes."""
    equal = [Call(texts(count)) for _ in range(calls)]
    run = served(equal)
    ends = [call.end for call in equal if call.end is not None]
    assert ends == sorted(ends)
    assert len(ends) == calls
    assert fmean(ends) <= 0.6 * run.tokens
    assert fmean(ends) <= 0.6 * in_turns(equal)


def test_different_calls_end_about_in_order() -> None:
    """Items that ride in another's batch do not delay those that came first by much."""
    calls = [Call(texts(20, seed)) for seed in range(64)]
    run = served(calls)
    ends = [call.end for call in calls if call.end is not None]
    assert fmean(ends) <= 0.6 * run.tokens
    assert fmean(ends) <= 0.6 * in_turns(calls)


def test_calls_that_are_not_kept_never_run_again() -> None:
    """From the next batch on."""
    calls = [Call(texts(200, seed)) for seed in range(4)]
    dropped: dict[int, int] = {}

    def drop(run: Run) -> None:
        if len(run.batches) % 10 == 0 and len(run.batches) // 10 <= 3:
            call = calls[len(run.batches) // 10]
            call.wanted = False
            dropped[id(call)] = len(run.batches)

    run = served(calls, then=drop)
    assert len(dropped) == 3
    for number, batch in enumerate(run.batches):
        assert all(number < dropped.get(id(call), len(run.batches)) for call, _ in batch)
    assert [call.end is None for call in calls] == [False, True, True, True]


def test_no_more_is_tokenised_than_the_next_batches_need() -> None:
    """One piece of a large call, however many calls wait behind it; memory stays bounded by that."""
    calls = [Call(texts(10_000, seed)) for seed in range(8)]
    seen: list[int] = []

    def look(run: Run) -> None:
        seen.append(sum(call.encoded - len(call.outputs) for call in calls))
        if len(run.batches) == 1:
            assert [call.encoded for call in calls] == [512] + [0] * 7
        for call in calls:
            call.wanted = len(run.batches) < 300

    served(calls, then=look)
    assert max(seen) <= 8 * 512


def test_a_call_whose_texts_need_no_model_does_not_hold_up_others() -> None:
    """It is looked through piece by piece, between the others' batches."""
    known, small = Call([0] * 100_000), Call([100] * 10)
    served([known, small])
    assert small.end == 1000
    assert known.encoded == 100_000


LENGTHS = st.lists(st.integers(0, 600), min_size=1, max_size=50).map(lambda lengths: sorted(lengths, reverse=True))


@given(LENGTHS, st.integers(1, 2000))
def test_batches_cover_everything_within_the_budget(lengths: list[int], budget: int) -> None:
    """Batch after batch takes each sequence once; a batch over the budget holds one sequence."""
    start = 0
    while start < len(lengths):
        end = batch_end(lengths, start, budget)
        assert start < end <= len(lengths)
        assert end - start == 1 or lengths[start] * (end - start) <= budget
        start = end


@given(LENGTHS, st.integers(1, 2000))
def test_a_batch_takes_as_many_as_pay(lengths: list[int], budget: int) -> None:
    """One more sequence would burst the budget or cost more padding than another batch, unless none is left."""
    end = batch_end(lengths, 0, budget)
    longest = max(1, lengths[0])
    more = sum(longest - max(1, length) for length in lengths[: end + 1])
    assert end == len(lengths) or longest * (end + 1) > budget or more > budget // 64
    assert end == 1 or sum(longest - max(1, length) for length in lengths[:end]) <= budget // 64


def test_padding_costs_little_more_than_nothing() -> None:
    """Lengths of real texts, 16 to 256 tokens, are run with less than a tenth of padding and batch costs."""
    lengths = [round(256 * (1 - position / 105) ** 1.5) + 16 for position in range(100)]
    start = cost = 0
    while start < len(lengths):
        end = batch_end(lengths, start, 1024)
        cost += (end - start) * lengths[start] + 16
        start = end
    assert sum(lengths) < cost < 1.1 * sum(lengths)
