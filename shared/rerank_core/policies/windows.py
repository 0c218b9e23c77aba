"""Windows of a long text: how many tokens each has, how much they share, and where they begin. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rerank_core.policies.sentences import pieces
from rerank_core.types import Passage

__all__ = ["Windows", "windows"]


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a text.

    Attributes:
        passages: in order, without the blanks at their ends.
        cut: the text goes on after the last one.
    """

    passages: list[Passage]
    cut: bool = False


def windows(text: str, ends: Sequence[int], *, size: int, overlap: int, most: int) -> Windows:
    """Return windows that cover a text, all but its blanks.

    Each holds as many whole sentences as have room; a sentence without room is cut at lines, clauses, words and at
    last tokens. The next window begins with the sentences that end the one before, as many as ``overlap`` tokens
    hold; the last window is filled up from before it.

    Args:
        text: not blank.
        ends: where its tokens end, ascending.
        size: tokens of a window, at least 1; only a character of more tokens makes a larger one.
        overlap: tokens that neighbours share at most, below ``size``.
        most: windows, at least 1; what follows them is left out.

    >>> text = "One two. Three four. Five six."
    >>> ends = [3, 7, 8, 14, 19, 20, 25, 29, 30]
    >>> [text[start:end] for start, end in windows(text, ends, size=6, overlap=3, most=9).passages]
    ['One two. Three four.', 'Three four. Five six.']
    """
    text = text.rstrip()
    bounds = [0, *pieces(text, ends, size)]
    counts = [bisect_right(ends, bound) for bound in bounds]
    last = len(bounds) - 1
    passages: list[Passage] = []
    first = 0
    while len(passages) < most:
        # At least one piece: one that is larger than a window cannot be cut.
        stop = max(first + 1, bisect_right(counts, counts[first] + size) - 1)
        if stop == last:
            first = min(first, bisect_left(counts, counts[last] - size))
        _append(passages, text, bounds[first], bounds[stop])
        if stop == last:
            return Windows(passages)
        shared = max(counts[stop] - overlap, counts[stop + 1] - size)
        first = min(stop, bisect_left(counts, shared, lo=first + 1))
    return Windows(passages, cut=True)


def _append(passages: list[Passage], text: str, start: int, end: int) -> None:
    inner = text[start:end]
    found = inner.strip()
    if found:
        start += len(inner) - len(inner.lstrip())
        passages.append(Passage(start, start + len(found)))
