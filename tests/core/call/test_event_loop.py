"""The background loop: two doors, and what happens when something pulls at them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
from support.scorers import Endless

from rerank_core import ConfigurationError, Reranker, ScorerUnavailableError
from rerank_core._call import event_loop
from rerank_core.testing import FakeScorer


async def where() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """Return the loop and the thread that a coroutine runs on."""
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), threading.current_thread()


async def fail(error: BaseException) -> None:
    """Raise an error on the loop."""
    await asyncio.sleep(0)
    raise error


def test_both_doors_lead_to_one_loop_on_a_thread_of_its_own() -> None:
    """A daemon thread, so that it never keeps the interpreter alive."""
    loop, thread = event_loop.run(where())
    assert asyncio.run(event_loop.arun(where())) == (loop, thread)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "rerank-core-loop"


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), ScorerUnavailableError("mine")])
def test_an_exception_comes_out_as_it_is(error: Exception) -> None:
    """The very object, by both doors."""
    with pytest.raises(type(error)) as caught:
        event_loop.run(fail(error))
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        asyncio.run(event_loop.arun(fail(error)))
    assert caught.value is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_not_even_an_exit_ends_the_loop(error: BaseException) -> None:
    """It reaches the caller, and the next call finds the loop running."""
    with pytest.raises(type(error)):
        event_loop.run(fail(error))
    assert event_loop.run(where())[1].is_alive()


def test_a_sync_call_on_the_loop_itself_is_refused() -> None:
    """It would wait for itself for ever."""

    async def inside() -> None:
        event_loop.run(where())

    with pytest.raises(ConfigurationError, match=r"rerank_core's own event loop \(inside a scorer\)"):
        event_loop.run(inside())


def test_an_async_call_on_the_loop_itself_stays_there() -> None:
    """A scorer made of scorers needs no second hop."""

    async def inside() -> Any:
        return await event_loop.arun(where())

    assert event_loop.run(inside()) == event_loop.run(where())


def test_an_interrupted_sync_call_cancels_its_work() -> None:
    """As Ctrl-C does in the main thread."""
    scorer = Endless()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def when_it_runs() -> None:
        while not scorer.active:
            stopped.wait(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)

    stopped = threading.Event()
    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=when_it_runs, daemon=True)
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Reranker(scorer).rerank("query", ["text"])
    finally:
        signal.signal(signal.SIGUSR1, before)
        watcher.join(10)
    event_loop.run(asyncio.sleep(0.001))
    assert scorer.active == 0


def test_after_a_fork_the_child_starts_afresh() -> None:
    """What the child's hook does: a new loop on a new thread, and the old one is not touched."""
    background = event_loop._BackgroundLoop("loop")
    loop, thread = background.run(where())
    background._abandon_after_fork()
    other_loop, other_thread = background.run(where())
    assert other_loop is not loop
    assert other_thread is not thread
    assert loop.is_running()
    event_loop._stop(loop, thread)
    event_loop._stop(other_loop, other_thread)


def test_stopping_cancels_what_runs_and_refuses_what_comes() -> None:
    """As at the interpreter's exit: waiting callers get an error at once, later ones too."""
    background = event_loop._BackgroundLoop("loop")
    scorer = Endless()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            background.run(scorer.score("query", ["text"]))
        except ScorerUnavailableError as exc:
            errors.append(exc)

    waiting = threading.Thread(target=call)
    waiting.start()
    _, thread = background.run(where())
    while not scorer.active:
        background.run(asyncio.sleep(0.001))
    event_loop._stop(background._running_loop(), thread)
    waiting.join(10)
    assert not thread.is_alive()
    assert "the event loop was stopped" in str(errors[0])
    with pytest.raises(ScorerUnavailableError, match="the interpreter is shutting down"):
        background.run(where())
    event_loop._stop(background._running_loop(), thread)


async def test_an_async_call_after_the_stop_is_refused_too() -> None:
    """Instead of waiting for ever; and so does cancelling one that is already over."""
    background = event_loop._BackgroundLoop("loop")
    loop, thread = background.run(where())
    call = event_loop._LoopCall(loop, where())
    call.future.result(10)
    event_loop._stop(loop, thread)
    call.cancel()
    with pytest.raises(ScorerUnavailableError, match="the interpreter is shutting down"):
        await background.arun(where())


def test_without_asyncio_an_async_call_says_what_to_do() -> None:
    """As under trio, which runs coroutines by itself."""
    call = Reranker(FakeScorer()).arerank("query", ["a text"])
    with pytest.raises(ConfigurationError, match="asyncio event loop"):
        call.send(None)


@pytest.mark.parametrize(("steps", "most"), [(100, 64), (1500, 8), (10_000, 0)])
def test_work_that_adds_up_leaves_the_loop(steps: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is small stays there, what is large never does, and of the rest only some in ten milliseconds."""
    monkeypatch.setattr(event_loop, "_BURST_SECONDS", 3600.0)

    async def work() -> list[str]:
        token = event_loop._work_places.set(event_loop._WorkPlaces())
        places = [event_loop.run_work(steps, lambda: threading.current_thread().name) for _ in range(64)]
        names = await asyncio.gather(*places)
        event_loop._work_places.reset(token)
        return names

    on_loop = event_loop.run(work()).count("rerank-core-loop")
    assert on_loop <= most
    assert (on_loop > 0) == (most > 0)
