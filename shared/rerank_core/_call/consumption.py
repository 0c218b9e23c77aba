"""Counts what calls consumed, so that it is known even of calls that were cancelled.

An answer and a ``ScorerError`` carry their usage, but a cancelled call returns neither. So whoever calls a scorer
can also count what is consumed meanwhile, with a :class:`Consumption`.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

from rerank_core.usage import Usage


class Consumption:
    """Counts what is consumed inside a ``with`` block, also in tasks that are started inside.

    Args:
        pass_on: at the end, whatever it is, add the sum to the next outer block.

    Attributes:
        usage: the sum so far.
    """

    __slots__ = ("_pass_on", "_token", "usage")
    _token: Token[Consumption | None]

    def __init__(self, *, pass_on: bool = True) -> None:
        self.usage = _NOTHING
        self._pass_on = pass_on

    def __enter__(self) -> Consumption:
        self._token = _innermost.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _innermost.reset(self._token)
        if self._pass_on:
            add_consumption(self.usage)


_NOTHING = Usage()
_innermost: ContextVar[Consumption | None] = ContextVar("rerank_core_consumption", default=None)


def add_consumption(usage: Usage) -> None:
    """Add to the innermost :class:`Consumption`."""
    consumption = _innermost.get()
    if consumption is not None:
        consumption.usage = usage if consumption.usage is _NOTHING else consumption.usage + usage
