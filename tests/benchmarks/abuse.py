"""Print what becomes of attacks on the library: attack, what must hold, what happened. POSIX only.

Each attack runs in a process of its own, against real services on loopback. With ``--minutes N`` a mixed load
runs instead, of threads, event loops, cancelled calls, forks and caches that die in cycles, while the service
fails: 5 % status 429, 2 % dropped connections, 1 % bodies of 3 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.loopback import Loopback, running, score
from support.providers import KEY, scorer_of
from support.scorers import Endless

from rerank_core import InvalidResponseError, Ranking, Reranker, RerankError, ScorerTimeoutError
from rerank_core.policies import Cached
from rerank_core.policies.caches import DiskCache
from rerank_core.testing import FakeScorer

TESTS = Path(__file__).parents[1]
QUERY = "find a memory leak"
RUNS = 40
TIMEOUT, GOAL = 0.2, 0.25
RATES = {"429": 0.05, "drop": 0.02, "huge": 0.01}
SECONDS_PER_ATTACK = 600
HUNG_SECONDS = 60.0

TESTED = {
    "4 lost answers, retries, hedges": ("the bill stays below the cap", "tools/batch/test_spending.py"),
    "5 web pages, slow and large bodies": ("refused", "tools/serve/test_serve.py"),
    "6 an index in the folder, damaged": ("rebuilt", "tools/corpus/test_index.py"),
    "7 files that take quadratic time": ("linear", "tools/corpus/test_chunks.py"),
    "8 ignored secrets": ("not read", "tools/corpus/test_files.py"),
    "9, 10 input and state rewritten": ("found, redone", "tools/batch/test_folder.py"),
    "11 kinds of strings, corrupt pages": ("found first", "tools/batch/test_parquet.py"),
    "12 escapes for the terminal": ("filtered", "tools/cli/test_cli.py -k steer"),
    "13 keys and texts repeated": ("never shown", "core/remote/test_secrets.py"),
    "14 damaged ONNX files": ("refused at once", "core/local/test_formats_onnx.py"),
    "14 damaged safetensors files": ("refused at once", "core/local/test_formats_safetensors.py"),
    "14 a model cache others may write": ("refused", "core/local/test_model_cache.py"),
    "15 waits of zero, answers with gaps": ("jitter; error", "core/remote/test_failures.py"),
}
"""Attacks that are tests already: what must hold, and the arguments of pytest."""


def peak_mib() -> float:
    """Return the most memory that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def caches_in_cycles() -> tuple[bool, str]:
    """Make 300 rerankers with caches that die in cycles."""
    with tempfile.TemporaryDirectory() as folder:
        before = threading.active_count()
        for number in range(300):
            reranker = Reranker(Cached(FakeScorer(), DiskCache(Path(folder) / "cache.db")), timeout=30.0)
            reranker.rerank(QUERY, [f"text {number}"])
            reranker.itself = reranker  # type: ignore[attr-defined]
        threads = threading.active_count() - before
    return threads <= 4, f"300 calls answered, {threads} more threads"


def bodies(**plan: int) -> tuple[bool, str]:
    """Send replies that are too large, through our client and both SDKs'."""
    outcomes = []
    with running() as loopback:
        scorers = [scorer_of(name, loopback) for name in ("jina", "cohere", "voyage")]
        loopback.plan()
        for scorer in scorers:
            Reranker(scorer).rerank(QUERY, ["a text"])
        before = peak_mib()
        loopback.plan(**plan)
        for scorer in scorers:
            try:
                Reranker(scorer).rerank(QUERY, ["a text"])
                outcomes.append("answered")
            except RerankError as exc:
                outcomes.append(type(exc).__name__)
    more = peak_mib() - before
    return set(outcomes) == {"InvalidResponseError"} and more < 50, f"{', '.join(outcomes)}; {more:.0f} MiB more"


def neighbour(documents: int, per_request: int | None, **plan: object) -> tuple[bool, str]:
    """Measure a deadline of 0.2 s while a huge call is under way, and while none is."""
    texts = [f"text number {number} about memory" for number in range(documents)]
    small = Reranker(Endless(), timeout=TIMEOUT, on_error="passthrough")

    def seconds() -> float:
        began = time.perf_counter()
        assert isinstance(small.rerank(QUERY, ["a", "b"]).error, ScorerTimeoutError)
        return time.perf_counter() - began

    alone = sorted(seconds() for _ in range(RUNS))
    with running() as loopback:
        large = Reranker(scorer_of("jina", loopback, documents_per_request=per_request, timeout=60.0))
        large.rerank(QUERY, texts[:10])
        loopback.plan(record=False, flat=True, **plan)
        ended = threading.Event()
        calls = 0

        def call() -> None:
            nonlocal calls
            while not ended.is_set():
                with contextlib.suppress(InvalidResponseError):
                    large.rerank(QUERY, texts)
                calls += 1

        thread = threading.Thread(target=call)
        thread.start()
        beside = sorted(seconds() for _ in range(RUNS))
        ended.set()
        thread.join()
    within = sum(second <= GOAL for second in beside)
    return within == RUNS, (
        f"{within} of {RUNS} within {GOAL} s, last after {beside[-1]:.3f} s "
        f"({sum(second <= GOAL for second in alone)} and {alone[-1]:.3f} s without); {calls} large calls"
    )


