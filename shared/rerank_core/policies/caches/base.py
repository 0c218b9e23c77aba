"""The interface of a cache of scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

__all__ = ["Cache"]


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
