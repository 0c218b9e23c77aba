"""What only a process of its own shows: forked children, the interpreter's exit, the caches of other processes."""

from __future__ import annotations

import pytest
from support.scripts import run_script

RERANKER = """
import os, signal, sys, threading, time
from rerank_core import Reranker
from rerank_core.testing import FakeScorer

QUERY = "How to fix Python memory leak"
TEXTS = ["Memory leak in Python applications", "Python programming tutorial", "The weather in Paris is lovely."]
reranker = Reranker(FakeScorer() if sys.argv[1] == "fake" else sys.argv[1])

def same(one, other):
    return all(abs(left - right) < 0.02 for left, right in zip(one.scores, other.scores))
"""


@pytest.mark.parametrize("leave", ["os._exit(0 if ok else 3)", "sys.exit(0 if ok else 3)"])
@pytest.mark.parametrize("scorer", ["fake", "embedded"])
def test_a_forked_child_can_rerank(scorer: str, leave: str) -> None:
    """After its parent has, from a new loop and a new model; and the parent goes on."""
    output = run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        before = reranker.rerank(QUERY, TEXTS)
        child = os.fork()
        if child == 0:
            ok = same(before, reranker.rerank(QUERY, TEXTS))
            ok = ok and same(before, Reranker(reranker.scorer).rerank(QUERY, TEXTS))
            {leave}
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), same(before, reranker.rerank(QUERY, TEXTS)))
        """,
        scorer,
    )
    assert output.split() == ["0", "True"]


@pytest.mark.parametrize("scorer", ["fake", "embedded"])
def test_a_pool_of_forked_processes_can_rerank(scorer: str) -> None:
    """As a web server's or a data loader's workers do."""
    output = run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        import multiprocessing

        def work(number):
            return same(before, reranker.rerank(QUERY, TEXTS))

        before = reranker.rerank(QUERY, TEXTS)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(4)))
        process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(0 if work(0) else 3))
        process.start()
        process.join()
        print(process.exitcode)
        """,
        scorer,
    )
    assert output.split("\n")[:2] == ["[True, True, True, True]", "0"]


@pytest.mark.parametrize("scorer", ["fake", "embedded"])
def test_a_child_forked_while_a_call_is_under_way_can_rerank(scorer: str) -> None:
    """The parent's call ends as if nothing had happened; the child has nothing of it."""
    output = run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        before = reranker.rerank(QUERY, TEXTS)
        if sys.argv[1] == "fake":
            reranker.scorer.latency = 0.3
        many = [f"{{text}} {{number}}" for number in range(30) for text in TEXTS]
        results = []
        call = threading.Thread(target=lambda: results.append(reranker.rerank(QUERY, many)))
        call.start()
        time.sleep(0.1)
        child = os.fork()
        if child == 0:
            os._exit(0 if same(before, reranker.rerank(QUERY, TEXTS)) else 3)
        _, status = os.waitpid(child, 0)
        call.join()
        print(os.waitstatus_to_exitcode(status), len(results[0]))
        """,
        scorer,
    )
    assert output.split() == ["0", "90"]


@pytest.mark.parametrize("scorer", ["fake", "embedded"])
@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_exits_while_a_call_is_under_way(scorer: str, daemon: bool) -> None:
    """Without hanging or crashing: a daemon thread's call is cut off, another thread's is waited for."""
    output = run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        import atexit
        reranker.rerank(QUERY, TEXTS)
        if sys.argv[1] == "fake":
            reranker.scorer.latency = 1000 if {daemon} else 0.3
        many = [f"{{TEXTS[0]}} {{number}} " * 20 for number in range(5000 if {daemon} else 30)]
        done = []

        def work():
            try:
                done.append(len(reranker.rerank(QUERY, many)))
            except Exception as exc:
                done.append(type(exc).__name__)

        threading.Thread(target=work, daemon={daemon}).start()
        time.sleep(0.4)
        atexit.register(lambda: print(done, flush=True))
        """,
        scorer,
        timeout=60,
    )
    assert output.strip() == ("[]" if daemon else "[30]")


