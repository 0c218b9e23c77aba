"""Waiting in async tests for what happens on another loop."""

from __future__ import annotations

from collections.abc import Callable

import anyio


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait until a condition holds; TimeoutError after ``seconds``, above 0."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - an event belongs to one loop, and there are two
            await anyio.sleep(0.001)
