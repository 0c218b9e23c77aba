"""Where :class:`rerank_core.policies.Cached` keeps scores: in memory, on disk, or in a cache of your own."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from time import time_ns
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from rerank_core._call.sqlite_file import SqliteFile, select, transaction
from rerank_core._support.checks import check_count
from rerank_core._support.files import absolute_file

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
        max_entries: how many values are kept, at least 1. Each takes about 300 bytes.

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
        ConfigurationError: an option is out of its range, or the path is a folder; by the methods: the file is no
            cache.
        ScorerUnavailableError: by the methods: the file cannot be read or written (the disk is full, say).
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 256 * 2**20) -> None:
        self.path = absolute_file(path)
        self.max_bytes = check_count("max_bytes", max_bytes, least=_MIN_BYTES)
        self._file: _ScoreFile | None = None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are there."""
        return await self._run(_ScoreFile.get, keys)

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, and drop the least recently used ones beyond ``max_bytes``."""
        await self._run(_ScoreFile.put, values, self.max_bytes)

    async def aclose(self) -> None:
        """Write what is pending and close the file; another cache on it opens it again."""
        if self._file is not None:
            await self._run(_ScoreFile.close)
        self._file = None

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        key = os.getpid(), self.path  # a forked child has no thread of its parent's
        file = self._file = _open_files.get(key) or _ScoreFile(self.path)
        _open_files[key] = file
        return await asyncio.get_running_loop().run_in_executor(file.executor, work, file, *arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(DiskCache, max_bytes=self.max_bytes), (self.path,)

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r}, max_bytes={self.max_bytes})"


class _ScoreFile(SqliteFile):
    """The file of all caches of one process with its path, and the only thread that uses it."""

    kind = "cache"
    header = 0x52524B43, 1  # "RRKC"
    schema = (
        "CREATE TABLE scores (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX scores_by_use ON scores (used)",
    )
    table = "scores"
    pragmas = (f"journal_size_limit = {2**20}",)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="rerank-core-cache")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        def work(connection: Connection) -> dict[bytes, bytes]:
            found = dict(select(connection, "SELECT key, value FROM scores WHERE key IN", keys))
            self._note_uses(found)
            return found

        return self._run(work)

    def put(self, values: Mapping[bytes, bytes], max_bytes: int) -> None:
        def work(connection: Connection) -> None:
            now = time_ns()
            with transaction(connection):
                connection.executemany(
                    "INSERT OR REPLACE INTO scores (key, value, used) VALUES (?, ?, ?)",
                    [(key, value, now) for key, value in values.items()],
                )
                self._make_room(connection, max_bytes)

        self._run(work)


_open_files: WeakValueDictionary[tuple[int, Path], _ScoreFile] = WeakValueDictionary()
"""By process and path. Used on the background loop only, so that no file is opened twice."""
