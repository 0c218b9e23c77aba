"""Journals: what was appended is read again, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.scripts import run_script

from rerank_tools.journal import Journal, read_journal

FIRST: dict[str, Any] = {"row": 0, "scores": [0.1 + 0.2, 1e-300], "text": "é\ud800\u2028"}
SECOND: dict[str, Any] = {"row": 1}


@pytest.mark.parametrize(
    "end", ["", "\n", "{", '{"row": 2, "usage": {}}\n', "null\n", '{"row": 3\x00\x00', "[1]\n"]
)
def test_a_torn_journal_loses_no_line_but_its_last(tmp_path: Path, end: str) -> None:
    """What is appended after it is read again, too."""
    path = tmp_path / "state" / "part.journal"
    with Journal(path, "job", sync=True) as journal:
        assert journal.entries == []
        journal.append(FIRST)
    with path.open("a") as file:
        file.write(end)
    with Journal(path, "job") as journal:
        assert journal.entries == [FIRST]
        journal.append(SECOND)
    assert read_journal(path, "job") == [FIRST, SECOND]


def test_lines_that_were_changed_or_are_of_another_job_are_ignored(tmp_path: Path) -> None:
    """Each entry has a checksum over itself and the job's key."""
    path = tmp_path / "journal"
    with Journal(path, "job") as journal:
        journal.append({"row": 1, "indices": [1, 0]})
    line = path.read_text()
    assert read_journal(path, "job") == [{"row": 1, "indices": [1, 0]}]
    assert read_journal(path, "another job") == []
    path.write_text(f"{line.replace('[1, 0]', '[7, 0]')}{'[' * 100_000}\n{line}{line.replace('1', '2')}")
    assert read_journal(path, "job") == [{"row": 1, "indices": [1, 0]}]
    assert read_journal(tmp_path / "absent", "job") == []


def test_one_entry_takes_the_place_of_all(tmp_path: Path) -> None:
    """And what a run appends later follows it."""
    path = tmp_path / "journal"
    with Journal(path, "job") as journal:
        journal.append(FIRST)
        journal.replace(SECOND)
    assert read_journal(path, "job") == [SECOND]
    with Journal(path, "job") as journal:
        journal.append(FIRST)
    assert read_journal(path, "job") == [SECOND, FIRST]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_an_entry_for_which_the_disk_has_no_room_is_an_error(tmp_path: Path) -> None:
    """The system writes a part of it without one; and what is written once there is room again is read."""
    script = """
        import resource, sys
        from pathlib import Path
        from rerank_tools.journal import Journal, read_journal

        path = Path(sys.argv[1])
        with Journal(path, "job") as journal:
            journal.append({"row": 0})
            limit = path.stat().st_size + 10
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                journal.append({"row": 1})
            except OSError as error:
                print(type(error).__name__)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            journal.append({"row": 2})
        print([entry["row"] for entry in read_journal(path, "job")])
    """
    assert run_script(script, str(tmp_path / "journal")).split("\n")[:2] == ["OSError", "[0, 2]"]
