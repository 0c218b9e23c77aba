"""A file of records by key, for several processes at once; here the token vectors of documents."""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import time
from typing import Any, TypeVar

import numpy as np

from rerank_core._call.reaper import clean_up_after
from rerank_core._support.checks import check_count
from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError, ScorerUnavailableError

__all__ = ["VectorFile", "VectorFileStats", "record_key"]

T = TypeVar("T")

_APPLICATION = 0x52524B56  # "RRKV", written into the file's header
_VERSION = 1
_BUSY_SECONDS = 10.0
_MIN_BYTES = 2**20
_KEYS_PER_QUERY = 500  # SQLite's limit was 999 variables for long
_MAX_USES = 1_000
_EVICTED_PART = 8  # an eighth, so that evicting is rare
_CHECKSUM = struct.Struct("<Q")
# A small table finds the records, because walking over the records themselves takes long.
_SCHEMA = f"""
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
    CREATE TABLE encoders (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE documents (key BLOB PRIMARY KEY, id INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE vectors (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
"""


@dataclass(frozen=True)
class VectorFileStats:
    """What a vector file holds.

    Attributes:
        documents: texts whose vectors are stored; a text counts once for each model and each set of options.
        bytes: bytes of the file that are in use.
        free_bytes: bytes of the file that are not, until :meth:`VectorFile.compact` gives them back.
    """

    documents: int
    bytes: int
    free_bytes: int


