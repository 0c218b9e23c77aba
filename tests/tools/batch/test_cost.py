"""What rows cost, and the cap on what a job spends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.providers import KEY

from rerank_core import ConfigurationError, Scored, Scorer, load_scorer
from rerank_core.policies import Cached, Cascade, Fallback, Hedged, Policy, Windowed
from rerank_core.reading import max_tokens
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, rerank_file
from rerank_tools.batch.cost import SpendingCap, row_cost


class Unknown(Policy):
    """A policy of somebody else, who may send anything."""

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Ask the first scorer."""
        return await self.scorer.score(query, texts)


def cohere(**options: Any) -> Scorer:
    """Return a scorer that costs $0.002 a hundred candidates."""
    return load_scorer("cohere:rerank-v3.5", api_key=KEY, **options)


def max_row_cost(scorer: Scorer, query: str, texts: list[str]) -> float | None:
    """Return what the cap reserves."""
    return row_cost(scorer, query, texts, max_tokens, with_repeats=True)


async def test_no_order_of_rows_spends_more_than_the_cap() -> None:
    """Rows that cost up to what was held back for them, forty at a time."""
    drawn = random.Random(0)
    cap = SpendingCap(1.0, {0: 0.2})
    spent, most = 0.2, 0.0

    async def row(number: int) -> bool:
        nonlocal spent, most
        bound = drawn.uniform(0.0, 0.1)
        if not await cap.reserve(number % 3, bound):
            return False
        await asyncio.sleep(drawn.uniform(0.0, 0.003))
        cost = bound * drawn.random()
        spent += cost
        most = max(most, spent)
        await cap.settle(number % 3, bound, cost)
        return True

    done = await asyncio.wait_for(asyncio.gather(*(row(number) for number in range(60))), 20)
    assert 0.8 < most <= 1.0
    assert any(done)
    assert not all(done)
    assert not await cap.reserve(0, 0.0)  # who was refused is not overtaken by a cheaper row


async def test_what_a_killed_worker_held_is_free_again() -> None:
    """Its part begins anew with what its journal says, and who waited goes on."""
    cap = SpendingCap(1.0, {})
    await cap.begin(7, 0.0)
    assert await cap.reserve(7, 0.9)
    waiting = asyncio.ensure_future(cap.reserve(8, 0.5))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await cap.begin(7, 0.3)
    assert await asyncio.wait_for(waiting, 20)
    waiting = asyncio.ensure_future(cap.reserve(8, 0.3))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await cap.settle(8, 0.5, 0.5)
    assert not await asyncio.wait_for(waiting, 20)


def test_bounds_of_the_cost() -> None:
    """By search units, by tokens, of policies, of local models, and of scorers without a price."""
    texts = [f"text {number}" for number in range(101)]
    assert row_cost(cohere(), "query", texts) == pytest.approx(0.004)
    assert row_cost(cohere(), "query", ["text", " ", "text"]) == pytest.approx(0.002)
    assert row_cost(cohere(), "query", []) == 0.0
    voyage = load_scorer("voyage:rerank-2.5", api_key=KEY)
    assert row_cost(voyage, "ab", ["abcd"], max_tokens) == pytest.approx((6 + 8) * 0.05 / 1e6)
    assert row_cost(Fallback([cohere(), cohere()]), "query", texts) == pytest.approx(0.008)
    assert row_cost(Cascade(["embedded", cohere()], keep=[9]), "query", texts) == pytest.approx(0.004)
    assert row_cost(Cached(cohere()), "query", texts) == pytest.approx(0.004)
    assert row_cost(Windowed("embedded"), "query", texts) == 0.0
    assert row_cost(Windowed(cohere()), "query", texts) == pytest.approx(0.004)
    assert row_cost(Windowed(cohere(), window=3), "query", ["one two three four five"] * 2) == pytest.approx(0.002)
    assert row_cost(Unknown("unknown", [cohere()]), "query", texts) is None
    assert row_cost(Fallback([cohere(), FakeScorer()]), "query", texts) is None
    assert row_cost(load_scorer("http:http://127.0.0.1:9"), "query", texts) is None


def test_the_most_that_can_be_billed() -> None:
    """Every request repeated, both of a hedge, all windows, and a token per byte."""
    once, twice = cohere(max_retries=0), cohere(max_retries=1)
    assert max_row_cost(once, "query", ["text"]) == pytest.approx(0.002)
    assert max_row_cost(twice, "query", ["text"]) == pytest.approx(0.004)
    assert max_row_cost(Cached(Hedged(twice)), "query", ["text"]) == pytest.approx(0.008)
    assert max_row_cost(Fallback([Hedged(once), twice, "embedded"]), "query", ["text"]) == pytest.approx(0.008)
    assert row_cost(Hedged(twice), "query", ["text"]) == pytest.approx(0.002)
    words = " ".join(f"w{number}" for number in range(2000))
    windows = Windowed(once, window=10, max_windows=1000)
    assert max_row_cost(windows, "query", [words]) > 3 * max_row_cost(once, "query", [words])  # type: ignore[operator]
    assert max_row_cost(Windowed("embedded"), "query", [words]) == 0.0
    assert max_row_cost(FakeScorer(), "query", ["text"]) is None


def test_no_text_has_more_tokens_than_the_bound() -> None:
    """A byte makes one token at most."""
    assert max_tokens("a") >= 1
    assert max_tokens("日本") >= 6


def test_a_cap_needs_a_price(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "in.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match="max_cost is given, and no price is known for fake"):
        rerank_file(tmp_path / "in.jsonl", tmp_path / "out", BatchOptions(FakeScorer(), max_cost=1.0))
