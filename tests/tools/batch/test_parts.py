"""The pieces of a batch by themselves: the spending cap, what rows cost, the folder, the options."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from support.batches import some_rows, write_rows
from support.providers import KEY

from rerank_core import ConfigurationError, MissingExtraError, Scorer, Selection, load_scorer
from rerank_core.policies import Cached, Cascade, Fallback, Windowed
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, rerank_dataset, rerank_file
from rerank_tools.batch.cost import SpendingCap, max_tokens, row_cost
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.ray.worker import LimiterActor, prepare_scorer
from rerank_tools.batch.rows import Outcome
from rerank_tools.batch.sources import open_source


def cohere(**options: Any) -> Scorer:
    """Return a scorer that costs $0.002 a hundred candidates."""
    return load_scorer("cohere:rerank-v3.5", api_key=KEY, **options)


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


async def test_leases_of_a_dead_worker_end() -> None:
    """So do those that were given up while they waited; whoever lives keeps its own."""
    limiter = LimiterActor({"concurrency": 2}, seconds_until_dead=0.2)
    await limiter.acquire("dead", "lease 1", 1)
    await limiter.acquire("alive", "lease 2", 1)
    given_up = asyncio.ensure_future(limiter.acquire("alive", "lease 3", 1))
    await asyncio.sleep(0)
    await limiter.release("lease 3")
    waiting = asyncio.ensure_future(limiter.acquire("alive", "lease 4", 1))
    for _ in range(3):
        await asyncio.sleep(0.05)
        await limiter.give_sign("alive")
    assert not waiting.done()
    while not waiting.done():
        await asyncio.sleep(0.02)
        await limiter.give_sign("alive")
    await given_up
    fifth = asyncio.ensure_future(limiter.acquire("alive", "lease 5", 1))
    await asyncio.sleep(0.05)
    assert not fifth.done()
    for lease in ("lease 1", "lease 2", "lease 4", "unknown"):
        await limiter.release(lease)
    await asyncio.wait_for(fifth, 20)
    await limiter.pause(0.0)
    await limiter.release("lease 5")


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
    assert row_cost(Windowed(cohere()), "query", texts) is None
    assert row_cost(Fallback([cohere(), FakeScorer()]), "query", texts) is None
    assert row_cost(load_scorer("http:http://127.0.0.1:9"), "query", texts) is None


def test_no_text_has_more_tokens_than_the_bound() -> None:
    """A byte makes one token at most."""
    assert max_tokens("a") >= 1
    assert max_tokens("日本") >= 6


def test_a_part_that_another_process_has_written_is_left_alone(tmp_path: Path) -> None:
    """Its journal and its lock are gone."""
    options = BatchOptions(FakeScorer())
    source = open_source(write_rows(tmp_path / "in.jsonl", some_rows(1)), options)
    folder = BatchFolder(tmp_path / "out", source, options.fingerprint_options(), rows_per_part=1)
    journal = folder.open_part(0)
    assert journal is not None
    journal.add(Outcome(0, [0], [0.5]))
    folder.write_part(0, b"{}\n", journal)
    journal.close()
    assert os.listdir(tmp_path / "out" / "state") == ["part-00000.done"]
    assert folder.open_part(0) is None
    assert folder.load_part(0).is_written


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


def test_a_cap_needs_a_price(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "in.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match="max_cost is given, and no price is known for fake"):
        rerank_file(tmp_path / "in.jsonl", tmp_path / "out", BatchOptions(FakeScorer(), max_cost=1.0))


def test_without_ray_one_process_runs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning where more were asked for; who insists on Ray is told what to install."""
    monkeypatch.setattr("importlib.util.find_spec", _nothing_found)
    monkeypatch.setattr("rerank_tools.batch.options.find_spec", _nothing_found)
    fake = FakeScorer()
    assert BatchOptions(fake, workers=4).choose_engine() == "process"
    assert "workers=4 needs Ray, which is not installed" in caplog.text
    with pytest.raises(MissingExtraError, match=r"rerank-bridge\[ray\]"):
        BatchOptions(fake, engine="ray").choose_engine()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"rerank_dataset needs the package 'ray'"):
        rerank_dataset(Any)  # type: ignore[arg-type]


def _nothing_found(name: str) -> None:
    return None


def test_with_ray_the_workers_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker is this process, more are Ray, unless the engine is named."""
    monkeypatch.setattr("rerank_tools.batch.options.find_spec", lambda name: name)
    fake = FakeScorer()
    assert BatchOptions(fake).choose_engine() == "process"
    assert BatchOptions(fake, workers=2).choose_engine() == "ray"
    assert BatchOptions(fake, workers=2, engine="process").choose_engine() == "process"


def test_a_worker_gives_local_models_its_cores() -> None:
    """Inside a policy too; a number that was given stays."""
    assert prepare_scorer(load_scorer("embedded"), threads=3).options.threads == 3  # type: ignore[attr-defined]
    assert prepare_scorer(load_scorer("embedded", threads=1), threads=3).options.threads == 1  # type: ignore[attr-defined]
    policy = prepare_scorer(Fallback(["embedded", FakeScorer()]), threads=2)
    assert policy.scorers[0].options.threads == 2  # type: ignore[attr-defined]


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
    assert BatchOptions(cohere(), selection=Selection(top_n=3)).fingerprint_options() == first
