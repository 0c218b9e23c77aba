"""Scheduling: picks the items for the next batch, oldest call first, grouped by length. Pure.

A call keeps its turn for a quantum of padded tokens, then goes behind those that wait. Calls of equal size so end
one after the other, each as early as possible, and a small call waits for a quantum of a large one, not for its
end. The call whose turn it is begins a batch, which is filled up with items of about the same length: its own
first, then those of the calls next in turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import neg
from typing import Any, Generic, TypeVar

Owner = TypeVar("Owner")

_CHUNK = 512
"""Texts of one call that are tokenised and sorted at a time, at least; bounds memory for any number of texts."""

_CHUNK_SHARE = 32
"""Tokens of a batch per text that is tokenised at a time: very large batches need more texts to choose from."""

_QUANTUM = 8
"""Full batches that a call may run before it is another call's turn."""

_Items = Sequence[tuple[int, Any]]


class Place(Generic[Owner]):
    """A call's place in the queue, and those of its items that are ready to run."""

    __slots__ = ("_items", "_lengths", "count", "encoded", "is_large", "owner", "tokens", "tokens_this_turn")

    def __init__(self, owner: Owner, count: int) -> None:
        self.owner = owner
        self.count = count
        self.encoded = 0
        self.tokens = 0  # of the items that are ready
        self.tokens_this_turn = 0  # padded; those given in other calls' batches before it included
        self.is_large = False  # whether it has used up a whole turn already
        self._lengths: list[int] = []  # longest first, as the items
        self._items: list[tuple[int, Any]] = []

    @property
    def is_ready(self) -> bool:
        """Whether an item is ready to run."""
        return bool(self._items)

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left of the call but what runs now."""
        return not self._items and self.encoded >= self.count

    @property
    def longest(self) -> int:
        """Tokens of the longest item that is ready."""
        return self._lengths[0]

    def add(self, items: _Items, encoded: int) -> None:
        """Take in tokenised items of the texts up to ``encoded``."""
        self._items = sorted(items, key=lambda entry: len(entry[1]), reverse=True)
        self._lengths = [len(item) for _, item in self._items]
        self.tokens = sum(self._lengths)
        self.encoded = encoded

    def take(self, budget: int, longest: int, count: int, padding: int) -> tuple[_Items, int]:
        """Remove and return the items that a batch has room for, and how many tokens of padding it has then."""
        lengths = self._lengths
        start = bisect_left(lengths, -longest, key=neg)
        end = batch_end(lengths, start, budget, longest=longest, count=count, padding=padding)
        items, tokens = self._items[start:end], sum(lengths[start:end])
        del self._items[start:end], lengths[start:end]
        self.tokens -= tokens
        self.tokens_this_turn += longest * len(items)
        return items, padding + longest * len(items) - tokens


class Schedule(Generic[Owner]):
    """The queue of calls; a batch has at most ``budget`` padded tokens, or is one longer item alone."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._places: deque[Place[Owner]] = deque()

    @property
    def _quantum(self) -> int:
        return _QUANTUM * self.budget

    @property
    def _chunk(self) -> int:
        return max(_CHUNK, self.budget // _CHUNK_SHARE)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place[Owner]]:
        return iter(self._places)

    def add(self, owner: Owner, count: int) -> None:
        """Put a call with ``count`` texts at the end of the queue."""
        self._places.append(Place(owner, count))

    def keep(self, wanted: Callable[[Owner], bool]) -> None:
        """Drop the calls that are not wanted."""
        self._places = deque(place for place in self._places if wanted(place.owner))

    def prepare(self, encode: Callable[[Owner, int, int], _Items | None]) -> list[Owner]:
        """Tokenise as much as the next batch needs: one piece of the first call, then of the calls next in turn.

        ``encode`` returns the texts of a call from one position to another as items, without those that need no
        model; or None where the call failed. Returns the calls that need the model no more.
        """
        self._rotate_turns()
        texts = tokens = 0
        ended = []
        for place in self._places:
            if not place.is_ready and place.encoded < place.count:
                stop = min(place.count, place.encoded + self._chunk)
                texts += stop - place.encoded
                items = encode(place.owner, place.encoded, stop)
                if items is not None:
                    place.add(items, stop)
                    place.tokens_this_turn += 0 if items else self._quantum
            if place.is_exhausted:
                ended.append(place.owner)
            tokens += place.tokens
            if texts >= self._chunk or tokens >= self._quantum:
                break
        return ended

    def next_batch(self) -> list[tuple[Place[Owner], int, Any]]:
        """Remove and return what runs next as (place, position, item); empty where nothing is ready."""
        batch: list[tuple[Place[Owner], int, Any]] = []
        longest = padding = 0
        for place in self._window():
            longest = longest or max(1, place.longest)
            items, padding = place.take(self.budget, longest, len(batch), padding)
            if not items:
                continue
            batch += [(place, position, item) for position, item in items]
            if (len(batch) + 1) * longest > self.budget:
                break
        return batch

    def _window(self) -> Iterator[Place[Owner]]:
        """Return the call whose turn it is, then those that may share its batch, up to a quantum of tokens."""
        tokens = 0
        is_large = bool(self._places) and self._places[0].is_large
        for place in self._places:
            # A large call does not join small ones, which would then take longer.
            if tokens >= self._quantum or (place.is_large and not is_large):
                return
            tokens += place.tokens
            if place.is_ready:
                yield place

    def _rotate_turns(self) -> None:
        """Send the first call behind the others if it had its turn, unless it is nearly done."""
        while len(self._places) > 1:
            front = self._places[0]
            ends_soon = front.encoded >= front.count and front.tokens <= self._quantum
            if front.tokens_this_turn < self._quantum or ends_soon:
                return
            front.tokens_this_turn = 0
            front.is_large = True
            self._places.rotate(-1)


_BATCH_COST = 64
"""Starting a batch costs about as much as this share of its tokens: 16 of 1,024, measured."""


def batch_end(
    lengths: Sequence[int],
    start: int,
    budget: int,
    *,
    longest: int | None = None,
    count: int = 0,
    padding: int = 0,
) -> int:
    """Return where a batch that begins at ``start`` ends, in sequences sorted longest first.

    All sequences of a batch are padded to its longest, so a batch of ``n`` costs ``n × longest`` tokens. Sequences
    are taken while the budget of padded tokens allows it and while padding them costs less than starting another
    batch does: a 64th of the budget, measured. The first sequence of a batch is always taken. A batch that is
    begun has ``count`` sequences, the ``longest`` of them at least as long as the next, and ``padding`` already.

    >>> batch_end([300, 200, 128, 128, 100], 0, budget=512), batch_end([100, 99, 98, 20], 0, budget=512)
    (1, 3)
    """
    if longest is None:
        longest = lengths[start]
    longest = max(1, longest)
    most = min(len(lengths), start + max(0 if count else 1, budget // longest - count))
    for end in range(start, most):
        padding += longest - max(1, lengths[end])
        if padding > budget // _BATCH_COST:
            return end
    return most
