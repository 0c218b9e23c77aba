"""Objects that are collected at the worst moment: nothing hangs, and what they held is cleaned up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.scripts import run_script

import rerank_core

SHARED = Path(rerank_core.__file__).parents[1]


def test_rerankers_with_caches_die_in_cycles(tmp_path: Path) -> None:
    """A reranker for each request, kept alive by a cycle until the collector runs, wherever that is."""
    output = run_script(
        """
        import sys, threading, time
        from rerank_core import Reranker
        from rerank_core.policies import Cached
        from rerank_core.policies.caches import DiskCache
        from rerank_core.testing import FakeScorer

        for number in range(1000):
            reranker = Reranker(Cached(FakeScorer(), DiskCache(sys.argv[1])), timeout=30.0)
            reranker.rerank("query", [f"text {number}"])
            reranker.itself = reranker
            if number == 10:
                few = threading.active_count()
        print(threading.active_count() <= few + 2)
        """,
        str(tmp_path / "cache.db"),
        timeout=60,
    )
    assert output.split() == ["True"]


def test_collecting_at_every_line_hangs_nothing(tmp_path: Path) -> None:
    """Within ``submit``, ``put`` and ``call_soon_threadsafe``, while they hold locks: caches, engines, clients."""
    output = run_script(
        """
        import asyncio, gc, queue, sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from rerank_core import Reranker, load_scorer
        from rerank_core._call import event_loop
        from rerank_core.local.engine import Engine
        from rerank_core.policies import Cached
        from rerank_core.policies.caches import DiskCache
        from rerank_core.testing import FakeScorer

        def cache(number):
            reranker = Reranker(Cached(FakeScorer(), DiskCache(f"{sys.argv[1]}/{number}.db")))
            reranker.rerank("query", ["text"])
            return reranker

        def client(number):
            reranker = Reranker(load_scorer("tei:http://127.0.0.1:9"))
            reranker.warm_up()
            return reranker

        def engine(number):
            engine = Engine(object, 64)

            async def start():
                engine._owner()

            event_loop.run(start())
            return engine

        def collect_one(frame, event, argument):
            collected.append(type(garbage.pop()))
            gc.collect()
            return collect_one

        async def nothing():
            return None

        pool, inbox, garbage, collected = ThreadPoolExecutor(4), queue.Queue(), [], []
        for make in (cache, client, engine):
            make("warm-up")
        pool.submit(int).result()
        gc.collect()
        gc.freeze()
        gc.disable()
        for number in range(250):
            garbage.append((cache, engine, client)[number % 3 if number % 10 == 2 else number % 2](number))
            garbage[-1].itself = garbage[-1]
        sys.settrace(collect_one)
        pool.submit(int)
        inbox.put(1)
        event_loop.run(nothing())
        sys.settrace(None)
        print(len(collected) > 60, len(garbage) > 0)
        """,
        str(tmp_path),
        timeout=90,
    )
    assert output.split() == ["True", "True"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_work_is_done_once_by_the_process_that_asked(tmp_path: Path) -> None:
    """After its owner was collected or at exit, and never by a forked child, which may ask for work of its own."""
    output = run_script(
        """
        import os, sys, time
        from rerank_core._call.reaper import clean_up_after

        class Owner:
            pass

        def note(name):
            with open(sys.argv[1], "a", encoding="utf-8") as file:
                file.write(f"{name}\\n")

        def fail():
            raise ValueError("nobody sees this")

        early, late = Owner(), Owner()
        clean_up_after(early, fail)
        clean_up_after(early, note, "early")
        clean_up_after(late, note, "late")
        child = os.fork()
        if child == 0:
            del early
            own = Owner()
            clean_up_after(own, note, "child")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        del early
        while "early" not in open(sys.argv[1], encoding="utf-8").read():
            time.sleep(0.001)
        """,
        str(tmp_path / "notes"),
    )
    assert output == ""
    assert (tmp_path / "notes").read_text(encoding="utf-8").split() == ["child", "early", "late"]


def test_finalizers_only_fill_a_queue() -> None:
    """No ``__del__`` anywhere, and ``weakref.finalize`` only where it calls the put of a SimpleQueue."""
    found = []
    for path in sorted(SHARED.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "__del__":
                found.append(f"{path.name}: __del__")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "weakref.finalize":
                found.append(f"{path.name}: {ast.unparse(node.args[1])}")
    assert found == ["reaper.py: self._collected.put", "engine.py: self._worker.inbox.put"]
