"""A mixed load: threads, event loops, cancelled calls, forks, caches that die in cycles, faults. POSIX only."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from support.loopback import Loopback, score
from support.providers import scorer_of

from rerank_core import InvalidResponseError, Ranking, Reranker
from rerank_core._call import event_loop
from rerank_core.policies import Cached
from rerank_core.policies.caches import DiskCache

__all__ = ["Soak"]

RATES = {"429": 0.05, "drop": 0.02, "huge": 0.01}
QUERY = "find a memory leak"
PROVIDERS = ("jina", "cohere", "voyage")
TIMEOUT = 50.0
SLOW_SECONDS, HUNG_SECONDS = 10.0, 60.0
SAMPLES = 20


class Soak:
    """A mixed load on a service that fails now and then, and what became of its calls.

    Args:
        loopback: the service.
        folder: for the cache.
        seconds: how long it lasts.
    """

    def __init__(self, loopback: Loopback, folder: Path, seconds: float) -> None:
        loopback.plan(rates=RATES, record=False)
        self.folder = folder
        self.seconds = seconds
        self.ends = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.numbers = count()
        self.active: dict[int, tuple[float, str]] = {}
        self.dice = random.Random(0)
        self.rerankers = [Reranker(scorer_of(name, loopback), timeout=TIMEOUT) for name in PROVIDERS]

    def run(self) -> int:
        """Print the figures; return how many calls were wrong, hung, slow or lost."""
        for reranker in self.rerankers:  # a child must not be forked while a thread imports an SDK
            reranker.warm_up()
            with contextlib.suppress(InvalidResponseError):
                reranker.rerank(QUERY, ["a text"])
        workers = [*[self.from_threads] * 6, *[self.from_loops] * 2, self.with_caches]
        threads = [threading.Thread(target=worker, daemon=True) for worker in workers]
        for thread in [*threads, threading.Thread(target=self.watch, daemon=True)]:
            thread.start()
        began = time.monotonic()
        samples: list[tuple[float, int, float]] = []
        while self.is_going_on():
            self.fork()
            minutes = (time.monotonic() - began) / 60
            if minutes * 60 > self.seconds * (len(samples) + 1) / (SAMPLES + 1):
                samples.append((minutes, *_resources()))
                print(f"{minutes:5.1f} min {samples[-1][1]:4} descriptors {samples[-1][2]:6.1f} MiB", flush=True)
            time.sleep(1.0)
        for thread in threads:
            thread.join(HUNG_SECONDS)
        self.counts["hung"] += len(self.active)
        if len(samples) > 1:
            minutes_, *values = zip(*samples, strict=True)
            for name, of_name in zip(("descriptors", "MiB"), values, strict=True):
                slope = statistics.linear_regression(minutes_, of_name).slope
                print(f"{name}: first {of_name[0]:.0f}, last {of_name[-1]:.0f}, {slope:+.2f} a minute")
        print(dict(sorted(self.counts.items())))
        bad = {name: self.counts[name] for name in ("wrong", "hung", "slow", "lost")}
        print(bad)
        return sum(bad.values())

    def is_going_on(self) -> bool:
        """Whether the load goes on."""
        return time.monotonic() < self.ends

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
                cache = DiskCache(self.folder / "cache.db", max_bytes=2**22)
                cached = Reranker(Cached(self.rerankers[0].scorer, cache), timeout=TIMEOUT)
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
                        code = 0 if len(self.rerankers[0].rerank(QUERY, texts)) == len(texts) else 2
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
            self.add("hung")

    def texts(self) -> list[str]:
        """Return some texts that no call had before."""
        number = self.dice.random()
        many = self.dice.choice([2, 30, 150])
        return [f"{number} document {index} {'leak ' * (index % 3)}" for index in range(many)]

    def check(self, texts: list[str], ranking: Ranking[str]) -> None:
        """Count an answer that is wrong."""
        right = [score(QUERY, text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -right[index])
        close = all(abs(got - wanted) < 1e-9 for got, wanted in zip(ranking.scores, right, strict=True))
        if not (close and [ranked.index for ranked in ranking] == order):
            self.add("wrong")

    def add(self, *names: str) -> None:
        """Count one more of each."""
        with self.counting:
            self.counts.update(names)

    @contextlib.contextmanager
    def counted(self, kind: str) -> Iterator[None]:
        """Count a call that ends in whatever way it may, or does not end."""
        key = next(self.numbers)
        self.add("calls", kind)
        self.active[key] = time.monotonic(), kind
        try:
            yield
        except InvalidResponseError as exc:
            self.add("refused" if "larger than" in str(exc) else "lost")
        except asyncio.CancelledError:
            self.add("cancelled")
        except Exception as exc:
            self.add("lost")
            print(f"lost in {kind}: {exc!r}", flush=True)
        finally:
            if time.monotonic() - self.active.pop(key)[0] > HUNG_SECONDS:
                self.add("slow")

    def watch(self) -> None:
        """Say once in a while what the background loop and the limiters do, when a call takes long."""
        while self.is_going_on():
            time.sleep(1.0)
            began, kind = min(list(self.active.values()), default=(time.monotonic(), ""))
            oldest = time.monotonic() - began
            if oldest > SLOW_SECONDS:
                print(f"a call of {kind} takes {oldest:.0f} s already, of {len(self.active)}", flush=True)
                _print_state(self.rerankers)
                time.sleep(30.0)


def _resources() -> tuple[int, float]:
    """Return how many descriptors and how many MiB this process holds."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return len(os.listdir("/proc/self/fd")), resident * os.sysconf("SC_PAGE_SIZE") / 2**20


def _print_state(rerankers: list[Reranker]) -> None:
    """Print what the tasks of the background loop wait for, and the free slots of each scorer."""
    for reranker in rerankers:
        limiter: Any = reranker.scorer._session.limiter  # type: ignore[attr-defined]
        free, queue = limiter._slots.value, limiter._slots.statistics().tasks_waiting
        print(f"  {reranker.scorer.name}: {free} slots free, {queue} wait; {limiter._turn.statistics()}")
    loop = event_loop._background._loop
    waiting = Counter(_innermost(task.get_coro()) for task in asyncio.all_tasks(loop))
    for place, tasks in waiting.most_common():
        print(f"  {tasks:4} × {place}", flush=True)


def _innermost(coroutine: Any) -> str:
    """Return the last places of a coroutine's stack."""
    places: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return " > ".join(places[-6:])
