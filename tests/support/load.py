"""A load of many calls at once on one reranker, each answer checked."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from support.loopback import Loopback, score
from support.providers import scorer_of

from rerank_core import Ranking, Reranker, RerankError

__all__ = ["Load", "LoadResult"]

RATES = {"429": 0.05, "drop": 0.02}
QUERY = "find a memory leak"


@dataclass(frozen=True)
class LoadResult:
    """What became of the calls; memory in MiB above what the process held before."""

    calls: int
    wrong: int
    lost: int
    retries: int
    seconds: float
    extra_memory: float


@dataclass
class Load:
    """Calls of a provider's scorer, while the service fails at the usual rates."""

    loopback: Loopback
    provider: str
    calls: int = 2000
    documents: int = 100

    def from_threads(self, threads: int = 32) -> LoadResult:
        """Call from many threads."""

        def run(reranker: Reranker) -> list[bool | None]:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(lambda number: self._call(reranker, number), range(self.calls)))

        return self._measured(run)

    def from_one_loop(self) -> LoadResult:
        """Begin all calls at once on one event loop."""

        async def all_calls(reranker: Reranker) -> list[bool | None]:
            return list(await asyncio.gather(*(self._acall(reranker, number) for number in range(self.calls))))

        return self._measured(lambda reranker: asyncio.run(all_calls(reranker)))

    def _measured(self, run: object) -> LoadResult:
        assert callable(run)
        self.loopback.plan(rates=RATES, record=False)
        with Reranker(scorer_of(self.provider, self.loopback)) as reranker:
            reranker.warm_up()
            with _PeakMemory() as memory:
                started = time.perf_counter()
                outcomes = run(reranker)
                seconds = time.perf_counter() - started
            usage = reranker.total_usage
        wrong, lost = outcomes.count(False), outcomes.count(None)
        return LoadResult(self.calls, wrong, lost, usage.retries, seconds, memory.extra)

    def _texts(self, number: int) -> list[str]:
        return [f"call {number} document {index} {'leak ' * (index % 3)}" for index in range(self.documents)]

    def _call(self, reranker: Reranker, number: int) -> bool | None:
        texts = self._texts(number)
        try:
            return self._right(texts, reranker.rerank(QUERY, texts))
        except RerankError:
            return None

    async def _acall(self, reranker: Reranker, number: int) -> bool | None:
        texts = self._texts(number)
        try:
            return self._right(texts, await reranker.arerank(QUERY, texts))
        except RerankError:
            return None

    def _right(self, texts: list[str], ranking: Ranking[str]) -> bool:
        scores = [score(QUERY, text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -scores[index])
        close = all(abs(got - wanted) < 1e-9 for got, wanted in zip(ranking.scores, scores, strict=True))
        return close and [ranked.index for ranked in ranking] == order


class _PeakMemory:
    """The most resident memory while it is entered, above what there was before, looked at every 20 ms."""

    def __enter__(self) -> _PeakMemory:
        self._before = self._peak = _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.extra = (max(self._peak, _resident()) - self._before) / 2**20


def _resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096
