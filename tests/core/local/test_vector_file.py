"""Vector files: records by key, several processes, damage, eviction, and other programs' files."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import ConfigurationError
from rerank_core.vectors import VectorFile, record_key

RECORDS = {record_key("model", f"text {number}"): bytes([number]) * 40_000 for number in range(50)}

WRITER = """
import sys
from rerank_core.vectors import VectorFile, record_key
file = VectorFile(sys.argv[1])
for start in range(int(sys.argv[2]), int(sys.argv[3]), 10):
    texts = [f"text {number}" for number in range(start, start + 10)]
    file.write({record_key("model", text): text.encode() * 5_000 for text in texts}, ["model"])
    print(start, flush=True)
"""


def open_with(path: Path, records: dict[bytes, bytes] = RECORDS) -> VectorFile:
    """Return a file that holds records."""
    file = VectorFile(path)
    file.write(records, ["model"])
    return file


def read(file: VectorFile, keys: Iterable[bytes] = RECORDS) -> dict[bytes, bytes]:
    """Return copies of the records of some keys."""
    return {key: bytes(record) for key, record in file.read(list(keys)).items()}


def execute(path: Path, statement: str) -> None:
    """Change a file behind its back."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def test_records_are_found_by_another_process(tmp_path: Path) -> None:
    """What one connection wrote, another one reads; what is missing is left out."""
    path = tmp_path / "new folder" / "rerank.vectors"
    open_with(path)
    assert read(VectorFile(path), [*RECORDS, b"missing"]) == RECORDS
    assert VectorFile(path).stats().documents == 50


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    """Token vectors can be turned back into text; SQLite's log gets the file's permissions."""
    file = open_with(tmp_path / "a")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    file.close()


def test_keys_tell_encoders_and_texts_apart() -> None:
    """No concatenation of the two is ambiguous."""
    assert len({record_key(*pair) for pair in (("ab", "c"), ("a", "bc"), ("ab", "d"), ("abc", ""))}) == 4


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE vectors SET record = zeroblob(length(record)) WHERE id = 7",
        "UPDATE vectors SET record = substr(record, 1, 100) WHERE id = 7",
        "UPDATE vectors SET record = 'text' WHERE id = 7",
        "UPDATE vectors SET record = (SELECT record FROM vectors WHERE id = 8) WHERE id = 7",
        "DELETE FROM vectors WHERE id = 7",
    ],
)
def test_a_damaged_record_is_missing_until_it_is_written_anew(tmp_path: Path, damage: str) -> None:
    """A record that belongs to another key is damaged too."""
    path = tmp_path / "a"
    open_with(path).close()
    execute(path, damage)
    file = VectorFile(path)
    missing = RECORDS.keys() - read(file).keys()
    assert len(missing) == 1
    file.write({key: RECORDS[key] for key in missing}, ["model"])
    assert read(file).keys() == RECORDS.keys()
    assert file.stats().documents == 50


def test_texts_are_forgotten_for_all_encoders(tmp_path: Path) -> None:
    """Compacting then gives the bytes back."""
    file = open_with(tmp_path / "a")
    file.write({record_key("other", "text 3"): b"3", record_key("other", "x"): b"x"}, ["other"])
    assert file.forget(["text 3", "text 4", "unknown"]) == 3
    assert file.stats().documents == 49
    assert file.forget(f"text {number}" for number in range(50)) == 48
    assert file.stats().free_bytes > 1_000_000
    file.compact()
    stats = file.stats()
    assert (stats.documents, stats.free_bytes) == (1, 0)
    assert (tmp_path / "a").stat().st_size == stats.bytes < 200_000
    with pytest.raises(ConfigurationError, match="single string"):
        file.forget("text 3")


