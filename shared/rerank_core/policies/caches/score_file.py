"""The SQLite file of a :class:`rerank_core.policies.caches.DiskCache`; blocking, and used by one thread."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import TypeVar

from rerank_core.errors import ScorerUnavailableError

__all__ = ["ScoreFile"]

T = TypeVar("T")

_APPLICATION = 0x52524B43  # "RRKC", written into the file's header
_VERSION = 1
_HEADER = b"SQLite format 3\0"
_BUSY_SECONDS = 5.0
_KEYS_PER_QUERY = 500  # SQLite's limit was 999 variables for long
_MAX_TIMES = 10_000
_EVICTED_PART = 8  # an eighth, so that evicting is rare

_logger = logging.getLogger("rerank_core")


class ScoreFile:
    """Values by key, each with the time of its last use.

    These times are written together with the next values, so that reading never waits for a writer.

    Args:
        path: the file; it is opened when needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._last_used: dict[bytes, int] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are there.

        Raises:
            ScorerUnavailableError: the file cannot be read, or is not a cache.
        """
        found = self._run(lambda connection: _select(connection, keys))
        now = time_ns()
        self._last_used.update(dict.fromkeys(found, now))
        if len(self._last_used) > _MAX_TIMES:
            self._run(self._write)
        return found

    def put(self, values: Mapping[bytes, bytes], max_bytes: int) -> None:
        """Keep values, and drop the least recently used ones until the pages in use take ``max_bytes`` at most.

        Raises:
            ScorerUnavailableError: the file cannot be written, or is not a cache.
        """
        self._run(lambda connection: self._write(connection, values, max_bytes))

    def close(self) -> None:
        """Write what is pending and close the file; it is opened again when needed."""
        if self._connection is not None and self._last_used:
            with suppress(ScorerUnavailableError):  # only the order of eviction is lost
                self._run(self._write)
        self._last_used.clear()
        self._drop_connection()

    def _write(
        self,
        connection: sqlite3.Connection,
        values: Mapping[bytes, bytes] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        now = time_ns()
        with _transaction(connection):
            connection.executemany(
                "UPDATE scores SET used = ? WHERE key = ?", [(used, key) for key, used in self._last_used.items()]
            )
            connection.executemany(
                "INSERT OR REPLACE INTO scores (key, value, used) VALUES (?, ?, ?)",
                [(key, value, now) for key, value in (values or {}).items()],
            )
            if max_bytes is not None:
                _evict(connection, max_bytes)
        self._last_used.clear()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
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
            raise ScorerUnavailableError(f"the cache {self._path} cannot be used: {exc}") from exc

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        made_by = (
            _read_number(connection, "PRAGMA application_id"),
            _read_number(connection, "PRAGMA user_version"),
        )
        if made_by != (_APPLICATION, _VERSION):
            with _transaction(connection):
                self._create(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last writes, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {2**20}")

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make the table, unless another process has just done so."""
        application, version = (
            _read_number(connection, "PRAGMA application_id"),
            _read_number(connection, "PRAGMA user_version"),
        )
        if (application, version) == (_APPLICATION, _VERSION):
            return
        if application == _APPLICATION:
            raise ScorerUnavailableError(
                f"the cache {self._path} has format {version}, not {_VERSION}: delete it, or give another path"
            )
        if application or _read_number(connection, "SELECT count(*) FROM sqlite_master"):
            raise ScorerUnavailableError(f"{self._path} is another program's database: give another path")
        connection.execute(
            "CREATE TABLE scores (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX scores_by_use ON scores (used)")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")

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
        with self._path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise ScorerUnavailableError(f"{self._path} is no cache: give another path, or delete it")
        aside = self._path.with_name(f"{self._path.name}.damaged")
        _logger.warning("the cache %s was damaged: it is now %s, and a new one is begun", self._path, aside.name)
        self._path.replace(aside)
        for suffix in ("-wal", "-shm"):  # of the old file: SQLite would play them into the new one
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Take the write lock at the beginning, so that the transaction cannot fail to get it later."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(some))
        found.update(connection.execute(f"SELECT key, value FROM scores WHERE key IN ({marks})", some))  # noqa: S608
    return found


def _evict(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Drop the least recently used values until the pages in use fit."""
    while _live_bytes(connection) > max_bytes:
        count = _read_number(connection, "SELECT count(*) FROM scores")
        if not count:
            return
        connection.execute(
            "DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY used, key LIMIT ?)",
            (-(-count // _EVICTED_PART),),
        )


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages = _read_number(connection, "PRAGMA page_count") - _read_number(connection, "PRAGMA freelist_count")
    return pages * _read_number(connection, "PRAGMA page_size")


def _read_number(connection: sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0])


def _is_damage(exc: sqlite3.DatabaseError) -> bool:
    """Return whether the file is damaged or no database; every other failure has a class of its own."""
    return type(exc) is sqlite3.DatabaseError
