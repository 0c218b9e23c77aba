"""Clean up after objects that were garbage-collected, in a thread of its own.

The garbage collector may run a finalizer between any two instructions of any thread, also while that thread
holds a lock. So a finalizer must not take a lock, wait, log, or call into an event loop or an executor. Those
registered here put a number into a queue, and this module's thread does the work.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

from rerank_core._call.event_loop import in_forked_children

_EXIT_SECONDS = 5.0


def clean_up_after(owner: object, work: Callable[..., Any], *arguments: Any) -> None:
    """Call ``work(*arguments)`` in the reaper's thread after ``owner`` was collected, or at exit.

    ``work`` and its arguments must not refer to ``owner``; what ``work`` raises is ignored. A forked child never
    calls it, and keeps the arguments alive for ever, because they belong to the parent.
    """
    _reaper.clean_up_after(owner, partial(work, *arguments))


class _Reaper:
    def __init__(self) -> None:
        self._abandoned: list[dict[int, Callable[[], Any]]] = []
        self._work: dict[int, Callable[[], Any]] = {}
        self._reset()
        in_forked_children(self._abandon)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._keys = count()
        self._collected: SimpleQueue[int | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def _abandon(self) -> None:
        self._abandoned.append(self._work)
        self._work = {}
        self._reset()

    def clean_up_after(self, owner: object, work: Callable[[], Any]) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="rerank-core-reaper", daemon=True)
                self._thread.start()
                atexit.register(self._finish)
            key = next(self._keys)
        self._work[key] = work
        weakref.finalize(owner, self._collected.put, key).atexit = False

    def _serve(self) -> None:
        while (key := self._collected.get()) is not None:
            with contextlib.suppress(Exception):
                self._work.pop(key, int)()  # at exit, a key may come twice

    def _finish(self) -> None:
        """Do all work that is left, at exit."""
        thread = self._thread
        if thread is not None:
            for key in list(self._work):
                self._collected.put(key)
            self._collected.put(None)
            thread.join(_EXIT_SECONDS)


_reaper = _Reaper()
