"""Files that are complete or absent, locks between processes, and digests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rerank_core._support.files import digest, digest_file, lock_file, write_atomically


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """The old content stays until the new one is complete, and nothing is left beside it."""
    path = tmp_path / "folder" / "file"
    with write_atomically(path) as file:
        file.write(b"old")
    with suppress(RuntimeError), write_atomically(path) as file:
        file.write(b"new")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    with write_atomically(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """Whoever may read other files of this user may read this one."""
    with write_atomically(tmp_path / "ours") as file:
        file.write(b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_names_of_any_length_can_be_written(tmp_path: Path) -> None:
    """The file beside has a name that the system takes, too."""
    with write_atomically(tmp_path / ("n" * 250)) as file:
        file.write(b"x")
    with write_atomically(tmp_path / ("語" * 80)) as file:
        file.write(b"x")
    assert len(os.listdir(tmp_path)) == 2


HOLDER = """
import sys
from pathlib import Path
from rerank_core._support.files import lock_file
with lock_file(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """Another process is refused while it is held, and waits if it is told to."""
    path = tmp_path / "folder" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(TimeoutError), lock_file(path):
        pass
    threading.Timer(0.1, holder.kill).start()
    with lock_file(path, wait_seconds=60.0):
        assert holder.wait() != 0
    holder.communicate()


def test_a_digest_depends_on_every_part_and_on_where_it_ends(tmp_path: Path) -> None:
    """Texts and bytes alike; lone surrogates have one, too."""
    assert digest("a", "b") == digest(b"a", b"b")
    assert len({digest("ab"), digest("a", "b"), digest("", "ab"), digest("ab", ""), digest("\ud800")}) == 5
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    assert digest_file(tmp_path / "file") != digest("x")
    (tmp_path / "same").write_bytes(b"x" * 3_000_000)
    assert digest_file(tmp_path / "file") == digest_file(tmp_path / "same")
