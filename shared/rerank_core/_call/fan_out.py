"""Runs many calls concurrently: results in order, and the first failure ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import anyio

from rerank_core._support.extras import require

Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE = 32
"""Fills a local model's batches and bounds memory. Scorers of services have limits of their own."""


async def fan_out(
    work: Callable[[Item], Awaitable[Result]], items: Sequence[Item], *, progress: bool
) -> list[Result]:
    """Return the result of each item, in order, from up to 32 calls at a time.

    After the first failure, which is raised, calls under way are cancelled, and no further ones start.
    """
    results: dict[int, Result] = {}
    waiting = iter(enumerate(items))
    failure: Exception | None = None

    async def worker() -> None:
        nonlocal failure
        for position, item in waiting:
            if failure is not None:  # work that never awaits cannot be cancelled
                return
            try:
                results[position] = await work(item)
            except Exception as exc:
                failure = failure or exc
                group.cancel_scope.cancel()
            else:
                if bar is not None:
                    bar.update()

    with show_progress("reranking", "query", len(items), wanted=progress) as bar:
        async with anyio.create_task_group() as group:
            for _ in range(min(_AT_ONCE, len(items))):
                group.start_soon(worker)
    if failure is not None:
        raise failure
    return [results[position] for position in range(len(items))]


def show_progress(verb: str, unit: str, total: int | None, *, wanted: bool = True) -> AbstractContextManager[Any]:
    """Return a tqdm bar as a context manager, which gives None where no bar is wanted."""
    if not wanted:
        return nullcontext()
    tqdm = require("tqdm.auto", extra="notebook", purpose="progress=True")
    bar: AbstractContextManager[Any] = tqdm.tqdm(total=total, desc=verb, unit=unit)
    return bar
