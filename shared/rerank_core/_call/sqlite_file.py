"""A SQLite file of records by key, for several processes at once; begun anew when it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

from rerank_core._call.reaper import clean_up_after
from rerank_core.errors import ConfigurationError, ScorerUnavailableError

T = TypeVar("T")

KEYS_PER_QUERY = 500
"""SQLite's limit was 999 variables for long."""
_HEADER = b"SQLite format 3\0"
_BUSY_SECONDS = 5.0
_FORK_SECONDS = 2 * _BUSY_SECONDS
_MAX_USES = 10_000
_EVICTED_PART = 8  # an eighth, so that evicting is rare

_logger = logging.getLogger("rerank_core")


_forking = threading.Lock()
_locks: WeakSet[threading.RLock] = WeakSet()
"""One for each file, within which SQLite is used; added to under the lock above."""
_fork = threading.local()


def _keep_threads_out() -> None:
    """Wait until no thread is inside SQLite, ten seconds at most, and let none in while the process forks.

    A child would wait for ever for the locks that such a thread holds, like that of the memory of all files.
    """
    _fork.taken = []  # so far: Ctrl-C may end the waiting, and the process forks all the same
    _forking.acquire()
    _fork.taken.append(_forking)
    ends = monotonic() + _FORK_SECONDS
    for lock in _locks:
        if lock.acquire(timeout=max(0.0, ends - monotonic())):
            _fork.taken.append(lock)


def _let_threads_in() -> None:
    while _fork.taken:
        _fork.taken.pop().release()


def _begin_in_child() -> None:
    _let_threads_in()
    _locks.clear()  # each file gets another one


if hasattr(os, "register_at_fork"):  # Windows has none
    os.register_at_fork(before=_keep_threads_out, after_in_parent=_let_threads_in, after_in_child=_begin_in_child)


