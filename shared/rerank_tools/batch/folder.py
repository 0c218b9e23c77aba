"""The output folder: what it holds, and which parts of it are finished.

::

    manifest.json             the input and the options that the folder belongs to
    rows/part-00000.jsonl     results: the input's rows with three more columns
    errors/part-00000.jsonl   rows that failed, with the reason
    state/part-00000.journal  outcomes of a part's rows; where all have a result, its usage and its file's digest
    state/part-00000.lock     held by the process that works on the part
    state/lock                held by the run

Everything in ``state/`` carries a checksum over the job and the part. What does not fit, or whose file in
``rows/`` is missing or was changed, is not believed: those rows are reranked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rerank_core._support.files import digest, digest_file, lock_file, write_atomically
from rerank_core.errors import ConfigurationError
from rerank_tools.batch.journal import PartJournal, PartState, read_journal
from rerank_tools.batch.rows import Outcome
from rerank_tools.batch.sources import Source

_VERSION = 3
_WAIT_SECONDS = 10.0
"""Workers outlive a driver that was killed for about a second."""


class BatchFolder:
    """The output folder of a job; the options are those that decide the result, by name."""

    def __init__(self, path: Path, source: Source, options: dict[str, Any], *, rows_per_part: int) -> None:
        self.path = path
        self.parts = [
            range(start, min(start + rows_per_part, source.rows)) for start in range(0, source.rows, rows_per_part)
        ]
        self._suffix = source.suffix
        self._manifest = {
            "version": _VERSION,
            "input": {"name": source.path.name, "rows": source.rows, "digest": source.digest},
            "options": options,
        }
        self._key = digest(json.dumps(self._manifest))

    def check(self) -> bool:
        """Return whether the folder was begun by a run with the same input and options; refuse any other's."""
        path = self.path / "manifest.json"
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if self.path.exists() and (not self.path.is_dir() or any(map(_is_foreign, self.path.iterdir()))):
                raise ConfigurationError(
                    f"{self.path} is not empty and not the output of a batch: give a new folder"
                ) from None
            return False
        except ValueError:
            raise ConfigurationError(f"{path} is not JSON: give a new folder") from None
        if found != self._manifest:
            raise ConfigurationError(
                f"{self.path} was begun with {_describe_difference(found, self._manifest)}: "
                "give what it was begun with, or another folder"
            )
        return True

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other runs out of the folder, and write the manifest where there is none."""
        is_begun = self.check()
        with ExitStack() as held:
            hold_lock(held, self.path / "state" / "lock", str(self.path))
            if not is_begun:
                text = json.dumps(self._manifest, indent=2, ensure_ascii=False)
                _write(self.path / "manifest.json", text.encode(errors="backslashreplace") + b"\n")
            for leftover in self.path.rglob(".*.tmp"):  # of a run that was killed
                leftover.unlink(missing_ok=True)
            yield

    def load_part(self, number: int) -> PartState:
        """Return how far a part is, from what the folder holds."""
        return self._read_part(number)[0]

    def load_parts(self) -> dict[int, PartState]:
        """Return how far all parts are."""
        return {number: self.load_part(number) for number in range(len(self.parts))}

    def open_part(self, number: int) -> PartJournal | None:
        """Lock a part and open its journal; None where another process has written the part meanwhile.

        Waits up to 10 seconds for the lock: call it in a worker thread.
        """
        path = self._path("state", number, ".journal")
        with ExitStack() as held:
            hold_lock(held, path.with_suffix(".lock"), str(self.path), wait_seconds=_WAIT_SECONDS)
            state, outcomes = self._read_part(number)
            if state.is_written:
                return None
            return PartJournal(path, self._part_key(number), outcomes, state.usage, held.pop_all())

    def write_part(self, number: int, data: bytes, journal: PartJournal) -> None:
        """Write a part whose rows all have an outcome: the failures, the results, then that it is done."""
        failed = [outcome for row in self.parts[number] if (outcome := journal.outcomes[row]).error]
        errors, results = self._path("errors", number, ".jsonl"), self._path("rows", number, self._suffix)
        if failed:
            _write(errors, b"".join(json.dumps(outcome.to_dict()).encode() + b"\n" for outcome in failed))
        else:
            errors.unlink(missing_ok=True)
        _write(results, data)
        if not failed:
            journal.finish(results)

    def _read_part(self, number: int) -> tuple[PartState, dict[int, Outcome]]:
        entries = read_journal(self._path("state", number, ".journal"), self._part_key(number))
        is_written = any(self._is_intact(number, entry["written"]) for entry in entries if "written" in entry)
        return PartState.from_entries(len(self.parts[number]), entries, is_written=is_written)

    def _is_intact(self, number: int, expected: str) -> bool:
        try:
            return digest_file(self._path("rows", number, self._suffix)) == expected
        except FileNotFoundError:
            return False

    def _part_key(self, number: int) -> str:
        return f"{self._key} {number}"

    def _path(self, folder: str, number: int, suffix: str) -> Path:
        return self.path / folder / f"part-{number:05}{suffix}"


def _is_foreign(path: Path) -> bool:
    """Return whether a file was not left by a run that was killed before it wrote the manifest."""
    return path.name != "state" and not path.name.startswith(".manifest.json.")


def hold_lock(held: ExitStack, path: Path, name: str, *, wait_seconds: float = 0.0) -> None:
    """Keep other runs away from what is named, until the stack is closed."""
    try:
        held.enter_context(lock_file(path, wait_seconds=wait_seconds))
    except TimeoutError:
        raise ConfigurationError(
            f"another run is writing {name}: wait until it has ended, or write elsewhere"
        ) from None


def _write(path: Path, data: bytes) -> None:
    with write_atomically(path) as file:
        file.write(data)


def _describe_difference(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        return "another version of this package"
    if found.get("input") != wanted["input"]:
        return "another input, or the input was changed since"
    options = found.get("options", {})
    return "; ".join(
        f"another {name} ({options.get(name)!r}, not {value!r})"
        for name, value in wanted["options"].items()
        if options.get(name) != value
    )
