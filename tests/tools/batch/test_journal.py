"""Journals: what was appended is read again, and nothing else."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import Usage
from rerank_tools.batch.journal import PartJournal, PartState, read_journal
from rerank_tools.batch.rows import Outcome

FIRST = Outcome(0, [1, 0], [0.1 + 0.2, 1e-300], Usage(tokens=3))
FAILED = Outcome(1, error="ScorerError", reason="é\ud800\u2028")


def write(path: Path, *outcomes: Outcome, key: str = "job") -> None:
    """Append outcomes to a journal."""
    journal = PartJournal(path, key, {}, Usage(), ExitStack())
    for outcome in outcomes:
        journal.add(outcome)
    journal.close()


def read(path: Path, key: str = "job") -> list[Outcome]:
    """Return the outcomes of a journal."""
    return [Outcome.from_dict(entry) for entry in read_journal(path, key)]


@pytest.mark.parametrize(
    "end", ["", "\n", "{", '{"row": 2, "usage": {}}\n', "null\n", '{"row": 3\x00\x00', "[1]\n"]
)
def test_a_torn_journal_loses_no_line_but_its_last(tmp_path: Path, end: str) -> None:
    """What is appended after it is read again, too."""
    path = tmp_path / "part.journal"
    assert read(path) == []
    write(path, FIRST)
    with path.open("a") as file:
        file.write(end)
    assert read(path) == [FIRST]
    write(path, FAILED)
    assert read(path) == [FIRST, FAILED]


def test_lines_that_were_changed_or_are_of_another_job_are_ignored(tmp_path: Path) -> None:
    """Each entry has a checksum over itself and the key of job and part."""
    path = tmp_path / "journal"
    write(path, FIRST)
    line = path.read_text()
    assert read(path) == [FIRST]
    assert read(path, "another job") == []
    path.write_text(f"{line.replace('[1, 0]', '[7, 0]')}{'[' * 100_000}\n{line}{line.replace('1', '2')}")
    assert read(path) == [FIRST]


def test_one_entry_takes_the_place_of_all(tmp_path: Path) -> None:
    """It tells what the part consumed, and the digest of its output."""
    path = tmp_path / "journal"
    journal = PartJournal(path, "job", {}, Usage(), ExitStack())
    journal.add(FIRST)
    journal.abandon(1, Usage(tokens=4))
    (tmp_path / "results").write_text("all")
    journal.finish(tmp_path / "results")
    journal.close()
    (entry,) = read_journal(path, "job")
    state = PartState(2, True, frozenset(), 0, Usage(tokens=7))
    assert PartState.from_entries(2, [entry], is_written=True) == (state, {})
    write(path, FAILED)
    assert [*map(set, read_journal(path, "job"))] == [{"written", "usage"}, {"row", "usage", "error", "reason"}]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_an_entry_for_which_the_disk_has_no_room_is_an_error(tmp_path: Path) -> None:
    """The system writes a part of it without one; and what is written once there is room again is read."""
    script = """
        import resource, sys
        from contextlib import ExitStack
        from pathlib import Path
        from rerank_core import Usage
        from rerank_tools.batch.journal import PartJournal, read_journal

        path = Path(sys.argv[1])
        journal = PartJournal(path, "job", {}, Usage(), ExitStack())
        journal.reserve(0, 1.0)
        limit = path.stat().st_size + 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            journal.reserve(1, 1.0)
        except OSError as error:
            print(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal.reserve(2, 1.0)
        print([entry["sent"] for entry in read_journal(path, "job")])
    """
    assert run_script(script, str(tmp_path / "journal")).split("\n")[:2] == ["OSError", "[0, 2]"]
