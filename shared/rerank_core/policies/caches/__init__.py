"""Where :class:`rerank_core.policies.Cached` keeps scores: in memory, on disk, or in a cache of your own."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from rerank_core._support.checks import check_count
from rerank_core._support.files import absolute_file

if TYPE_CHECKING:
    from rerank_core.policies.caches.score_file import ScoreFile

__all__ = ["Cache", "DiskCache", "MemoryCache"]

T = TypeVar("T")

_MIN_BYTES = 2**16
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


class DiskCache(Cache):
    """Values in a SQLite file in WAL mode, which any number of processes of one machine may share.

    A process that is killed leaves the file whole. A damaged file is moved aside (``.damaged``) with one warning,
    and a new one is begun. Another program's database, or a file of another version of this package, is left
    alone, and nothing is cached. All caches of one process on the same file share one thread and one connection;
    copies and pickles share the file.

    Args:
        path: the file; its folder is made if it is missing. Not on a network drive, where WAL does not work.
        max_bytes: size of the file, at least 65,536; beyond it the least recently used values are dropped. The
            log beside it (``-wal``) takes up to a few MB more.

    Raises:
        ConfigurationError: an option is out of its range, or the path is a folder.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 256 * 2**20) -> None:
        self.path = absolute_file(path)
        self.max_bytes = check_count("max_bytes", max_bytes, least=_MIN_BYTES)
        self._file: ScoreFile | None = None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are there.

        Raises:
            ConfigurationError: the file is no cache.
            ScorerUnavailableError: it cannot be read.
        """
        return await self._run(lambda file: file.get(keys))

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, and drop the least recently used ones beyond ``max_bytes``.

        Raises:
            ConfigurationError: the file is no cache.
            ScorerUnavailableError: it cannot be written (the disk is full, say).
        """
        await self._run(lambda file: file.put(values, self.max_bytes))

    async def aclose(self) -> None:
        """Write what is pending and close the file; another cache on it opens it again."""
        if self._file is not None:
            await self._run(lambda file: file.close())
        self._file = None

    async def _run(self, work: Callable[[ScoreFile], T]) -> T:
        file = self._file = _open(self.path)  # another one in a forked child
        return await asyncio.get_running_loop().run_in_executor(file.executor, work, file)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(DiskCache, max_bytes=self.max_bytes), (self.path,)

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r}, max_bytes={self.max_bytes})"


_open_files: WeakValueDictionary[tuple[int, Path], ScoreFile] = WeakValueDictionary()
"""By process and path. Used on the background loop only, so that no file is opened twice."""


def _open(path: Path) -> ScoreFile:
    from rerank_core.policies.caches.score_file import ScoreFile  # sqlite3 may be missing

    key = os.getpid(), path
    opened = _open_files.get(key)
    if opened is None:
        opened = _open_files[key] = ScoreFile(path)
    return opened
