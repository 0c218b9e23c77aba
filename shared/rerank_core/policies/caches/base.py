"""The interface of a cache of scores, and a cache in this process's memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from rerank_core._support.checks import check_count

__all__ = ["Cache", "MemoryCache"]

_KEYS_AT_ONCE = 1000


class Cache(ABC):
    """Keeps small values by key. Both are bytes without any text in them, and may be lost at any time.

    All methods run on the background event loop and must not block it. What they raise fails no call.
    """

    @abstractmethod
    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the values of the keys that are there."""

    @abstractmethod
    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, instead of older ones of the same keys."""

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Release connections and the like; the cache may be used again, and then opens new ones."""


class MemoryCache(Cache):
    """Keeps the most recently used values; copies and pickles start empty.

    Args:
        max_entries: how many values are kept, at least 1. A value takes about 300 bytes, that of a listwise call
            more.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(self, max_entries: int = 100_000) -> None:
        self.max_entries = check_count("max_entries", max_entries)
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are there, which are then the most recently used."""
        found = {}
        for number, key in enumerate(keys, 1):
            if key in self._values:
                found[key] = self._values[key]
                self._values.move_to_end(key)
            if number % _KEYS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, and drop the least recently used ones beyond ``max_entries``."""
        for number, (key, value) in enumerate(values.items(), 1):
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self.max_entries:
                self._values.popitem(last=False)
            if number % _KEYS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryCache, (self.max_entries,)
