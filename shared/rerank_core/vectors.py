"""Files that keep documents' token vectors: see :class:`VectorFile`."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any

from rerank_core._call.request import read_texts
from rerank_core._call.sqlite_file import KEYS_PER_QUERY, SqliteFile, live_bytes, read_number, select, transaction
from rerank_core._support.checks import check_count
from rerank_core._support.files import absolute_file, digest
from rerank_core.errors import ConfigurationError

__all__ = ["VectorFile", "VectorFileStats", "record_key"]

_MIN_BYTES = 2**20
_CHECKSUM = struct.Struct("<Q")
# A CROSS JOIN is done in this order.
_SELECT = "SELECT key, record FROM documents CROSS JOIN vectors ON vectors.id = documents.id WHERE key IN"


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


@dataclass(init=False, unsafe_hash=True)
class VectorFile(SqliteFile):
    """A file with the token vectors of documents, which any number of processes of one machine may share.

    A record is found by a digest of the model, its options and the text, so an edited text is encoded anew, and
    another model never gets these vectors. The file is a SQLite database in WAL mode: a writer that is killed
    loses its last batch at most. A damaged record counts as missing; of a damaged file a new one keeps the records
    that are whole. The file is made when it is first written to or read, for this user alone: token vectors can be
    turned back into text, so protect it as you protect the documents. It must not lie on a network drive.

    Args:
        path: the file; its folder is made if it is missing.
        max_bytes: size of the file, at least 1 MiB; beyond it the documents that were not used for longest are
            dropped. None for no limit.

    Raises:
        ConfigurationError: ``max_bytes`` is out of its range, or the path is a folder; by all methods: the file is
            no vector file.
        ScorerUnavailableError: by all methods: the file cannot be read or written.
    """

    path: Path
    max_bytes: int | None

    kind = "vector file"
    header = 0x52524B56, 1  # "RRKV"
    # A small table finds the records, because walking over the records themselves takes long.
    schema = (
        "CREATE TABLE encoders (name TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE documents (key BLOB PRIMARY KEY, id INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE vectors (id INTEGER PRIMARY KEY, record BLOB NOT NULL)",
        "CREATE TRIGGER dropped AFTER DELETE ON documents BEGIN DELETE FROM vectors WHERE id = OLD.id; END",
    )
    table = "documents"
    pragmas = (f"journal_size_limit = {2**26}", f"mmap_size = {2**40}")  # SQLite takes as much as it can

    def __init__(self, path: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        super().__init__(absolute_file(path))
        self.max_bytes = None if max_bytes is None else check_count("max_bytes", max_bytes, least=_MIN_BYTES)

    def stats(self) -> VectorFileStats:
        """Return how much the file holds."""

        def work(connection: sqlite3.Connection) -> VectorFileStats:
            documents = read_number(connection, "SELECT count(*) FROM documents")
            free = read_number(connection, "PRAGMA freelist_count") * read_number(connection, "PRAGMA page_size")
            return VectorFileStats(documents, live_bytes(connection), free)

        return self._run(work)

    def forget(self, texts: Iterable[str]) -> int:
        """Drop what is stored of these texts, for all models, and return how many records that were.

        Their bytes may stay in the file until :meth:`compact`.

        Raises:
            ConfigurationError: ``texts`` is a single string, or holds something else.
        """
        if isinstance(texts, str):
            raise ConfigurationError("texts is a single string: give a list of texts")
        wanted = read_texts(list(texts), None)

        def work(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                names = [name for (name,) in connection.execute("SELECT name FROM encoders")]
                keys = [record_key(name, text) for name in names for text in wanted]
                return _delete(connection, keys)

        return self._run(work)

    def compact(self) -> None:
        """Write the file anew without the bytes that are not in use; takes as much space again meanwhile.

        Raises:
            ScorerUnavailableError: another process is using it.
        """

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._run(work)

    def merge(self, *others: VectorFile | str | os.PathLike[str]) -> int:
        """Add what other vector files hold and this one does not, and return how many records that were.

        Raises:
            ConfigurationError: one of them is missing.
        """
        added = 0
        for other in others:
            source = other if isinstance(other, VectorFile) else VectorFile(other)
            if not source.path.is_file():
                raise ConfigurationError(f"there is no vector file {source.path}")
            names, keys = source._run(_list_content)
            known = set(self._run(_list_content)[1])
            missing = [key for key in keys if key not in known]
            for start in range(0, len(missing), KEYS_PER_QUERY):
                records = source.read(missing[start : start + KEYS_PER_QUERY])
                self.write(records, names)
                added += len(records)
            source.close()
        return added

    def read(self, keys: Sequence[bytes]) -> dict[bytes, memoryview]:
        """Return the records of the keys that are there and whole."""

        def work(connection: sqlite3.Connection) -> dict[bytes, memoryview]:
            found = _read_whole(connection, keys)
            if self.max_bytes is not None:
                self._note_uses(found)
            return found

        return self._run(work)

    def write(self, records: Mapping[bytes, bytes | memoryview], encoders: Iterable[str]) -> None:
        """Keep records in one transaction, and drop the least recently used ones beyond ``max_bytes``.

        Args:
            records: by :func:`record_key`.
            encoders: the names that the keys were made with.
        """

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany("INSERT OR IGNORE INTO encoders VALUES (?)", [(name,) for name in encoders])
                _delete(connection, records)  # damaged ones, or another process was faster
                for key, record in records.items():
                    stored = _checksum(key, record) + record
                    place = connection.execute("INSERT INTO vectors (record) VALUES (?)", (stored,)).lastrowid
                    connection.execute("INSERT INTO documents VALUES (?, ?, ?)", (key, place, time_ns()))
                if self.max_bytes is not None:
                    self._make_room(connection, self.max_bytes)

        self._run(work)

    def _salvage(self, damaged: Path) -> None:
        """Take over the records that are whole."""
        with closing(sqlite3.connect(f"{damaged.as_uri()}?immutable=1", uri=True)) as connection:
            try:
                names, keys = _list_content(connection)
            except sqlite3.DatabaseError:
                return
            for start in range(0, len(keys), KEYS_PER_QUERY):
                whole: dict[bytes, memoryview] = {}
                for key in keys[start : start + KEYS_PER_QUERY]:
                    with suppress(sqlite3.DatabaseError):
                        whole |= _read_whole(connection, [key])
                self.write(whole, names)

    def __reduce__(self) -> tuple[Any, ...]:
        return VectorFile, (self.path, self.max_bytes)


def record_key(encoder: str, text: str) -> bytes:
    """Return the key of a text's record: a digest of what encoded it, with all its options, and of the text."""
    return bytes.fromhex(digest(encoder, text))


