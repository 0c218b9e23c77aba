"""A cache in a file, for several processes at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from rerank_core._call.reaper import clean_up_after
from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError
from rerank_core.policies.caches.base import Cache

if TYPE_CHECKING:
    from rerank_core.policies.caches.score_file import ScoreFile

__all__ = ["DiskCache"]

T = TypeVar("T")

_MIN_BYTES = 2**16


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
        self.path = Path(path).expanduser().absolute()
        if self.path.is_dir():
            raise ConfigurationError(f"the cache's path {self.path} is a folder: give a file in it")
        self.max_bytes = check_count("max_bytes", max_bytes, least=_MIN_BYTES)
        self._open_file: _OpenFile | None = None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are there.

        Raises:
            ScorerUnavailableError: the file cannot be read, or is not a cache.
        """
        return await self._run(lambda file: file.get(keys))

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, and drop the least recently used ones beyond ``max_bytes``.

        Raises:
            ScorerUnavailableError: the file cannot be written (the disk is full, say), or is not a cache.
        """
        await self._run(lambda file: file.put(values, self.max_bytes))

    async def aclose(self) -> None:
        """Write what is pending and close the file; another cache on it opens it again."""
        if self._open_file is not None and self._open_file.process == os.getpid():
            await self._run(lambda file: file.close())
        self._open_file = None

    async def _run(self, work: Callable[[ScoreFile], T]) -> T:
        opened = self._open_file
        if opened is None or opened.process != os.getpid():
            opened = self._open_file = _open(self.path)
        return await asyncio.get_running_loop().run_in_executor(opened.executor, work, opened.file)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(DiskCache, max_bytes=self.max_bytes), (self.path,)

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r}, max_bytes={self.max_bytes})"


class _OpenFile:
    """A file as this process has it open: its connection, and the only thread that uses it."""

    def __init__(self, path: Path) -> None:
        from rerank_core.policies.caches.score_file import ScoreFile  # sqlite3 may be missing

        self.process = os.getpid()
        self.file = ScoreFile(path)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="rerank-core-cache")
        # In a forked child it never happens: the connection is the parent's, and even closing it would do harm.
        clean_up_after(self, _close, self.executor, self.file)


_open_files: WeakValueDictionary[tuple[int, Path], _OpenFile] = WeakValueDictionary()
"""By process and path. Used on the background loop only, so that no file is opened twice."""


def _open(path: Path) -> _OpenFile:
    key = os.getpid(), path
    opened = _open_files.get(key)
    if opened is None:
        opened = _open_files[key] = _OpenFile(path)
    return opened


def _close(executor: ThreadPoolExecutor, file: ScoreFile) -> None:
    executor.shutdown(wait=True)
    file.close()