def late_result() -> tuple[bool, str]:
    """Score on the loop for longer than the deadline."""

    class Blocking(FakeScorer):
        async def score(self, query: str, texts: object) -> object:  # type: ignore[override]
            time.sleep(0.3)  # noqa: ASYNC251 - that is the attack
            return await super().score(query, texts)  # type: ignore[arg-type]

    try:
        Reranker(Blocking(), timeout=0.1).rerank(QUERY, ["a"])
    except ScorerTimeoutError:
        return True, "ScorerTimeoutError"
    return False, "a result after the deadline"


ATTACKS: dict[str, tuple[str, Callable[[], tuple[bool, str]]]] = {
    "1 caches die in cycles": ("no call hangs, threads stay", caches_in_cycles),
    "2 a body of 200 MB": ("refused, < 50 MiB", lambda: bodies(padding=200_000_000)),
    "2 gzip of 200 MB": ("refused, < 50 MiB", lambda: bodies(padding=200_000_000, gzip=1)),
    "2 gzip in gzip of 200 MB": ("refused, < 50 MiB", lambda: bodies(padding=200_000_000, gzip=2)),
    "3 72 MB for 1,000 documents": ("neighbour ≤ 0.25 s", lambda: neighbour(1000, None, padding=72_000_000)),
    "3 400,000 documents": ("neighbour ≤ 0.25 s", lambda: neighbour(400_000, None)),
    "3 400,000 documents in a request": ("neighbour ≤ 0.25 s", lambda: neighbour(400_000, 400_000)),
    "3 a result after its deadline": ("a timeout", late_result),
}