def _read_whole(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, memoryview]:
    """Return the records of the keys that are there, without damaged ones."""
    found = {}
    for key, stored in select(connection, _SELECT, keys):
        if isinstance(stored, bytes):
            record = memoryview(stored)[_CHECKSUM.size :]
            if stored[: _CHECKSUM.size] == _checksum(key, record):
                found[key] = record
    return found


def _delete(connection: sqlite3.Connection, keys: Iterable[bytes]) -> int:
    return connection.executemany("DELETE FROM documents WHERE key = ?", [(key,) for key in keys]).rowcount


def _checksum(key: bytes, record: bytes | memoryview) -> bytes:
    """Return the sum of a record's eight-byte words, the rest and the beginning of its key."""
    import numpy as np  # here, because this module is imported where numpy may be missing

    words = len(record) // 8
    total = int(np.frombuffer(record, "<u8", words).sum()) + int.from_bytes(key[:8], "little")
    return _CHECKSUM.pack((total + int.from_bytes(record[8 * words :], "little")) % 2**64)


def _list_content(connection: sqlite3.Connection) -> tuple[list[str], list[bytes]]:
    """Return the names of the encoders and the keys of all records, in the order in which these lie."""
    names = [name for (name,) in connection.execute("SELECT name FROM encoders")]
    return names, [key for (key,) in connection.execute("SELECT key FROM documents ORDER BY id")]
