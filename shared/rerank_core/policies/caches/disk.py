"""A cache in a file, for several processes at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rerank_core._support.checks import checked_count
from rerank_core.errors import ConfigurationError
from rerank_core.policies.caches.base import Cache

if TYPE_CHECKING:
    from rerank_core.policies.caches._sqlite import Store

__all__ = ["DiskCache"]

T = TypeVar("T")

_LEAST_BYTES = 2**16


class DiskCache(Cache):
    """Values in a SQLite file in WAL mode, which any number of processes of one machine may share.

    A process that is killed leaves the file whole. A file that was damaged is moved aside (``.damaged``) with
    one warning, and a new one begun; somebody else's database, or one of another version of this package, is
    left alone, and nothing is cached. Copies and pickles share the file.

    Args:
        path: the file; its folder is made where it is missing. Not on a network drive, where WAL does not work.
        max_bytes: size of the file, at least 65,536; beyond it the least recently used values are dropped. The
            log beside it (``-wal``) takes up to a few MB more.

    Raises:
        ConfigurationError: an option is out of its range, or the path is a folder.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 256 * 2**20) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.is_dir():
            raise ConfigurationError(f"the cache's path {self.path} is a folder: give a file in it")
        self.max_bytes = checked_count("max_bytes", max_bytes, least=_LEAST_BYTES)
        self._owner: _Owner | None = None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are there.

        Raises:
            ScorerUnavailableError: the file cannot be read, or is not a cache.
        """
        return await self._run(lambda store: store.get(keys))

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, and drop the least recently used ones beyond ``max_bytes``.

        Raises:
            ScorerUnavailableError: the file cannot be written (a full disk, say), or is not a cache.
        """
        await self._run(lambda store: store.put(values))

    async def aclose(self) -> None:
        """Write what is pending and close the file."""
        owner, self._owner = self._owner, None
        if owner is not None and owner.process == os.getpid():
            await asyncio.get_running_loop().run_in_executor(owner.thread, owner.store.close)
            owner.thread.shutdown(wait=False)

    async def _run(self, work: Callable[[Store], T]) -> T:
        owner = self._owner
        if owner is None or owner.process != os.getpid():
            # A forked child must not touch the parent's connection, not even close it.
            owner = self._owner = _Owner(self.path, self.max_bytes, kept=owner)
        return await asyncio.get_running_loop().run_in_executor(owner.thread, work, owner.store)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_bytes": self.max_bytes}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._owner = None

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r}, max_bytes={self.max_bytes})"


class _Owner:
    """This process's connection, and the only thread that uses it."""

    def __init__(self, path: Path, max_bytes: int, *, kept: _Owner | None) -> None:
        from rerank_core.policies.caches._sqlite import Store

        self.process = os.getpid()
        self.store = Store(path, max_bytes)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="rerank-core-cache")
        self._kept = kept

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if self.process == os.getpid():
                self.thread.submit(self.store.close)
                self.thread.shutdown(wait=False)
