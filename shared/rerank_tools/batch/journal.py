"""A part's journal: what became of its rows, so that an interrupted job goes on, and pays for nothing twice.

Each line is a JSON object with a checksum over it, the job and the part. Lines that were cut off or changed, or
belong to another job, are ignored when a journal is read.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_core._support.files import digest, digest_file, write_atomically
from rerank_core.usage import Usage
from rerank_tools.batch.rows import Outcome, usage_to_dict

_CHECKSUM = "checksum"

_Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PartState:
    """How far a part is: its finished rows, none where its output is written, and how many failed at last."""

    rows: int
    is_written: bool
    finished: Collection[int]
    failed: int
    usage: Usage

    @classmethod
    def from_entries(
        cls, rows: int, entries: Iterable[_Entry], *, is_written: bool
    ) -> tuple[PartState, dict[int, Outcome]]:
        """Return what a journal tells, and the outcomes of the finished rows, which take much more memory.

        Rows of which nothing is known after they were sent count at their most.
        """
        usage = Usage()
        outcomes: dict[int, Outcome] = {}
        sent: dict[int, float] = {}
        for entry in entries:
            if "sent" in entry:
                usage += _lost(sent.pop(entry["sent"], 0.0))
                sent[entry["sent"]] = entry["max_cost"]
                continue
            row: int = entry["row"] if "row" in entry else entry.get("abandoned", -1)
            sent.pop(row, None)
            usage += Usage(**entry["usage"])
            if "row" in entry:
                outcomes[row] = Outcome.from_dict(entry)
        finished = {row: outcome for row, outcome in outcomes.items() if outcome.error is None}
        usage += _lost(sum(sent.values()))
        state = cls(rows, is_written, frozenset(finished), len(outcomes) - len(finished), usage)
        return state, finished

    @property
    def finished_rows(self) -> int:
        """How many rows have a result."""
        return self.rows if self.is_written else len(self.finished)


class PartJournal:
    """A part's journal, opened to append to it, and the part's lock.

    An entry is handed to the operating system at once, so killing the process loses none. ``outcomes`` holds the
    last one of each row by its position in the input, without failures of earlier runs, whose rows are tried
    again; ``usage`` is what the part consumed in all.
    """

    def __init__(self, path: Path, key: str, outcomes: dict[int, Outcome], usage: Usage, lock: ExitStack) -> None:
        self.outcomes = outcomes
        self.usage = usage
        self._path = path
        self._key = key
        self._lock = lock
        self._file = path.open("ab", buffering=0)
        self._is_written = False

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of a row."""
        self._append(outcome.to_dict())
        self.outcomes[outcome.number] = outcome
        self.usage += outcome.usage

    def reserve(self, row: int, max_cost: float) -> None:
        """Record that a row is sent: if nothing else is recorded of it, it counts as having cost the most."""
        self._append({"sent": row, "max_cost": max_cost})

    def abandon(self, row: int, usage: Usage) -> None:
        """Record what a row consumed that has no outcome, because the run ended."""
        self._append({"abandoned": row, "usage": usage_to_dict(usage)})
        self.usage += usage

    def finish(self, results: Path) -> None:
        """Record that the part's output file is complete, in the place of all other entries."""
        self._file.close()
        entry = {"written": digest_file(results), "usage": usage_to_dict(self.usage)}
        with write_atomically(self._path) as file:
            file.write(_render_entry(entry, self._key))
        self._is_written = True

    def close(self) -> None:
        """Close the file, and release the part's lock."""
        self._file.close()
        self._lock.close()
        if self._is_written:
            # Whoever waits for the lock finds the part written, whichever lock file it gets.
            with suppress(OSError):
                self._path.with_suffix(".lock").unlink()

    def _append(self, entry: _Entry) -> None:
        line = b"\n" + _render_entry(entry, self._key)  # begins a line, because the one before may be cut off
        if self._file.write(line) < len(line):  # a disk that is nearly full takes a part of it without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))


def read_journal(path: Path, key: str) -> list[_Entry]:
    """Return the entries of a journal, in order; none where there is no such file."""
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").split("\n")
    return [entry for entry in (_parse_entry(line, key) for line in lines if line) if entry is not None]


def _render_entry(entry: _Entry, key: str) -> bytes:
    content = json.dumps(entry)
    return f'{content[:-1]}, "{_CHECKSUM}": "{digest(key, content)}"}}\n'.encode()


def _parse_entry(line: str, key: str) -> _Entry | None:
    try:
        entry = json.loads(line)
        checksum = entry.pop(_CHECKSUM)
        return entry if checksum == digest(key, json.dumps(entry)) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _lost(max_cost: float) -> Usage:
    return Usage(cost_margin=max_cost, estimated=max_cost > 0.0)
