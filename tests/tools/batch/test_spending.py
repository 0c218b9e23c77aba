"""The spending cap against a service that bills: whatever goes wrong, its own bill never exceeds the cap."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.batches import some_rows, write_rows
from support.loopback import Loopback
from support.providers import scorer_of
from tenacity import wait_none

from rerank_core import Scorer
from rerank_core.policies import Cached, Cascade, Fallback, Hedged, Windowed
from rerank_tools.batch import BatchOptions, rerank_file

SCHEDULES = 200
UNIT = 0.002
"""US dollars of a search unit of cohere:rerank-v3.5."""
FAULTS = ["drop", "cut-body", "429", "503", "500", "html-502", "truncated-json", "missing-result", "usage-missing"]


@pytest.fixture(autouse=True)
def _quick_and_healthy(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Repeat without waiting, and leave the service as it was found."""
    monkeypatch.setattr("rerank_core.remote.scoring._backoff", wait_none())
    loopback.plan()
    yield
    loopback.plan()


def policy(dice: random.Random, scorer: Scorer) -> Scorer:
    """Return a scorer of some policies."""
    wraps = [
        lambda: scorer,
        lambda: Hedged(scorer, delay=0.001),
        lambda: Windowed(scorer, window=12, overlap=0.5),
        lambda: Fallback([scorer, scorer], timeout=0.02),
        lambda: Cached(Hedged(Cached(scorer), delay=0.005)),
        lambda: Windowed(Fallback([Hedged(scorer, delay=0.002), scorer]), window=20),
        lambda: Cascade([scorer, scorer], keep=[2]),
    ]
    return dice.choice(wraps)()


def test_the_bill_never_exceeds_the_cap(loopback: Loopback, tmp_path: Path) -> None:
    """In 200 random schedules of faults, retries, hedges, windows, time limits and resumed runs."""
    source = write_rows(tmp_path / "in.jsonl", some_rows(6, 5))
    finished = 0
    for seed in range(SCHEDULES):
        dice = random.Random(seed)
        priced = dice.choice(["cohere", "voyage"])
        prices = {"any-model": {"per_1k_search_units": 2.0} if priced == "cohere" else {"per_1m_tokens": 50.0}}
        scorer = scorer_of(
            "http",
            loopback,
            prices=prices,
            max_retries=dice.choice([0, 1, 2]),
            timeout=dice.choice([0.02, 0.1, 20.0]),
        )
        rates = {fault: dice.choice([0.0, 0.0, 0.1, 0.3]) for fault in dice.sample(FAULTS, 4)}
        loopback.plan(rates=rates, seed=seed, delay=dice.choice([0.0, 0.0, 0.004, 0.03]), record=False)
        cap = dice.choice([0.0, 1.0, 5.0, 30.0]) * UNIT
        options = BatchOptions(policy(dice, scorer), rows_per_part=4, rows_at_once=3, max_cost=cap)
        for _ in range(dice.choice([1, 2])):
            report = rerank_file(source, tmp_path / f"out-{seed}", options)
        counts = loopback.stats()["counts"]
        bill = (
            counts.get("billed_units", 0) * UNIT if priced == "cohere" else counts.get("billed_tokens", 0) * 5e-5
        )
        assert bill <= cap + 1e-9, (seed, bill, report)
        finished += report.finished
    assert finished > SCHEDULES
