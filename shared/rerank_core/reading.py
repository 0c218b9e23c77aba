"""What a scorer reads of a text, counted in its own tokens; estimates for services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

_BYTES_PER_TOKEN = 3
_SPECIAL_TOKENS = 4
_USUAL_MAX_TOKENS = 512
"""Tokens that nearly every reranker reads."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a scorer splits texts into tokens: where those of each text end, in characters, ascending."""

    window_tokens: int
    """Tokens of a text that fit beside the query at once, at least 1."""
    token_ends: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """How much of each text is wanted: windows of so many tokens, None for as many as the scorer reads."""

    window: int | None
    max_windows: int

    def window_tokens(self, max_text_tokens: int | None) -> int:
        """Return the tokens of a window, given how many a scorer reads of a text; None where that is unknown."""
        if max_text_tokens is None:
            return self.window or _USUAL_MAX_TOKENS
        return max(1, max_text_tokens if self.window is None else min(self.window, max_text_tokens))

    def tokens_to_read(self, window_tokens: int) -> int:
        """Return how many tokens of a text to look at: one more than fits shows that the text goes on."""
        return window_tokens * self.max_windows + 1


@runtime_checkable
class ReadsTokens(Protocol):
    """A scorer that knows its tokens: one that has this method."""

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:
        """Return how the scorer splits texts into tokens, and how many fit beside the query."""


def estimate_reading(texts: Sequence[str], request: WindowRequest, max_text_tokens: int | None = None) -> Reading:
    """Return about how a scorer splits texts into tokens, if it reads so many of each; None if that is unknown."""
    size = request.window_tokens(max_text_tokens)
    return Reading(size, [estimate_token_ends(text, request.tokens_to_read(size)) for text in texts])


def estimate_token_ends(text: str, limit: int) -> Sequence[int]:
    """Return about where a text's first tokens end, taking one token per three bytes of UTF-8.

    >>> list(estimate_token_ends("tokens", 10)), list(estimate_token_ends("日本語", 2))
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


def offsets_to_ends(offsets: Sequence[Any]) -> list[int]:
    """Return where tokens end, ascending, given a tokenizer's (start, end) pairs in any order."""
    return list(accumulate((end for _, end in offsets), max))


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has: one per three bytes of UTF-8, at least 1.

    English has about a quarter fewer, Chinese and Japanese about as many.
    """
    return max(1, -(-_count_bytes(text) // _BYTES_PER_TOKEN))


def max_tokens(text: str) -> int:
    """Return a number of tokens that a text cannot exceed: one per byte of UTF-8, and special ones."""
    return _count_bytes(text) + _SPECIAL_TOKENS


def least_tokens(text: str) -> int:
    """Return the least number of tokens a text has: no tokenizer merges words across white space."""
    return len(text.split())


def _count_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
