"""The spending cap against a service that bills: whatever goes wrong, its own bill never exceeds the cap."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.batches import some_rows, write_rows
from support.loopback import Loopback
from support.providers import scorer_of

from rerank_core import AuthenticationError, Scorer
from rerank_core.policies import Cached, Cascade, Fallback, Hedged, Windowed
from rerank_tools.batch import BatchOptions, plan_file, rerank_file

SCHEDULES = 100
UNIT = 0.002
"""US dollars of a search unit."""
PRICES = {"any-model": {"per_1k_search_units": UNIT * 1e3}}
TOKEN = 5e-5
"""US dollars; dear, so that tokens count."""
FAULTS = ["drop", "cut-body", "429", "503", "500", "html-502", "truncated-json", "missing-result", "usage-missing"]


@pytest.fixture(autouse=True)
def _quick_and_healthy(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Repeat without waiting, and leave the service as it was found."""
    monkeypatch.setattr("rerank_core.remote.sending._backoff", lambda attempt: 0.0)
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


@pytest.mark.timeout(600)
def test_the_bill_never_exceeds_the_cap(loopback: Loopback, tmp_path: Path) -> None:
    """In 100 random schedules of faults, retries, hedges, windows, time limits and resumed runs."""
    # Texts of one letter have about as many tokens as we must assume at most.
    short = [{"query": letter, "documents": list("fghij")} for letter in "abcde"]
    sources = {
        "search_units": write_rows(tmp_path / "long.jsonl", some_rows(5, 5)),
        "tokens": write_rows(tmp_path / "short.jsonl", short),
    }
    finished = stopped = 0
    caps: dict[str, tuple[float, str, float]] = {}
    for seed in range(SCHEDULES):
        dice = random.Random(seed)
        unit, dollars, option = dice.choice(
            [("search_units", UNIT, "per_1k_search_units"), ("tokens", TOKEN, "per_1m_tokens")]
        )
        scorer = scorer_of(
            "http",
            loopback,
            f"model-{seed}",
            prices={f"model-{seed}": {option: dollars * (1e3 if unit == "search_units" else 1e6)}},
            max_retries=dice.choice([0, 1, 2]),
            timeout=dice.choice([0.02, 0.1, 20.0]),
        )
        rates = {fault: dice.choice([0.0, 0.0, 0.1, 0.3]) for fault in dice.sample(FAULTS, 4)}
        loopback.plan(rates=rates, seed=seed, delay=dice.choice([0.0, 0.004, 0.03]), record=False)
        cap = dice.choice([0, 1, 2, 3, 5, 30]) * UNIT
        limit = dice.choice([None, 0.05])
        options = BatchOptions(policy(dice, scorer), rows_per_part=4, rows_at_once=3, timeout=limit, max_cost=cap)
        for _ in range(dice.choice([1, 2])):
            report = rerank_file(sources[unit], tmp_path / f"out-{seed}", options)
        caps[f"model-{seed}"] = cap, unit, dollars
        finished += report.finished
        stopped += report.stopped is not None
    assert min(finished, stopped) > SCHEDULES / 20  # on a busy machine, many rows take too long
    bills = loopback.stats()["bills"]
    for name, (cap, unit, dollars) in caps.items():
        assert bills.get(name, {}).get(unit, 0) * dollars <= cap + 1e-9, (name, cap, bills[name])


def test_rows_of_a_run_that_ended_count(loopback: Loopback, tmp_path: Path) -> None:
    """A refused key ends the run; the requests that were under way may be billed, and count from then on."""
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(8)), tmp_path / "out"
    options = BatchOptions(scorer_of("http", loopback, prices=PRICES, max_retries=0), max_cost=8 * UNIT)
    loopback.plan(faults=["401", *[None] * 7], delays=[1.0, *[30.0] * 7])
    with pytest.raises(AuthenticationError):
        rerank_file(source, output, options)
    sent = loopback.stats()["counts"]["requests"]
    assert plan_file(source, output, options).spent == pytest.approx((sent - 1) * UNIT)
    loopback.plan()
    report = rerank_file(source, output, options)
    assert report.finished == 8 - (sent - 1)
    assert report.stopped is not None


def test_rows_of_a_run_that_was_killed_count(loopback: Loopback, tmp_path: Path) -> None:
    """At the most that they may have cost, because nobody wrote down what became of them."""
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(8)), tmp_path / "out"
    loopback.plan(delays=[0.0, 0.0, *[30.0] * 6])
    script = """
        import os, signal, sys, threading
        from rerank_core import load_scorer
        from rerank_tools.batch import BatchOptions, plan_file, rerank_file
        url, source, output = sys.argv[1:4]
        scorer = load_scorer("http:any-model", base_url=url, prices={"any-model": {"per_1k_search_units": 2.0}})
        options = BatchOptions(scorer, max_cost=1.0, rows_at_once=3)
        threading.Thread(target=rerank_file, args=(source, output, options), daemon=True).start()
        input()
        os.kill(os.getpid(), signal.SIGKILL)
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), loopback.url("http"), str(source), str(output)],
        stdin=subprocess.PIPE,
    )
    while loopback.stats()["counts"].get("requests", 0) < 5:
        time.sleep(0.01)
    process.communicate(b"\n")
    loopback.plan()
    # Two rows cost a unit each, three that were under way perhaps five, and five must be left before the last one.
    for units, finished in ((2 + 15 + 5 + 4, 7), (2 + 15 + 5 + 5, 8)):
        options = BatchOptions(scorer_of("http", loopback, prices=PRICES), max_cost=units * UNIT)
        report = rerank_file(source, output, options)
        assert report.finished == finished
        assert (report.stopped is None) == (finished == 8)
        assert finished == 8 or "0.014 US dollars are spent (and perhaps 0.03 more)" in str(report.stopped)