class VectorFile:
    """A file with the token vectors of documents, which any number of processes of one machine may share.

    A record is found by a digest of the model, its options and the text, so an edited text is encoded anew, and
    another model never gets these vectors. The file is a SQLite database in WAL mode: a writer that is killed
    loses its last batch at most. A damaged record counts as missing. The file is made when it is first written
    to or read, for this user alone: token vectors can be turned back into text, so protect it as you protect the
    documents. It must not lie on a network drive.

    Args:
        path: the file; its folder is made if it is missing.
        max_bytes: size of the file, at least 1 MiB; beyond it the documents that were not used for longest are
            dropped. None for no limit.

    Raises:
        ConfigurationError: ``max_bytes`` is out of its range, or the path is a folder.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.is_dir():
            raise ConfigurationError(f"the vector file {self.path} is a folder: give a file in it")
        self.max_bytes = None if max_bytes is None else check_count("max_bytes", max_bytes, least=_MIN_BYTES)
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._last_used: dict[bytes, int] = {}
        self._encoders: set[str] = set()

    def stats(self) -> VectorFileStats:
        """Return how much the file holds.

        Raises:
            ConfigurationError: it is no vector file.
            ScorerUnavailableError: it cannot be read.
        """
        return self._run(_read_stats)

    def forget(self, texts: Iterable[str]) -> int:
        """Drop what is stored of these texts, for all models, and return how many records that were.

        Their bytes may stay in the file until :meth:`compact`.

        Raises:
            ConfigurationError: it is no vector file, or ``texts`` is a single string.
            ScorerUnavailableError: it cannot be written.
        """
        if isinstance(texts, str):
            raise ConfigurationError("texts is a single string: give a list of texts")
        wanted = list(texts)

        def work(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                names = [name for (name,) in connection.execute("SELECT name FROM encoders")]
                keys = [(record_key(name, text),) for name in names for text in wanted]
                connection.executemany(
                    "DELETE FROM vectors WHERE id = (SELECT id FROM documents WHERE key = ?)", keys
                )
                return connection.executemany("DELETE FROM documents WHERE key = ?", keys).rowcount

        return self._run(work)

    def compact(self) -> None:
        """Write the file anew without the bytes that are not in use; takes as much space again meanwhile.

        Raises:
            ConfigurationError: it is no vector file.
            ScorerUnavailableError: it cannot be written, or another process is using it.
        """

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._run(work)

    def merge(self, *others: VectorFile | str | os.PathLike[str]) -> int:
        """Add what other vector files hold and this one does not, and return how many records that were.

        Raises:
            ConfigurationError: one of them is missing, or no vector file.
            ScorerUnavailableError: one cannot be read, or this one cannot be written.
        """
        added = 0
        for other in others:
            source = other if isinstance(other, VectorFile) else VectorFile(other)
            if not source.path.is_file():
                raise ConfigurationError(f"there is no vector file {source.path}")
            names, keys = source._run(_list_content)
            known = set(self._run(_list_content)[1])
            missing = [key for key in keys if key not in known]
            for start in range(0, len(missing), _KEYS_PER_QUERY):
                records = source.read(missing[start : start + _KEYS_PER_QUERY])
                self.write(records, names)
                added += len(records)
            source.close()
        return added

    def close(self) -> None:
        """Close the file, which is opened again when it is needed."""
        with self._locked():
            if self._connection is not None and self._last_used:
                with suppress(sqlite3.Error):  # only the order of eviction is lost
                    self._write_uses(self._connection)
            connection, self._connection = self._connection, None
            self._encoders.clear()
            if connection is not None:
                connection.close()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, memoryview]:
        """Return the records of the keys that are there and whole.

        Raises:
            ConfigurationError: it is no vector file.
            ScorerUnavailableError: it cannot be read.
        """

        def work(connection: sqlite3.Connection) -> dict[bytes, memoryview]:
            found = dict(_select(connection, keys))
            if self.max_bytes is not None:
                self._last_used.update(dict.fromkeys(found, int(time())))
            if len(self._last_used) > _MAX_USES:
                with suppress(sqlite3.OperationalError):  # another process is writing: later then
                    self._write_uses(connection)
            return found

        return self._run(work)

    def write(self, records: Mapping[bytes, bytes | memoryview], encoders: Iterable[str]) -> None:
        """Keep records in one transaction, and drop the least recently used ones beyond ``max_bytes``.

        Args:
            records: by :func:`record_key`.
            encoders: the names that the keys were made with.

        Raises:
            ConfigurationError: it is no vector file.
            ScorerUnavailableError: it cannot be written.
        """
        names = set(encoders)

        def work(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                if not names <= self._encoders:
                    connection.executemany(
                        "INSERT OR IGNORE INTO encoders VALUES (?)", [(name,) for name in names]
                    )
                for key, record in records.items():
                    _put(connection, key, record)
                if self.max_bytes is not None:
                    self._write_uses(connection, inside=True)
                    _evict(connection, self.max_bytes)
            self._encoders |= names

        self._run(work)

    def _write_uses(self, connection: sqlite3.Connection, *, inside: bool = False) -> None:
        uses = [(used, key) for key, used in self._last_used.items()]
        with nullcontext() if inside else _transaction(connection):
            connection.executemany("UPDATE documents SET used = ? WHERE key = ?", uses)
        self._last_used.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._process != os.getpid():
            self._reset()  # in a forked child: the connection is the parent's, and even closing it would do harm
        with self._lock:
            yield

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._locked():
            try:
                return work(self._open())
            except (sqlite3.Error, OSError) as exc:
                raise ScorerUnavailableError(f"the vector file {self.path} cannot be used: {exc}") from exc

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            clean_up_after(self, connection.close)
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            if not _read_number(connection, "SELECT count(*) FROM sqlite_master"):
                connection.execute("PRAGMA page_size = 16384")
                connection.execute("PRAGMA journal_mode = WAL")
                with _transaction(connection):
                    if not _read_number(connection, "SELECT count(*) FROM sqlite_master"):
                        for statement in _SCHEMA.split(";"):
                            connection.execute(statement)
            application = _read_number(connection, "PRAGMA application_id")
        except sqlite3.DatabaseError as exc:
            if type(exc) is not sqlite3.DatabaseError:
                raise
            raise ConfigurationError(
                f"{self.path} is no vector file, or is damaged ({exc}): delete it, or give another path"
            ) from exc
        version = _read_number(connection, "PRAGMA user_version")
        if application != _APPLICATION:
            raise ConfigurationError(f"{self.path} is another program's database: give another path")
        if version != _VERSION:
            raise ConfigurationError(
                f"the vector file {self.path} has format {version}, not {_VERSION}: delete it or give another"
            )
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last writes, never the file
        connection.execute(f"PRAGMA journal_size_limit = {2**26}")
        connection.execute(f"PRAGMA mmap_size = {2**40}")  # SQLite takes as much of it as it can

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VectorFile):
            return NotImplemented
        return (self.path, self.max_bytes) == (other.path, other.max_bytes)

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(VectorFile, max_bytes=self.max_bytes), (self.path,)

    def __repr__(self) -> str:
        return f"VectorFile({str(self.path)!r}, max_bytes={self.max_bytes})"


def record_key(encoder: str, text: str) -> bytes:
    """Return the key of a text's record: a digest of what encoded it, with all its options, and of the text."""
    return bytes.fromhex(digest(encoder, text))


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


