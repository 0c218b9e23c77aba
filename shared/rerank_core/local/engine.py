"""The local engine: one thread per model, and batches that callers share.

Every local model is loaded, called and dropped in a thread of its own, so that calls neither race for a tokenizer
nor compete for cores. Calls wait in a queue, and what waits is merged into batches within a token budget, as
:mod:`rerank_core.local.scheduler` describes.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence, Sized
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from rerank_core._call.event_loop import in_forked_children
from rerank_core.local.scheduler import Place, Schedule

Item = TypeVar("Item", bound=Sized)
Output = TypeVar("Output")

_STOP_SECONDS = 5.0


class LocalModel(Protocol):
    """What an engine runs: it is made, called and dropped in the engine's thread only.

    One with an attribute ``tokens_per_batch`` sets its own batch size, in padded tokens, after loading. One with
    methods ``arm`` and ``interrupt`` lets another thread end its ``forward``: the next one from ``arm`` on.
    """

    def forward(self, items: Sequence[Any], /) -> Sequence[Any]:
        """Return one output per item; the items of a batch are padded to the longest."""


class ModelJob(ABC, Generic[Item, Output]):
    """The work of one call on ``count`` texts; both methods run in the engine's thread."""

    count: int

    @abstractmethod
    def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, Item]]:
        """Return the texts from ``start`` to ``stop`` as (position, item), without those that need no model."""

    @abstractmethod
    def accept(self, position: int, output: Output) -> None:
        """Take the model's output for one item."""


