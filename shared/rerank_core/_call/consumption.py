"""Counts what calls consumed, so that it is known even of calls that were cancelled.

An answer and a ``ScorerError`` carry their usage, but a cancelled call returns neither. So whoever calls a scorer
can also count what is consumed meanwhile, with :func:`count_consumption`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rerank_core.usage import Usage

__all__ = ["Consumption", "add_consumption", "count_consumption"]


class Consumption:
    """What calls consumed so far.

    Attributes:
        usage: the sum.
    """

    def __init__(self) -> None:
        self.usage = Usage()


_innermost: ContextVar[Consumption | None] = ContextVar("rerank_core_consumption", default=None)


def add_consumption(usage: Usage) -> None:
    """Add to what the calls of the innermost :func:`count_consumption` consumed."""
    consumption = _innermost.get()
    if consumption is not None:
        consumption.usage += usage


@contextmanager
def count_consumption(*, pass_on: bool = True) -> Iterator[Consumption]:
    """Count what is consumed inside, also in tasks that are started inside.

    Args:
        pass_on: at the end, whatever it is, add the sum to the next outer block.
    """
    inner = Consumption()
    token = _innermost.set(inner)
    try:
        yield inner
    finally:
        _innermost.reset(token)
        if pass_on:
            add_consumption(inner.usage)
