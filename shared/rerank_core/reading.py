"""What a model reads of a text, in its own tokens, for those who cut texts to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

__all__ = ["Reading", "ReadsTokens", "Wish", "cut_ends", "estimate_tokens", "estimated_ends", "least_tokens"]

_BYTES_PER_TOKEN = 3
_USUAL_ROOM = 512
"""Tokens that nearly every reranker reads."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a scorer reads of texts beside a query.

    Attributes:
        room: tokens of a text that it reads, at least 1.
        ends: for each text the positions, in characters, where its tokens end, ascending.
    """

    room: int
    ends: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Wish:
    """How much of texts is to be looked at.

    Attributes:
        window: tokens of a text to read at once, at least 1; None for as many as there is room for.
        most: how often; tokens after that may be left out.
    """

    window: int | None
    most: int

    def room(self, read: int | None) -> int:
        """Return the tokens to read at once, of a scorer that reads as many; None where that is not known."""
        if read is None:
            return self.window or _USUAL_ROOM
        return max(1, read if self.window is None else min(self.window, read))

    def limit(self, room: int) -> int:
        """Return how many tokens of a text to look at: one more shows that the text goes on."""
        return room * self.most + 1


@runtime_checkable
class ReadsTokens(Protocol):
    """A scorer that knows its tokens: one that has this method."""

    async def reading(self, query: str, texts: Sequence[str], wish: Wish) -> Reading:
        """Return what the scorer reads of texts beside a query, at least one text."""


def estimated_ends(text: str, limit: int) -> Sequence[int]:
    """Return about where a text's first tokens end: one token for every three bytes of UTF-8, as for limits.

    >>> list(estimated_ends("tokens", 10)), list(estimated_ends("日本語", 2))
    ([3, 6], [1, 2])
    """
    if text.isascii():
        return range(_BYTES_PER_TOKEN, len(text) + 1, _BYTES_PER_TOKEN)[:limit]
    ends: list[int] = []
    total = 0
    for position, char in enumerate(text[: limit * _BYTES_PER_TOKEN], 1):
        total += len(char.encode(errors="replace"))
        ends.extend([position] * (total // _BYTES_PER_TOKEN))
        total %= _BYTES_PER_TOKEN
    return ends[:limit]


def cut_ends(offsets: Sequence[Any]) -> list[int]:
    """Return where tokens end, of a tokenizer's (start, end) pairs; in order, whatever the tokenizer says."""
    return list(accumulate((end for _, end in offsets), max))


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text makes: one for every three bytes of UTF-8, at least 1.

    English makes about a quarter fewer, Chinese and Japanese about as many: an estimate on the safe side for a
    limit, of the right size for a budget.
    """
    return max(1, -(-(len(text) if text.isascii() else len(text.encode(errors="replace"))) // 3))


def least_tokens(text: str) -> int:
    """Return how many tokens a text certainly makes: no tokenizer merges words across white space."""
    return len(text.split())
