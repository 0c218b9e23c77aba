"""The output folder: what is in it, and what a run before this one finished.

::

    manifest.json             what input and options the folder is for
    rows/part-00000.jsonl     results: the input's rows with three more columns
    errors/part-00000.jsonl   rows that failed, with the reason
    state/part-00000.done     that a part is written: how many rows, and what they consumed
    state/part-00000.journal  finished rows of a part that is not written, or in which rows failed
    state/lock                held by the run
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage
from rerank_tools.batch._atomic import lock, write_atomically
from rerank_tools.batch._journal import Journal, read_journal
from rerank_tools.batch._rows import Outcome, usage_of, usage_row
from rerank_tools.batch._source import Source

__all__ = ["PartState", "Store"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class PartState:
    """How far a part is.

    Attributes:
        rows: how many it has.
        finished: rows with a result.
        failed: rows whose failure is the last that is known of them.
        usage: what it consumed so far.
        written: its output file is there, and no row of it failed.
    """

    rows: int
    finished: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    written: bool = False


class Store:
    """The output folder of a job.

    Args:
        folder: made where it is not there.
        rows: of the input.
        step: rows of a part.
        suffix: of the files with results.
    """

    def __init__(self, folder: Path, *, rows: int, step: int, suffix: str) -> None:
        self.folder = folder
        self.parts = [range(start, min(start + step, rows)) for start in range(0, rows, step)]
        self._suffix = suffix

    def check(self, source: Source, deciding: dict[str, Any]) -> bool:
        """Return whether the folder was begun, by a run with the same input and options.

        Raises:
            ConfigurationError: by another one; or it holds something else.
        """
        path = self.folder / "manifest.json"
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise ConfigurationError(
                    f"{self.folder} is not empty, and no output of a batch: give a new folder"
                ) from None
            return False
        except ValueError:
            raise ConfigurationError(f"{path} is not JSON: give a new folder") from None
        wanted = _manifest(source, deciding)
        if found != wanted:
            raise ConfigurationError(
                f"{self.folder} was begun with another {_difference(found, wanted)}: "
                "give what it was begun with, or another folder"
            )
        return True

    @contextmanager
    def begun(self, source: Source, deciding: dict[str, Any]) -> Iterator[None]:
        """Hold the folder for this run, and write the manifest where there is none.

        Raises:
            ConfigurationError: another run holds it, or as :meth:`check`.
        """
        known = self.check(source, deciding)
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        with (self.folder / "state" / "lock").open("ab") as file:
            lock(file, str(self.folder))
            if not known:
                text = json.dumps(_manifest(source, deciding), indent=2, ensure_ascii=False)
                write_atomically(self.folder / "manifest.json", text.encode(errors="backslashreplace") + b"\n")
            yield

    def state(self, number: int) -> PartState:
        """Return how far a part is."""
        rows = len(self.parts[number])
        done = self._path("state", number, ".done")
        if done.exists():
            what = json.loads(done.read_bytes())
            if not what["failed"]:
                return PartState(rows, what["finished"], 0, usage_of(what["usage"]), written=True)
        found = read_journal(self._path("state", number, ".journal"))
        finished = {outcome.number for outcome in found if outcome.error is None}
        failed = {outcome.number for outcome in found} - finished
        return PartState(rows, len(finished), len(failed), sum((outcome.usage for outcome in found), Usage()))

    def finished(self, number: int) -> set[int]:
        """Return the rows of a part that is not written which have a result."""
        found = read_journal(self._path("state", number, ".journal"))
        return {outcome.number for outcome in found if outcome.error is None}

    @contextmanager
    def journal(self, number: int) -> Iterator[Journal | None]:
        """Open the journal of a part; None where another process has written the part meanwhile."""
        path = self._path("state", number, ".journal")
        with Journal.opened(path) as journal:
            if self.state(number).written:
                path.unlink(missing_ok=True)
                yield None
            else:
                yield journal

    def write(self, number: int, data: bytes, journal: Journal) -> PartState:
        """Write a part whose rows all have an outcome: the failures, the results, then that it is done."""
        outcomes = [journal.outcomes[row] for row in self.parts[number]]
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        errors = self._path("errors", number, ".jsonl")
        if failed:
            write_atomically(errors, "".join(map(_error_line, failed)).encode())
        else:
            errors.unlink(missing_ok=True)
        write_atomically(self._path("rows", number, self._suffix), data)
        usage = journal.before + journal.usage
        finished = len(outcomes) - len(failed)
        what = {"finished": finished, "failed": len(failed), "usage": usage_row(usage)}
        write_atomically(self._path("state", number, ".done"), json.dumps(what).encode())
        if not failed:
            self._path("state", number, ".journal").unlink()
        return PartState(len(outcomes), finished, len(failed), usage, written=not failed)

    def _path(self, folder: str, number: int, suffix: str) -> Path:
        return self.folder / folder / f"part-{number:05}{suffix}"


def _error_line(outcome: Outcome) -> str:
    what = {"row": outcome.number, "error": outcome.error, "reason": outcome.reason}
    return json.dumps({**what, "usage": usage_row(outcome.usage)}) + "\n"


def _manifest(source: Source, deciding: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "input": {"name": source.path.name, "rows": source.rows, "sha256": source.sha256},
        "options": deciding,
    }


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        return "version of this package"
    if found.get("input") != wanted["input"]:
        return "input, or that was changed since"
    options = found.get("options", {})
    return "; another ".join(
        f"{name} ({options.get(name)!r}, not {value!r})"
        for name, value in wanted["options"].items()
        if options.get(name) != value
    )
