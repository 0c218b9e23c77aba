"""The background event loop on which every scorer runs.

Sync code enters it by :func:`run`, async code on any event loop by :func:`arun`. So one connection pool, one rate
limiter and one batcher serve all callers, and an object that is bound to a loop is only ever used on this one. The
caller's context variables travel along. Cancelling the caller cancels the work and waits until it has ended.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from rerank_core.errors import ConfigurationError, ScorerUnavailableError

T = TypeVar("T")

_STOP_SECONDS = 5.0
_MAX_STEPS_ON_LOOP = 2000
_SMALL_STEPS = 500  # less than what a thread costs
_LARGE_STEPS = 50_000
_BURST_SECONDS = 0.01
_WORK_THREADS = 2  # more would only take the interpreter's lock from the loop and from each other
_STEPS_PER_TEXT = 4
_CHARS_PER_STEP = 100


def in_forked_children(act: Callable[[], object]) -> None:
    """Call ``act`` in every child process forked from now on; do nothing on systems that cannot fork."""
    register = getattr(os, "register_at_fork", None)  # Windows has none
    if register is not None:
        register(after_in_child=act)


async def run_work(steps: int, work: Callable[..., T], *arguments: Any) -> T:
    """Return ``work(*arguments)``; run it in a thread where it takes so long that other calls would wait for it.

    It takes about ``steps`` microseconds, and may hold the interpreter's lock for some milliseconds at a time. Its
    result is given up where the caller is cancelled meanwhile.
    """
    if steps <= _SMALL_STEPS:
        return work(*arguments)
    try:
        places = _work_places.get()
    except LookupError:
        places = _WorkPlaces()
        _work_places.set(places)
    if places.has_room_on_loop(steps):
        return work(*arguments)
    threads = places.for_large if steps > _LARGE_STEPS else places.for_medium
    return await anyio.to_thread.run_sync(work, *arguments, abandon_on_cancel=True, limiter=threads)


async def run_text_work(work: Callable[..., T], texts: Sequence[str], *arguments: Any) -> T:
    """Return ``work(texts, *arguments)``; see :func:`run_work`, for work that reads texts, many or long ones."""
    steps = _STEPS_PER_TEXT * len(texts)
    if steps <= _MAX_STEPS_ON_LOOP:  # else summing up takes its time, too
        steps += sum(map(len, texts)) // _CHARS_PER_STEP
    return await run_work(steps, work, texts, *arguments)


class _WorkPlaces:
    """Where work of one event loop is done."""

    def __init__(self) -> None:
        # Threads of their own, because the user's functions may wait for ever, and medium work shall not wait for
        # large.
        self.for_large = anyio.CapacityLimiter(_WORK_THREADS)
        self.for_medium = anyio.CapacityLimiter(_WORK_THREADS)
        self._burst_ends = 0.0
        self._room = 0

    def has_room_on_loop(self, steps: int) -> bool:
        """Tell whether the loop may do so much now: what many requests bring at once would add up."""
        now = monotonic()
        if now >= self._burst_ends:
            self._burst_ends, self._room = now + _BURST_SECONDS, _MAX_STEPS_ON_LOOP
        if steps > self._room:
            return False
        self._room -= steps
        return True


_work_places: RunVar[_WorkPlaces] = RunVar("rerank_core_work_places")


class _LoopCall(Generic[T]):
    """One coroutine that the loop runs; ``future`` has a result once the coroutine has ended, cancelled or not."""

    _task: asyncio.Task[T]

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.future: Future[T] = Future()
        self._loop = loop
        # call_soon_threadsafe copies the caller's context, and the task copies that.
        try:
            loop.call_soon_threadsafe(self._start, coroutine)
        except RuntimeError as exc:
            coroutine.close()
            raise ScorerUnavailableError("the interpreter is shutting down: nothing can be scored now") from exc

    def cancel(self) -> None:
        # A loop that was closed at exit has cancelled its tasks.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._task.cancel())

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.set_exception(ScorerUnavailableError("the call was cancelled: the event loop was stopped"))
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


class _BackgroundLoop:
    """An event loop on a daemon thread, started by the first call and stopped at exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # A child has the loop's objects but not its thread. It must not close them: that would unregister file
        # descriptors that the parent's loop still waits for.
        in_forked_children(self._abandon_after_fork)
        # Registered now, it runs after whatever closes connections on the loop at exit.
        atexit.register(lambda: _stop(self._loop, self._thread))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result, from sync code on any thread.

        The calling thread may have a running event loop, as in a notebook; that loop waits, too.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise ConfigurationError(
                "a sync call was made on rerank_core's own event loop (inside a scorer): await the async one there"
            )
        call = _LoopCall(self._running_loop(), coroutine)
        try:
            return call.future.result()
        except BaseException:
            call.cancel()
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and await its result, from any asyncio event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            coroutine.close()
            raise ConfigurationError(
                "async calls need a running asyncio event loop, and there is none: under trio, "
                "call the sync method in a thread, by trio.to_thread.run_sync"
            ) from None
        if threading.current_thread() is self._thread:
            return await coroutine
        call = _LoopCall(self._running_loop(), coroutine)
        outcome = asyncio.wrap_future(call.future)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            call.cancel()
            outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
            with anyio.CancelScope(shield=True):  # an anyio scope cancels every further wait too
                await asyncio.wait({outcome})
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_loop, args=(loop,), name=self._name, daemon=True)
                thread.start()
                self._thread, self._loop = thread, loop
            return self._loop

    def _abandon_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._loop = None
        self._thread = None


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    stopped = False
    while not stopped:
        # A scorer's SystemExit reaches its caller; it must not end the loop that others use.
        with contextlib.suppress(BaseException):
            loop.run_forever()
            stopped = True


def _stop(loop: asyncio.AbstractEventLoop | None, thread: threading.Thread | None) -> None:
    """Cancel what still runs and end the thread, so that the interpreter exits without waiting."""
    if loop is None or thread is None or not thread.is_alive():
        return

    async def cancel_all() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_SECONDS / 2) if tasks else None
        loop.stop()

    asyncio.run_coroutine_threadsafe(cancel_all(), loop)
    thread.join(_STOP_SECONDS)
    if not thread.is_alive():
        loop.close()


_background = _BackgroundLoop("rerank-core-loop")
run = _background.run
arun = _background.arun
arun_for_sdk = _BackgroundLoop("rerank-core-sdks").arun
"""For the SDKs of services, some of which read a large reply in one long step."""
