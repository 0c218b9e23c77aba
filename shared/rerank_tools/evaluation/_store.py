"""What was answered already, a line an answer, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerank_tools.evaluation._runs import file_name
from rerank_tools.evaluation.results import QueryResult

from rerank_core.errors import ConfigurationError
from rerank_core.reranker import Reranker
from rerank_core.usage import Usage

__all__ = ["Store", "question"]

_FORMAT = 1


class Store:
    """The answers of one system, in a file of its own; without a folder nothing is kept.

    A line is written at once and is flushed to the disk before the next call; a half-written one is ignored.
    The file's name holds a digest of the system's name and options, each line one of the query and its
    candidates' texts, so that only what changed is asked again. No text is stored.

    Args:
        folder: made where it is missing; None to keep nothing.
        name: the system's name.
        reranker: the system.

    Raises:
        ConfigurationError: the folder cannot be made or read, or the scorer's options cannot be told apart (see
            :meth:`rerank_core.Scorer.cache_key`).
    """

    def __init__(self, folder: Path | None, name: str, reranker: Reranker) -> None:
        self._path: Path | None = None
        self._answers: dict[str, QueryResult] = {}
        if folder is None:
            return
        options = repr([_FORMAT, name, reranker.scorer.cache_key(), reranker.selection])
        self._path = folder / f"{file_name(name)}-{_digest([options])[:16]}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as exc:
            raise ConfigurationError(f"save_to={str(folder)!r} cannot be used: {exc.strerror}") from exc
        for line in lines:
            self._answers.update(_parsed(line))

    def get(self, key: str) -> QueryResult | None:
        """Return the answer to a question, None where it was not asked yet."""
        return self._answers.get(key)

    def put(self, key: str, result: QueryResult) -> None:
        """Keep an answer; a failure is none, and is asked again next time.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        if self._path is None or result.error is not None:
            return
        # A line that was cut off half-way ends here, and not in front of this one.
        line = "\n" + json.dumps({"key": key, **asdict(result)}) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise ConfigurationError(f"{self._path} cannot be written: {exc.strerror}") from exc


def question(query: str, candidates: Mapping[str, str]) -> str:
    """Return a fingerprint of a query and its candidates, ids and texts, in order."""
    return _digest([query, *(part for pair in candidates.items() for part in pair)])


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode(errors="replace")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _parsed(line: bytes) -> dict[str, QueryResult]:
    try:
        row = json.loads(line)
        key = row.pop("key")
        usage = Usage(**row.pop("usage"))
        lists: dict[str, Any] = {
            name: tuple(row.pop(name)) for name in ("candidates", "scores", "ranked", "ranked_scores")
        }
        result = QueryResult(**lists, **row, usage=usage)
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # cut off, or not ours: asked again
    return {key: result}