class SqliteFile:
    """A file in WAL mode, which a process that is killed leaves whole; for this user alone.

    A damaged file is moved aside (``.damaged``) with one warning, and a new one is begun. Times of last use are
    kept in memory and written together with the next records, so that reading never waits for a writer.
    """

    kind: ClassVar[str]
    header: ClassVar[tuple[int, int]]
    """The application's number, and the format's version."""
    schema: ClassVar[Sequence[str]]
    table: ClassVar[str]
    """The one with the columns ``key`` and ``used``, whose rows are dropped to make room."""
    pragmas: ClassVar[Sequence[str]]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = 0
        self._reset()

    def _reset(self) -> None:
        """Begin anew in this process, unless another thread has."""
        with _forking:
            if self._process == os.getpid():
                return
            self._lock = threading.RLock()
            _locks.add(self._lock)
            self._connection: sqlite3.Connection | None = None
            self._last_used: dict[bytes, int] = {}
            self._process = os.getpid()  # last: from now on other threads use the rest

    def close(self) -> None:
        """Write the times of last use and close the file, which is opened again when it is needed."""
        with self._locked():
            if self._connection is not None and self._last_used:
                with suppress(sqlite3.Error), transaction(self._connection):  # only the order of eviction is lost
                    self._write_uses(self._connection)
            self._drop_connection()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns for the open connection."""
        with self._locked():
            try:
                try:
                    return work(self._open())
                except sqlite3.DatabaseError as exc:
                    if not _is_damage(exc):
                        raise
                    self._move_aside()
                    return work(self._open())
            except (sqlite3.Error, OSError) as exc:
                self._drop_connection()
                raise ScorerUnavailableError(f"the {self.kind} {self.path} cannot be used: {exc}") from exc

    def _note_uses(self, keys: Iterable[bytes]) -> None:
        self._last_used.update(dict.fromkeys(keys, time_ns()))
        if len(self._last_used) > _MAX_USES:
            connection = self._open()
            with suppress(sqlite3.OperationalError), transaction(connection):  # another one is writing: later then
                self._write_uses(connection)

    def _make_room(self, connection: sqlite3.Connection, max_bytes: int) -> None:
        """Drop the least recently used rows until the pages in use fit; within a transaction."""
        self._write_uses(connection)
        while live_bytes(connection) > max_bytes:
            count = read_number(connection, f"SELECT count(*) FROM {self.table}")  # noqa: S608 - our own name
            if not count:
                return
            connection.execute(
                f"DELETE FROM {self.table} WHERE key IN "  # noqa: S608 - our own name
                f"(SELECT key FROM {self.table} ORDER BY used, key LIMIT ?)",
                (-(-count // _EVICTED_PART),),
            )

    def _write_uses(self, connection: sqlite3.Connection) -> None:
        uses = [(used, key) for key, used in self._last_used.items()]
        connection.executemany(f"UPDATE {self.table} SET used = ? WHERE key = ?", uses)  # noqa: S608 - our own name
        self._last_used.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._process != os.getpid():
            self._reset()  # in a forked child: the connection is the parent's, and even closing it would do harm
        with self._lock:
            yield

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.touch(0o600, exist_ok=False)
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            clean_up_after(self, _close, self._lock, connection)
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if _read_header(connection) != self.header:
            with transaction(connection):
                self._create(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last writes, never the file
        for pragma in self.pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make the tables, unless another process has just done so."""
        application, version = _read_header(connection)
        if (application, version) == self.header:
            return
        if application == self.header[0]:
            raise ConfigurationError(
                f"the {self.kind} {self.path} has format {version}, not {self.header[1]}: "
                "delete it, or give another path"
            )
        if application or read_number(connection, "SELECT count(*) FROM sqlite_master"):
            raise ConfigurationError(f"{self.path} is another program's database: give another path")
        for statement in self.schema:
            connection.execute(statement)
        for name, number in zip(("application_id", "user_version"), self.header, strict=True):
            connection.execute(f"PRAGMA {name} = {number}")

    def _move_aside(self) -> None:
        """Make room for a new file, unless another process has."""
        self._drop_connection()
        try:
            if self._open().execute("PRAGMA quick_check").fetchone() == ("ok",):
                return
        except sqlite3.DatabaseError as exc:
            if not _is_damage(exc):
                raise
        self._drop_connection()
        with self.path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise ConfigurationError(f"{self.path} is no {self.kind}: give another path, or delete it")
        aside = self.path.with_name(f"{self.path.name}.damaged")
        _logger.warning(
            "the %s %s was damaged: it is now %s, and a new one is begun", self.kind, self.path, aside.name
        )
        self.path.replace(aside)
        for suffix in ("-wal", "-shm"):  # of the old file: SQLite would play them into the new one
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._salvage(aside)

    def _salvage(self, damaged: Path) -> None:
        """Take over what is whole of a damaged file, where that is worth it."""

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _close(lock: threading.RLock, connection: sqlite3.Connection) -> None:
    with lock:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Take the write lock at the beginning, so that the transaction cannot fail to get it later."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def select(connection: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    """Return the rows of a query that ends in ``IN``, for these keys."""
    for start in range(0, len(keys), KEYS_PER_QUERY):
        some = keys[start : start + KEYS_PER_QUERY]
        yield from connection.execute(f"{query} ({','.join('?' * len(some))})", some)


def read_number(connection: sqlite3.Connection, query: str) -> int:
    """Return the only number that a query gives."""
    return int(connection.execute(query).fetchone()[0])


def live_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of the file are in use."""
    pages = read_number(connection, "PRAGMA page_count") - read_number(connection, "PRAGMA freelist_count")
    return pages * read_number(connection, "PRAGMA page_size")


def _read_header(connection: sqlite3.Connection) -> tuple[int, int]:
    return read_number(connection, "PRAGMA application_id"), read_number(connection, "PRAGMA user_version")


def _is_damage(exc: sqlite3.DatabaseError) -> bool:
    """Return whether the file is damaged or no database; every other failure has a class of its own."""
    return type(exc) is sqlite3.DatabaseError