@dataclass(slots=True, eq=False)
class _QueuedJob:
    """A job in the queue, and the future that its caller awaits."""

    job: ModelJob[Any, Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    is_over: bool = False

    def finish(self, error: BaseException | None = None) -> None:
        self.is_over = True
        try:
            self.loop.call_soon_threadsafe(self._resolve, error)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            return

    def _resolve(self, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


_Batch = list[tuple[Place[_QueuedJob], int, Any]]


class _Worker:
    """The thread that owns a model. It holds no reference to its engine, so that it ends when the engine goes."""

    def __init__(self, load: Callable[[], LocalModel], tokens_per_batch: int) -> None:
        self.inbox: SimpleQueue[_QueuedJob | None] = SimpleQueue()
        self._load = load
        self._model: LocalModel | None = None
        self._stopping = False
        self._calls: Schedule[_QueuedJob] = Schedule(tokens_per_batch)
        self._has_finished_calls = False
        self._running: list[_QueuedJob] = []  # calls whose items are in the current batch
        self._lock = threading.Lock()  # for ``_running``
        self.thread = threading.Thread(target=self._serve, name="rerank-core-model", daemon=True)
        self.thread.start()
        # A daemon thread must not be inside native code when the interpreter shuts down.
        atexit.register(self._stop_at_exit)

    def _stop_at_exit(self) -> None:
        self._stopping = True
        self.inbox.put(None)
        self.thread.join(_STOP_SECONDS)

    def abandon(self, call: _QueuedJob) -> None:
        """Drop a call, and interrupt the current batch if nobody else waits for it."""
        call.is_over = True
        self._has_finished_calls = True
        with self._lock:
            model: Any = self._model
            unwanted = call in self._running and all(running.is_over for running in self._running)
            if unwanted and hasattr(model, "interrupt"):
                model.interrupt()

    def _serve(self) -> None:
        while not self._stopping and self._receive():
            try:
                self._step()
            except BaseException as exc:
                self._fail([place.owner for place in self._calls], exc)
            self._drop_finished()
        # Here, because the interpreter waits for this thread: ending a thread in a native destructor aborts.
        self._model = None
        atexit.unregister(self._stop_at_exit)

    def _receive(self) -> bool:
        """Take in new calls, waiting for one if there is nothing to do; False when told to stop."""
        while not self._calls or not self.inbox.empty():
            call = self.inbox.get()
            if call is None:
                return False
            self._calls.add(call, call.job.count)
        return True

    def _step(self) -> None:
        """Run one batch."""
        self._drop_finished()
        if self._model is None:
            self._model = self._load()
            self._calls.budget = getattr(self._model, "tokens_per_batch", self._calls.budget)
        self._finish(self._calls.prepare(self._encode))
        self._drop_finished()  # callers may have given up while texts were tokenised
        batch = self._calls.next_batch()
        if batch:
            places = {id(place): place for place, _, _ in batch}.values()
            self._forward(self._model, batch, [place.owner for place in places])
            self._finish(place.owner for place in places if place.is_exhausted)

    def _encode(self, call: _QueuedJob, start: int, stop: int) -> Sequence[tuple[int, Any]] | None:
        if call.is_over:
            return None
        try:
            return call.job.encode(self._model, start, stop)
        except BaseException as exc:
            self._fail([call], exc)
            return None

    def _forward(self, model: LocalModel, batch: _Batch, calls: list[_QueuedJob]) -> None:
        with self._lock:
            if all(call.is_over for call in calls):
                return  # nobody is left who would interrupt it
            if hasattr(model, "arm"):
                model.arm()
            self._running = calls
        try:
            outputs = model.forward([item for _, _, item in batch])
            for (place, position, _), output in zip(batch, outputs, strict=True):
                try:
                    place.owner.job.accept(position, output)
                except BaseException as exc:  # the other calls of the batch go on
                    self._fail([place.owner], exc)
        except BaseException as exc:
            self._fail(calls, exc)
        with self._lock:
            self._running = []

    def _finish(self, calls: Iterable[_QueuedJob]) -> None:
        for call in calls:
            if not call.is_over:
                call.finish()
                self._has_finished_calls = True

    def _fail(self, calls: Iterable[_QueuedJob], error: BaseException) -> None:
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            # Such as a panic in native code. A future takes no StopIteration, and callers expect no SystemExit.
            error, cause = RuntimeError(f"the model's thread met a {type(error).__name__}"), error
            error.__cause__ = cause
        for call in calls:
            call.finish(error)
            self._has_finished_calls = True

    def _drop_finished(self) -> None:
        if self._has_finished_calls:
            self._has_finished_calls = False
            self._calls.keep(lambda call: not call.is_over)


class Engine:
    """A local model and the thread that owns it; both start with the first call and end with the engine."""

    def __init__(self, load: Callable[[], LocalModel], tokens_per_batch: int) -> None:
        self._load = load
        self._tokens_per_batch = tokens_per_batch
        self._worker: _Worker | None = None
        _engines.add(self)

    async def run(self, job: ModelJob[Any, Any]) -> None:
        """Run a job to its end; cancelling it removes the rest of it from the queue and from the model."""
        loop = asyncio.get_running_loop()
        call = _QueuedJob(job, loop, loop.create_future())
        worker = self._owner()
        worker.inbox.put(call)
        try:
            await call.done
        finally:
            worker.abandon(call)

    def _owner(self) -> _Worker:
        # Only ever called on the background loop, so no lock is needed.
        if self._worker is None:
            self._worker = _Worker(self._load, self._tokens_per_batch)
            weakref.finalize(self, self._worker.inbox.put, None)
        return self._worker

    def abandon_after_fork(self) -> None:
        """Let go of the thread and the model in a forked child, where neither works."""
        if self._worker is not None:
            # Native thread pools join their threads when they are destroyed, and in a child wait for ever, where
            # there are no such threads: the model is leaked on purpose, past the end of the interpreter too.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._worker))
            self._worker = None


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_shared: weakref.WeakValueDictionary[Hashable, Engine] = weakref.WeakValueDictionary()


def shared_engine(key: Hashable, load: Callable[[], LocalModel], tokens_per_batch: int) -> Engine:
    """Return this process's engine for a key, made if nobody holds one; on the background loop only."""
    engine = _shared.get(key)
    if engine is None:
        engine = _shared[key] = Engine(load, tokens_per_batch)
    return engine


def _abandon_all_after_fork() -> None:
    for engine in list(_engines):
        engine.abandon_after_fork()


in_forked_children(_abandon_all_after_fork)