def test_the_interpreter_exits_while_a_model_is_being_loaded() -> None:
    """Nothing of it is waited for that could take long."""
    run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        threading.Thread(target=reranker.warm_up, daemon=True).start()
        time.sleep(0.05)
        """,
        "embedded",
    )


def test_the_interpreter_waits_until_a_model_is_dropped() -> None:
    """Native destructors must not be cut off: that aborts the process."""
    output = run_script(
        """
        import time
        from rerank_core._call import event_loop
        from rerank_core.local.engine import Engine, ModelJob

        class Model:
            def forward(self, items):
                return items

            def __del__(self):
                time.sleep(0.5)
                print("dropped", flush=True)

        class OneWord(ModelJob):
            count = 1

            def encode(self, model, start, stop):
                return [(0, "word")]

            def accept(self, position, output):
                print(output, flush=True)

        engine = Engine(Model, 100)
        event_loop.run(engine.run(OneWord()))
        del engine
        time.sleep(0.1)
        """
    )
    assert output.split() == ["word", "dropped"]


@pytest.mark.parametrize("scorer", ["fake", "embedded"])
def test_ctrl_c_ends_a_sync_call(scorer: str) -> None:
    """At once, with the exception that Python programs expect, and the interpreter exits after it."""
    output = run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        reranker.rerank(QUERY, TEXTS)
        if sys.argv[1] == "fake":
            reranker.scorer.latency = 1000
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            reranker.rerank(QUERY, [f"{{TEXTS[0]}} {{number}} " * 20 for number in range(5000)])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        scorer,
    )
    assert output.strip() == "interrupted"


def test_an_event_loop_that_is_shut_down_takes_its_calls_along() -> None:
    """As ``asyncio.run`` does with tasks that nobody awaited; the next loop finds the reranker as it was."""
    output = run_script(
        f"""
        {RERANKER.replace(chr(10), chr(10) + " " * 8)}
        import asyncio
        reranker.scorer.latency = 1000

        async def leave():
            calls = [asyncio.ensure_future(reranker.arerank(QUERY, TEXTS)) for _ in range(3)]
            while reranker.scorer.active < 3:
                await asyncio.sleep(0.001)
            leave.calls = calls

        asyncio.run(leave())
        print(reranker.scorer.active, [call.cancelled() for call in leave.calls])
        reranker.scorer.latency = 0
        print(len(asyncio.run(reranker.arerank(QUERY, TEXTS))))
        """,
        "fake",
    )
    assert output.split("\n")[:2] == ["0 [True, True, True]", "3"]


OPENVINO = """
import os, signal, sys, threading
import numpy as np, openvino
from openvino import opset13
from rerank_core.local.runtimes import OpenVinoSession

def session():
    x = opset13.parameter([-1, 4], np.float32, name="x")
    model = openvino.Model([opset13.relu(x)], [x])
    return OpenVinoSession(model, threads=1, precision="fp32")

def total(session):
    return session.run({"x": np.ones((2, 4), np.float32)})[0].sum()
"""


def test_ctrl_c_after_openvino_sessions_ended_in_any_order() -> None:
    """The signal's stack is OpenVINO's, and a core of its own for each session would have freed it."""
    pytest.importorskip("openvino")
    output = run_script(
        f"""
        {OPENVINO.replace(chr(10), chr(10) + " " * 8)}
        one, other = session(), session()
        del one
        del other
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert output.split() == ["interrupted"]


@pytest.mark.parametrize("used", ["", "print(total(session()), flush=True)"])
def test_a_forked_child_leaves_the_parents_openvino_alone(used: str) -> None:
    """It ends in time, whether or not it used OpenVINO itself; and the parent goes on."""
    pytest.importorskip("openvino")
    output = run_script(
        f"""
        {OPENVINO.replace(chr(10), chr(10) + " " * 8)}
        before = session()
        print(total(before), flush=True)
        child = os.fork()
        if child == 0:
            {used}
            sys.exit(3)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), total(before))
        """
    )
    assert output.split() == ["8.0", *(["8.0"] if used else []), "3", "8.0"]


def test_where_processes_are_not_forked_the_rest_works() -> None:
    """As on Windows."""
    output = run_script(
        """
        import os
        del os.register_at_fork
        from rerank_core import Reranker
        print(len(Reranker("embedded").rerank("leak", ["memory leak", "weather"])))
        """
    )
    assert output.split() == ["2"]
