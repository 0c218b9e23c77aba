"""The SQLite file of a :class:`rerank_core.policies.caches.DiskCache`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time_ns

from rerank_core._call.sqlite_file import SqliteFile, select, transaction


class ScoreFile(SqliteFile):
    """Values by key; blocking.

    Attributes:
        executor: the only thread that uses it.
    """

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
        """Return the values of the keys that are there."""

        def work(connection: sqlite3.Connection) -> dict[bytes, bytes]:
            found = dict(select(connection, "SELECT key, value FROM scores WHERE key IN", keys))
            self._note_uses(found)
            return found

        return self._run(work)

    def put(self, values: Mapping[bytes, bytes], max_bytes: int) -> None:
        """Keep values, and drop the least recently used ones until the pages in use take ``max_bytes`` at most."""

        def work(connection: sqlite3.Connection) -> None:
            now = time_ns()
            with transaction(connection):
                connection.executemany(
                    "INSERT OR REPLACE INTO scores (key, value, used) VALUES (?, ?, ?)",
                    [(key, value, now) for key, value in values.items()],
                )
                self._make_room(connection, max_bytes)

        self._run(work)
