"""The cache of made models: several processes, kills, and folders that cannot be written or trusted."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import ConfigurationError
from rerank_core.local.model_cache import cache_folder, fingerprint_files, get_or_make

MAKER = """
import sys, time
from pathlib import Path
from rerank_core.local.model_cache import get_or_make

def make(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "first.bin").write_bytes(b"a" * 1000)
    print("making", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "second.bin").write_bytes(b"b" * 1000)

print(get_or_make("entry", make), flush=True)
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


def start(seconds: float) -> subprocess.Popen[str]:
    """Start a process that takes so long to make an entry."""
    return subprocess.Popen([sys.executable, "-c", MAKER, str(seconds)], stdout=subprocess.PIPE, text=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of made models, of this test alone."""
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_an_entry_is_made_once(folder: Path) -> None:
    """The next call finds it, in a folder that is this user's alone."""
    made: list[Path] = []
    entry = get_or_make("key", maker(made=made))
    assert entry == folder / "key"
    assert (entry / "model.onnx").read_bytes() == b"weights"
    assert get_or_make("key", never) == entry
    assert get_or_make("other", maker(b"other")) != entry
    assert len(made) == 1
    assert names(folder) == {"key", "other"}
    assert os.name != "posix" or stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_processes_that_want_the_same_entry_wait_for_the_first(folder: Path) -> None:
    """Three at once: one makes it, and all get it whole."""
    processes = [start(0.3) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(len(output) for output in outputs) == [2, 2, 3]
    assert {output[-2] for output in outputs} == {str(folder / "entry")}
    assert (folder / "entry" / "second.bin").stat().st_size == 1000


def test_threads_that_want_the_same_entry_wait_for_the_first(folder: Path) -> None:
    """As the engines' threads of a process do."""
    made: list[Path] = []
    found: list[Path] = []
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        found.append(get_or_make("key", maker(made=made)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder / "key"] * 4
    assert len(made) == 1


def test_what_a_killed_maker_left_is_no_entry(folder: Path) -> None:
    """The next one begins anew, and nothing of it stays."""
    process = start(60)
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(folder) == {".entry.part"}
    assert (get_or_make("entry", maker()) / "model.onnx").is_file()
    assert names(folder) == {"entry"}
    assert not (folder / "entry" / "sub").exists()


def test_a_failing_maker_leaves_nothing(folder: Path) -> None:
    """Its error comes through, also an OSError that is a library's and not the system's."""
    for error in (ConfigurationError("no such model"), OSError("cannot load the model"), KeyboardInterrupt()):

        def fail(part: Path, error: BaseException = error) -> None:
            (part / "half.bin").write_bytes(b"half")
            raise error

        with pytest.raises(type(error)) as caught:
            get_or_make("key", fail)
        assert caught.value is error
        assert not names(folder)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no disk that is always full")
def test_a_full_disk_says_what_to_do(folder: Path) -> None:
    """The system's own error, as a file on a full disk gives it."""

    def make(part: Path) -> None:
        (part / "half.bin").write_bytes(b"half")
        with open("/dev/full", "wb") as disk:
            disk.write(b"the other half")

    with pytest.raises(
        ConfigurationError, match=r"No space left on device.*set RERANK_BRIDGE_CACHE to a folder that has room"
    ) as caught:
        get_or_make("key", make)
    assert isinstance(caught.value.__cause__, OSError)
    assert not names(folder)


def test_a_file_that_cannot_be_written_says_what_to_do() -> None:
    """Any other refusal by the system while an entry is written."""

    def make(part: Path) -> None:
        (part / "sub" / "model.onnx").write_bytes(b"")

    with pytest.raises(
        ConfigurationError, match=r"No such file.*set RERANK_BRIDGE_CACHE to a folder that has room"
    ):
        get_or_make("key", make)


def test_an_unwritable_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="file.*set RERANK_BRIDGE_CACHE to a folder that has room"):
        get_or_make("key", never)


@pytest.mark.skipif(os.name != "posix", reason="permissions are not in the mode")
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    """Also where the entry is there, which they could have put there; the error has the path and the reason."""
    get_or_make("key", maker())
    folder.chmod(mode)
    for key in ("key", "other"):
        with pytest.raises(ConfigurationError) as caught:
            get_or_make(key, never)
        assert f"models in {folder} are not trusted, because others may write there (mode {mode:o})" in str(
            caught.value
        )
        assert f"run 'chmod go-w {folder}', or set RERANK_BRIDGE_CACHE" in str(caught.value)
    folder.chmod(0o755)
    assert get_or_make("key", never) == folder / "key"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    """But not root's, as images bring them."""
    get_or_make("key", maker())
    os.chown(folder, 12345, -1)
    with pytest.raises(
        ConfigurationError, match=r"belongs to another user \(uid 12345\): change its owner, or set"
    ):
        get_or_make("key", never)


READ_ONLY = """
import os, sys
from rerank_core import ConfigurationError
from rerank_core.local.model_cache import cache_folder, get_or_make

import filelock
os.environ["RERANK_BRIDGE_CACHE"] = sys.argv[1]
folder = cache_folder()
get_or_make("key", lambda entry: None)
folder.chmod(0o555)
if os.geteuid() == 0:
    os.setuid(65534)  # permissions bind all but root
print(get_or_make("key", None) == folder / "key")
try:
    get_or_make("other", lambda entry: None)
except ConfigurationError as exc:
    print(exc)
"""


def test_entries_of_a_folder_that_is_read_only_are_used() -> None:
    """As an image brings them; others cannot be made, and the error says what to do."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user alone
        Path(folder).chmod(0o755)
        lines = run_script(READ_ONLY, folder).split("\n")
    assert lines[0] == "True"
    assert "(Permission denied): set RERANK_BRIDGE_CACHE" in lines[1]


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it is in the user's cache folder, as the system has it."""
    assert cache_folder() == tmp_path / "models"
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert "rerank-bridge" in cache_folder().parts
    assert cache_folder().name == "models"


def test_a_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    """By path, size and time; texts by their borders, too; a link counts as the file that it leads to."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_bytes(b"weights")
        os.utime(path, ns=(1, 1))
    (tmp_path / "link").symlink_to(first)
    before = fingerprint_files(first)
    assert before == fingerprint_files(first) == fingerprint_files(tmp_path / "link")
    found = [before, *map(fingerprint_files, (second, "xy", "x\0y")), fingerprint_files("x", "y")]
    os.utime(first, ns=(1, 2))
    found.append(fingerprint_files(first))
    first.write_bytes(b"longer weights")
    os.utime(first, ns=(1, 2))
    found.append(fingerprint_files(first))
    assert len(set(found)) == len(found)