def test_the_least_recently_used_records_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading counts as use, and the file stays within its bytes."""
    now = 1_000
    for module in ("_call.sqlite_file", "vectors"):
        monkeypatch.setattr(f"rerank_core.{module}.time_ns", lambda: now)
    file = VectorFile(tmp_path / "a", max_bytes=2**20)
    keys = list(RECORDS)
    for position, key in enumerate(keys):
        now += 1
        file.write({key: RECORDS[key]}, ["model"])
        now += 1
        assert read(file, keys[:1]), position
    kept = read(file, keys).keys()
    assert 15 < len(kept) < 26
    assert kept == {keys[0], *keys[1 - len(kept) :]}
    assert file.stats().bytes <= 2**20


def test_files_are_merged(tmp_path: Path) -> None:
    """What was there stays, the rest is added, and texts of both are forgotten afterwards."""
    keys = list(RECORDS)
    first = open_with(tmp_path / "a", {key: RECORDS[key] for key in keys[:30]})
    second = VectorFile(tmp_path / "b")
    second.write({**{key: RECORDS[key] for key in keys[20:]}, record_key("other", "x"): b"x"}, ["model", "other"])
    assert first.merge(second, tmp_path / "b") == 21
    assert first.stats().documents == 51
    assert first.forget(["x"]) == 1
    with pytest.raises(ConfigurationError, match="no vector file"):
        first.merge(tmp_path / "missing")


def test_copies_and_pickles_name_the_same_file(tmp_path: Path) -> None:
    """They are equal, and open a connection of their own."""
    file = VectorFile(tmp_path / "a", max_bytes=2**30)
    file.write(RECORDS, ["model"])
    for copy in (deepcopy(file), pickle.loads(pickle.dumps(file))):
        assert copy == file
        assert hash(copy) == hash(file)
        assert copy.stats() == file.stats()
    assert file != VectorFile(tmp_path / "a")


def test_what_is_no_vector_file_is_refused(tmp_path: Path) -> None:
    """Neither a text nor another database is written to, nor a file of another version."""
    (tmp_path / "text").write_text("not a database, and long enough to have a header" * 10)
    execute(tmp_path / "database", "CREATE TABLE mine (x)")
    open_with(tmp_path / "version").close()
    execute(tmp_path / "version", "PRAGMA user_version = 99")
    for name, reason in (("text", "no vector file"), ("database", "another program's"), ("version", "format 99")):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ConfigurationError, match=reason):
            read(VectorFile(tmp_path / name))
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(ConfigurationError, match="is a folder"):
        VectorFile(tmp_path)
    with pytest.raises(ConfigurationError, match="max_bytes is 5"):
        VectorFile(tmp_path / "a", max_bytes=5)


def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning; a new one is begun."""
    path = tmp_path / "a"
    open_with(path).close()
    content = bytearray(path.read_bytes())
    content[16_384:] = b"\xff" * (len(content) - 16_384)
    path.write_bytes(content)
    file = VectorFile(path)
    assert read(file) == {}
    file.write(RECORDS, ["model"])
    assert read(VectorFile(path)) == RECORDS
    assert [f"the vector file {path} was damaged" in message for message in caplog.messages] == [True]
    assert (tmp_path / "a.damaged").read_bytes() == content


@pytest.mark.parametrize("seed", range(4))
def test_of_a_damaged_file_the_whole_records_stay(tmp_path: Path, seed: int) -> None:
    """All but the few that a page belongs to."""
    path = tmp_path / "a"
    open_with(path).close()
    pages = path.stat().st_size // 4096
    content = bytearray(path.read_bytes())
    start = 4096 * random.Random(seed).randrange(pages // 2, pages)
    content[start : start + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    found = read(VectorFile(path))
    assert len(found) >= len(RECORDS) - 2
    assert found.items() <= RECORDS.items()
    assert read(VectorFile(path)) == found
    assert VectorFile(path).forget(f"text {number}" for number in range(50)) >= len(found)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """They wait for each other, and nothing is lost."""
    path = tmp_path / "a"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, *borders], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for borders in (("0", "300"), ("100", "400"))
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    assert len(read(VectorFile(path), keys_of(0, 400))) == VectorFile(path).stats().documents == 400


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_killed_writer_loses_its_last_batch_at_most(tmp_path: Path) -> None:
    """Twenty times, at any moment: what it said to be written is there and whole, and the next one writes on."""
    path = tmp_path / "a"
    dice = random.Random(0)
    written = 0
    for _ in range(20):
        said, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                file = VectorFile(path)
                for start in range(written, 10**9, 10):
                    file.write({key: key * 500 for key in keys_of(start, start + 10)}, ["model"])
                    os.write(tell, f"{start + 10}\n".encode())
            finally:
                os._exit(1)
        os.close(tell)
        told = os.read(said, 100)
        time.sleep(dice.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(said, 10_000):
            told += more
        os.close(said)
        written = int(told.split()[-1])
        file = VectorFile(path)
        assert len(read(file, keys_of(0, written))) == written
        assert file.stats().documents - written <= 10
        file.close()
    assert not path.with_name("a.damaged").exists()


def keys_of(start: int, stop: int) -> list[bytes]:
    """Return the keys of some texts."""
    return [record_key("model", f"text {number}") for number in range(start, stop)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    """The connection stays the parent's."""
    output = run_script(
        """
        import os, sys
        from rerank_core.vectors import VectorFile
        file = VectorFile(sys.argv[1])
        file.write({b"a": b"1"}, ["model"])
        child = os.fork()
        if child == 0:
            file.write({b"b": b"2"}, ["model"])
            file.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print({key: bytes(record) for key, record in file.read([b"b"]).items()})
        """,
        str(tmp_path / "a"),
    )
    assert output == "{b'b': b'2'}\n"