def _put(connection: sqlite3.Connection, key: bytes, record: bytes | memoryview) -> None:
    stored = _checksum(key, record) + record
    known = connection.execute("SELECT id FROM documents WHERE key = ?", (key,)).fetchone()
    if known is not None:  # damaged, or another process was faster
        connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (known[0], stored))
        return
    position = connection.execute("INSERT INTO vectors (record) VALUES (?)", (stored,)).lastrowid
    connection.execute("INSERT INTO documents VALUES (?, ?, ?)", (key, position, int(time())))


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, memoryview]]:
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(some))
        query = (  # a CROSS JOIN is done in this order
            "SELECT key, record FROM documents CROSS JOIN vectors ON vectors.id = documents.id "  # noqa: S608 - only marks
            f"WHERE key IN ({marks})"
        )
        for key, stored in connection.execute(query, some):
            if isinstance(stored, bytes):
                record = memoryview(stored)[_CHECKSUM.size :]
                if stored[: _CHECKSUM.size] == _checksum(key, record):
                    yield key, record


def _checksum(key: bytes, record: bytes | memoryview) -> bytes:
    """Return the sum of a record's eight-byte words, the rest and the beginning of its key."""
    words = len(record) // 8
    total = int(np.frombuffer(record, "<u8", words).sum()) + int.from_bytes(key[:8], "little")
    return _CHECKSUM.pack((total + int.from_bytes(record[8 * words :], "little")) % 2**64)


def _evict(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Drop the least recently used records until the pages in use fit."""
    while (stats := _read_stats(connection)).bytes > max_bytes and stats.documents:
        count = -(-stats.documents // _EVICTED_PART)
        oldest = connection.execute("SELECT key, id FROM documents ORDER BY used, id LIMIT ?", (count,)).fetchall()
        connection.executemany("DELETE FROM vectors WHERE id = ?", [(position,) for _, position in oldest])
        connection.executemany("DELETE FROM documents WHERE key = ?", [(key,) for key, _ in oldest])


def _list_content(connection: sqlite3.Connection) -> tuple[list[str], list[bytes]]:
    """Return the names of the encoders and the keys of all records, in the order in which these lie."""
    names = [name for (name,) in connection.execute("SELECT name FROM encoders")]
    return names, [key for (key,) in connection.execute("SELECT key FROM documents ORDER BY id")]


def _read_stats(connection: sqlite3.Connection) -> VectorFileStats:
    page = _read_number(connection, "PRAGMA page_size")
    free = _read_number(connection, "PRAGMA freelist_count") * page
    used = _read_number(connection, "PRAGMA page_count") * page - free
    return VectorFileStats(_read_number(connection, "SELECT count(*) FROM documents"), used, free)


def _read_number(connection: sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0])
