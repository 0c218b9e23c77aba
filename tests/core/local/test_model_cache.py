"""The cache of made models: several processes, kills, damage, and folders that cannot be written."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripts import run_script

from rerank_core import ConfigurationError
from rerank_core.local.model_cache import ModelCache, digest_of, model_cache

MAKER = """
import sys, time
from pathlib import Path
from rerank_core.local.model_cache import ModelCache

def make(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "first.bin").write_bytes(b"a" * 1000)
    print("making", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "second.bin").write_bytes(b"b" * 1000)

print(ModelCache(sys.argv[1]).get_or_make("entry", make), flush=True)
"""


def maker(content: bytes = b"weights", made: list[Path] | None = None) -> Callable[[Path], None]:
    """Return what makes an entry of one file, and notes where it was called."""

    def make(folder: Path) -> None:
        assert not list(folder.iterdir())
        if made is not None:
            made.append(folder)
        (folder / "model.onnx").write_bytes(content)

    return make


def never(folder: Path) -> None:
    """Fail: the entry should have been there."""
    raise AssertionError(f"made anew in {folder}")


def names(folder: Path) -> set[str]:
    """Return what is in a folder, but for locks."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """Start a process that takes so long to make an entry."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    """Also for another object, which another process would have."""
    made: list[Path] = []
    cache = ModelCache(tmp_path / "models")
    entry = cache.get_or_make("key", maker(made=made))
    assert entry == tmp_path / "models" / "key"
    assert (entry / "model.onnx").read_bytes() == b"weights"
    assert cache.get_or_make("key", never) == ModelCache(tmp_path / "models").get_or_make("key", never) == entry
    assert cache.get_or_make("other", maker(b"other")) != entry
    assert len(made) == 1
    assert names(tmp_path / "models") == {"key", "other"}


def test_processes_that_want_the_same_entry_wait_for_the_first(tmp_path: Path) -> None:
    """Three at once: one makes it, and all get it whole."""
    processes = [start(tmp_path, 0.3) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(len(output) for output in outputs) == [2, 2, 3]
    assert {output[-2] for output in outputs} == {str(tmp_path / "entry")}
    assert (tmp_path / "entry" / "second.bin").stat().st_size == 1000


def test_threads_that_want_the_same_entry_wait_for_the_first(tmp_path: Path) -> None:
    """One object, as the engines' threads of a process share it."""
    cache, made, found = ModelCache(tmp_path), [], []
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        found.append(cache.get_or_make("key", maker(made=made)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "key"] * 4
    assert len(made) == 1


def test_a_killed_maker_leaves_nothing_for_long(tmp_path: Path) -> None:
    """What it left is no entry, and goes at the next use, even of another entry."""
    process = start(tmp_path, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(names(tmp_path)) == 1
    ModelCache(tmp_path).get_or_make("other", maker())
    assert names(tmp_path) == {"other"}
    assert (ModelCache(tmp_path).get_or_make("entry", maker()) / "model.onnx").is_file()


def test_what_a_living_maker_has_made_so_far_stays(tmp_path: Path) -> None:
    """Another process that tidies up meanwhile leaves it alone."""
    process = start(tmp_path, 0.6)
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    ModelCache(tmp_path).get_or_make("other", maker())
    assert len(names(tmp_path)) == 2
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert names(tmp_path) == {"other", "entry"}


@pytest.mark.parametrize("known", [False, True])
@given(data=st.data())
def test_a_damaged_entry_is_made_anew(
    tmp_path_factory: pytest.TempPathFactory, known: bool, data: st.DataObject
) -> None:
    """Cut, gone, or its manifest overwritten; a change of bytes is noticed at an object's first use."""
    folder = tmp_path_factory.mktemp("cache")
    content = data.draw(st.binary(min_size=1, max_size=50))
    cache = ModelCache(folder)
    entry = cache.get_or_make("key", maker(content))
    kinds = ["cut", "longer", "file gone", "manifest gone", "manifest"] + ([] if known else ["byte"])
    kind = data.draw(st.sampled_from(kinds))
    model, manifest = entry / "model.onnx", entry / "manifest.json"
    if kind == "cut":
        model.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    elif kind == "longer":
        model.write_bytes(content + b"x")
    elif kind == "byte":
        where = data.draw(st.integers(0, len(content) - 1))
        changed = content[:where] + bytes([content[where] ^ data.draw(st.integers(1, 255))]) + content[where + 1 :]
        model.write_bytes(changed)
    elif kind == "manifest":
        manifest.write_text(
            data.draw(st.sampled_from(["", "[]", "{", "3", '{"model.onnx": 3}', '{"no": [1, ""]}']))
        )
    else:
        (model if kind == "file gone" else manifest).unlink()
    made: list[Path] = []
    fresh = cache if known else ModelCache(folder)
    assert fresh.get_or_make("key", maker(content, made)) == entry
    assert len(made) == 1
    assert model.read_bytes() == content
    assert names(folder) == {"key"}
    ModelCache(folder).get_or_make("key", never)


def test_damage_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line, with the folder."""
    (ModelCache(tmp_path).get_or_make("key", maker()) / "model.onnx").write_bytes(b"other bytes")
    with caplog.at_level(logging.WARNING, "rerank_core"):
        ModelCache(tmp_path).get_or_make("key", maker())
    (record,) = caplog.records
    assert f"{tmp_path / 'key'} is damaged" in record.getMessage()


def test_a_failing_maker_leaves_nothing(tmp_path: Path) -> None:
    """Its error comes through, also an OSError that is a library's and not the system's."""
    cache = ModelCache(tmp_path)
    for error in (ConfigurationError("no such model"), OSError("cannot load the model"), KeyboardInterrupt()):

        def fail(folder: Path, error: BaseException = error) -> None:
            (folder / "half.bin").write_bytes(b"half")
            raise error

        with pytest.raises(type(error)) as caught:
            cache.get_or_make("key", fail)
        assert caught.value is error
        assert not names(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no disk that is always full")
def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    """The system's own error, as a file on a full disk gives it."""

    def make(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        with open("/dev/full", "wb") as disk:
            disk.write(b"the other half")

    with pytest.raises(
        ConfigurationError, match=r"No space left on device.*free some space there, or set RERANK_BRIDGE_CACHE"
    ) as caught:
        ModelCache(tmp_path).get_or_make("key", make)
    assert isinstance(caught.value.__cause__, OSError)
    assert not names(tmp_path)


def test_a_file_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    """Any other refusal by the system while an entry is written."""

    def make(folder: Path) -> None:
        (folder / "sub" / "model.onnx").write_bytes(b"")

    with pytest.raises(ConfigurationError, match=r"No such file.*set RERANK_BRIDGE_CACHE to a folder that can be"):
        ModelCache(tmp_path).get_or_make("key", make)


def test_an_unwritable_folder_is_replaced_by_a_temporary_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For this process, with one warning; it goes with the cache."""
    (tmp_path / "file").write_text("no folder")
    made: list[Path] = []
    cache = ModelCache(tmp_path / "file" / "models")
    with caplog.at_level(logging.WARNING, "rerank_core"):
        entry = cache.get_or_make("key", maker(made=made))
        assert cache.get_or_make("key", maker(made=made)) == entry
        other = cache.get_or_make("other", maker(made=made))
    assert (entry / "model.onnx").is_file()
    assert other.parent == entry.parent
    assert tmp_path not in entry.parents
    assert len(made) == 2
    (record,) = caplog.records
    assert str(tmp_path / "file") in record.getMessage()
    assert "set RERANK_BRIDGE_CACHE to a folder that can be written" in record.getMessage()
    del cache
    assert not entry.parent.exists()


READ_ONLY = """
import logging, os, sys
from pathlib import Path
from rerank_core.local.model_cache import ModelCache

logging.basicConfig(format="%(message)s", stream=sys.stdout)
import filelock
folder = Path(sys.argv[1])
ModelCache(folder).get_or_make("key", lambda entry: None)
folder.chmod(0o555)
if os.geteuid() == 0:
    os.setuid(65534)  # permissions bind all but root
cache = ModelCache(folder)
print(cache.get_or_make("key", None) == folder / "key")
temporary = cache.get_or_make("other", lambda entry: None)
if os.fork() == 0:
    sys.exit()
os.wait()
print(temporary.is_dir(), temporary.parent != folder)
print(temporary.parent)
"""


def test_entries_of_a_folder_that_is_read_only_are_used() -> None:
    """As an image brings them; others are made in a temporary folder, which goes when its process ends."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user alone
        Path(folder).chmod(0o755)
        lines = run_script(READ_ONLY, f"{folder}/models").split("\n")
    assert lines[0] == "True"
    assert "Permission denied" in lines[1]
    assert lines[2] == "True True"
    assert not Path(lines[3]).exists()


@pytest.mark.parametrize("key", ["", "../key", "a/b", ".key", "a" * 101, "a.b"])
def test_a_key_is_a_file_name(tmp_path: Path, key: str) -> None:
    """Anything else could leave the folder, or be taken for a leftover."""
    with pytest.raises(ValueError, match="is no key"):
        ModelCache(tmp_path).get_or_make(key, never)


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it is the user's cache folder, as the system has it; equal folders share one object."""
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path))
    assert model_cache().folder == tmp_path / "models"
    assert model_cache() is model_cache()
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert "rerank-bridge" in model_cache().folder.parts
    assert model_cache().folder.name == "models"


def test_digests_tell_parts_apart(tmp_path: Path) -> None:
    """Contents, their order and their borders; not the files' names."""
    for name, content in (("a", b"xy"), ("b", b"x"), ("c", b"y"), ("d", b"xy")):
        (tmp_path / name).write_bytes(content)
    a, b, c, d = (tmp_path / name for name in "abcd")
    assert digest_of(a) == digest_of(d)
    different = [digest_of(a), digest_of(b, c), digest_of(c, b), digest_of("xy"), digest_of("x", "y"), digest_of()]
    assert len(set(different)) == 6