def run_pytest(arguments: str) -> tuple[bool, str]:
    """Run tests, and return whether they passed and pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    path, *options = arguments.split()
    done = subprocess.run([*command, TESTS / path, *options], capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout.strip().splitlines() or ["nothing"])[-1]


def table(chosen: str) -> int:
    """Run every attack whose name begins with ``chosen``; return how many did not hold."""
    failed = 0
    print(f"{'':4}{'attack':38}{'must hold':30}what happened")
    for name in sorted({**ATTACKS, **TESTED}, key=lambda name: (int(name.split()[0].rstrip(",")), name)):
        if not name.startswith(chosen):
            continue
        wanted = {**ATTACKS, **TESTED}[name][0]
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--attack", name],
                capture_output=True,
                text=True,
                timeout=SECONDS_PER_ATTACK,
                check=False,
            )
            held, happened = done.returncode == 0, (done.stdout or done.stderr).strip().splitlines()[-1]
        except subprocess.TimeoutExpired:
            held, happened = False, f"hung for {SECONDS_PER_ATTACK} s"
        failed += not held
        print(f"{'ok' if held else 'NO':4}{name:38}{wanted:30}{happened}", flush=True)
    return failed


class Soak:
    """A mixed load, and what became of its calls."""

    def __init__(self, loopback: Loopback, folder: Path, seconds: float) -> None:
        self.loopback = loopback
        self.folder = folder
        self.ends = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.active: dict[int, float] = {}
        self.dice = random.Random(0)
        self.rerankers = [
            Reranker(scorer_of(name, loopback), timeout=50.0) for name in ("jina", "cohere", "voyage")
        ]

    def texts(self) -> list[str]:
        """Return some texts that no call had before."""
        number = self.dice.random()
        return [
            f"{number} document {index} {'leak ' * (index % 3)}" for index in range(self.dice.choice([2, 30, 150]))
        ]

    def is_going_on(self) -> bool:
        """Whether the load goes on."""
        return time.monotonic() < self.ends

    @contextlib.contextmanager
    def counted(self, kind: str) -> Iterator[None]:
        """Count a call that ends in whatever way it may, or does not end."""
        key = self.counts["calls"]
        self.counts["calls"] += 1
        self.counts[kind] += 1
        self.active[key] = time.monotonic()
        try:
            yield
        except InvalidResponseError as exc:
            self.counts["refused" if "larger than" in str(exc) else "lost"] += 1
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
        except Exception as exc:
            self.counts["lost"] += 1
            print(f"lost in {kind}: {exc!r}", flush=True)
        finally:
            self.counts["slow"] += time.monotonic() - self.active.pop(key) > HUNG_SECONDS

    def check(self, texts: list[str], ranking: Ranking[str]) -> None:
        """Count an answer that is wrong."""
        right = [score(QUERY, text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -right[index])
        close = all(abs(got - wanted) < 1e-9 for got, wanted in zip(ranking.scores, right, strict=True))
        self.counts["wrong"] += not (close and [ranked.index for ranked in ranking] == order)

    def from_threads(self) -> None:
        """Call from a thread, until the end."""
        while self.is_going_on():
            texts = self.texts()
            with self.counted("threads"):
                self.check(texts, self.dice.choice(self.rerankers).rerank(QUERY, texts))

    def from_loops(self) -> None:
        """Call from one event loop after another, and cancel a fifth of the calls."""

        async def call(reranker: Reranker) -> None:
            texts = self.texts()
            with self.counted("loops"):
                self.check(texts, await reranker.arerank(QUERY, texts))

        async def some() -> None:
            tasks = [asyncio.create_task(call(self.dice.choice(self.rerankers))) for _ in range(10)]
            await asyncio.sleep(self.dice.random() * 0.05)
            for task in tasks[:2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        while self.is_going_on():
            asyncio.run(some())

    def with_caches(self) -> None:
        """Make rerankers with caches that die in cycles."""
        while self.is_going_on():
            texts = self.texts()
            with self.counted("caches"):
                cached = Reranker(
                    Cached(self.rerankers[0].scorer, DiskCache(self.folder / "cache.db")), timeout=50.0
                )
                cached.itself = cached  # type: ignore[attr-defined]
                self.check(texts, cached.rerank(QUERY, texts))

    def fork(self) -> None:
        """Let a child call once."""
        with self.counted("forks"):
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    texts = self.texts()
                    try:
                        ranking = self.rerankers[0].rerank(QUERY, texts)
                        code = 0 if len(ranking) == len(texts) else 2
                    except InvalidResponseError:
                        code = 0
                os._exit(code)
            until = time.monotonic() + HUNG_SECONDS
            while time.monotonic() < until:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    if status:
                        raise RuntimeError(f"a child ended with {status}")
                    return
                time.sleep(0.02)
            os.kill(child, 9)
            os.waitpid(child, 0)
            self.counts["hung"] += 1

    def resources(self) -> str:
        """Return what this process holds."""
        gc.collect()
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
        return (
            f"{len(os.listdir('/proc/self/fd'))} descriptors, {threading.active_count()} threads, {memory:.0f} MiB"
        )

    def run(self) -> int:
        """Print the figures; return how many calls were wrong, hung or lost."""
        for reranker in self.rerankers:  # a child must not be forked while a thread imports an SDK
            reranker.warm_up()
            with contextlib.suppress(InvalidResponseError):
                reranker.rerank(QUERY, ["a text"])
        workers = [*[self.from_threads] * 6, *[self.from_loops] * 2, self.with_caches]
        threads = [threading.Thread(target=worker, daemon=True) for worker in workers]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        seconds = self.ends - started
        moments = [("start", seconds * 0.1), ("middle", seconds * 0.5), ("end", seconds * 0.95)]
        while self.is_going_on():
            self.fork()
            if moments and time.monotonic() - started > moments[0][1]:
                print(f"{moments.pop(0)[0]:8}{self.resources()}", flush=True)
            time.sleep(1.0)
        for thread in threads:
            thread.join(HUNG_SECONDS)
        self.counts["hung"] += len(self.active)
        print(dict(sorted(self.counts.items())))
        bad = {name: self.counts[name] for name in ("wrong", "hung", "slow", "lost")}
        print(bad)
        return sum(bad.values())


def main() -> int:
    """Print the table, or run the load; exits with 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="run the mixed load instead, for so long")
    parser.add_argument("--only", default="", help="attacks whose names begin with this")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.attack:
        if given.attack in TESTED:
            held, happened = run_pytest(TESTED[given.attack][1])
        else:
            held, happened = ATTACKS[given.attack][1]()
        print(happened.replace(KEY, "KEY"))
        return not held
    if given.minutes is None:
        return bool(table(given.only))
    with running() as loopback, tempfile.TemporaryDirectory() as folder:
        loopback.plan(rates=RATES, record=False)
        return bool(Soak(loopback, Path(folder), given.minutes * 60).run())


if __name__ == "__main__":
    sys.exit(main())
