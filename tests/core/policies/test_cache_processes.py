"""One cache file and several processes: at once, killed, and forked."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import Reranker
from rerank_core.policies import Cached
from rerank_core.policies.caches import DiskCache
from rerank_core.testing import FakeScorer

KILLS = 20

WRITER = """
import sys
from rerank_core import Reranker
from rerank_core.policies.caches import DiskCache
from rerank_core.policies import Cached
from rerank_core.testing import FakeScorer

path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = FakeScorer()
reranker = Reranker(Cached(model, DiskCache(path, max_bytes=2**18), cache_timeout=30.0))
number, cached = first, 0
while number < first + count:
    texts = [f"text {text}" for text in range(number, number + 20)]
    cached += reranker.rerank("query", texts).usage.cached
    print(number, flush=True)
    number += 20
reranker.close()
print("cached", cached)
"""


def whole(path: Path) -> bool:
    """Return whether SQLite finds nothing wrong with a file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_killed_writer_leaves_the_cache_whole(tmp_path: Path) -> None:
    """Twenty times, at any moment of its writing; what it answered before is there afterwards."""
    path = tmp_path / "cache.db"
    dice = random.Random(0)
    for attempt in range(KILLS):
        answered, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                reranker = Reranker(Cached(FakeScorer(), DiskCache(path, max_bytes=2**18), cache_timeout=30.0))
                for number in range(10**9):
                    reranker.rerank("query", texts_of(attempt, number))
                    os.write(tell, f"{number}\n".encode())
            finally:
                os._exit(1)
        os.close(tell)
        told = os.read(answered, 100)
        time.sleep(dice.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(answered, 10_000):
            told += more
        os.close(answered)
        assert whole(path)
        model = FakeScorer()
        with Reranker(Cached(model, DiskCache(path, max_bytes=2**18), cache_timeout=30.0)) as reranker:
            reranker.rerank("query", texts_of(attempt, int(told.split()[-1])))
        assert model.calls == 0
    assert not path.with_name("cache.db.damaged").exists()


def texts_of(attempt: int, number: int) -> list[str]:
    """Return the texts of one call."""
    return [f"{attempt} {number} {text}" for text in range(20)]


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    """They write at once, and each finds what the other has written."""
    path = tmp_path / "cache.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, first, "400"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for first in ("0", "400")
    ]
    for writer in writers:
        output, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
        assert "cached 0" in output
    assert whole(path)
    with Reranker(Cached(FakeScorer(), DiskCache(path, max_bytes=2**18), cache_timeout=30.0)) as reranker:
        assert reranker.rerank("query", [f"text {number}" for number in range(800)]).usage.cached == 800


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    """The parent's connection and its calls under way stay the parent's."""
    output = run_script(
        """
        import os, sys, threading, time
        from rerank_core import Reranker
        from rerank_core.policies.caches import DiskCache
        from rerank_core.policies import Cached
        from rerank_core.testing import FakeScorer

        model = FakeScorer()
        reranker = Reranker(Cached(model, DiskCache(sys.argv[1]), cache_timeout=30.0))
        reranker.rerank("query", ["a", "b"])
        model.latency = 1.0
        busy = threading.Thread(target=reranker.rerank, args=("query", ["c"]))
        busy.start()
        while not model.active:
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            model.latency = 0.0
            usage = reranker.rerank("query", ["a", "b", "c"]).usage
            reranker.close()
            print(usage.cached, usage.documents, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        busy.join()
        print(reranker.rerank("query", ["a", "b", "c"]).usage.cached)
        reranker.close()
        """,
        str(tmp_path / "cache.db"),
    )
    assert output.split() == ["2", "1", "3"]
    assert whole(tmp_path / "cache.db")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_waits_until_no_thread_is_inside_sqlite(tmp_path: Path) -> None:
    """The child would inherit locks that nobody opens, and wait for ever at its first use of any file."""
    output = run_script(
        """
        import os, sys, threading, time, warnings
        from pathlib import Path
        from rerank_core.vectors import VectorFile

        warnings.simplefilter("ignore", DeprecationWarning)
        entered, steps = threading.Event(), []

        def work(connection):
            entered.set()
            time.sleep(0.3)
            steps.append("worked")

        first, second = (VectorFile(Path(sys.argv[1], name)) for name in "ab")
        thread = threading.Thread(target=first._run, args=(work,))
        thread.start()
        entered.wait()
        child = os.fork()
        steps.append("forked")
        if child == 0:
            os._exit(0 if first._run(lambda connection: 5) == second._run(lambda connection: 5) else 1)
        thread.join()
        print(steps, os.waitpid(child, 0)[1], second._run(lambda connection: 7))
        """,
        str(tmp_path),
    )
    assert output == "['worked', 'forked'] 0 7\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_that_is_interrupted_as_it_waits_leaves_no_lock(tmp_path: Path) -> None:
    """The process forks all the same, and afterwards any file can be used, and the next fork ends."""
    output = run_script(
        """
        import os, signal, sys, threading, warnings
        from pathlib import Path
        from rerank_core.vectors import VectorFile

        warnings.simplefilter("ignore", DeprecationWarning)
        sys.unraisablehook = lambda unraisable: print(unraisable.exc_type.__name__)
        entered, released = threading.Event(), threading.Event()

        def work(connection):
            entered.set()
            released.wait()

        first = VectorFile(Path(sys.argv[1], "a"))
        thread = threading.Thread(target=first._run, args=(work,))
        thread.start()
        entered.wait()
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
        for _ in range(2):
            child = os.fork()
            if child == 0:
                os._exit(first.stats().documents)
            print(os.waitpid(child, 0)[1])
            released.set()
        print(VectorFile(Path(sys.argv[1], "b")).stats().documents)
        """,
        str(tmp_path),
    )
    assert output.split() == ["KeyboardInterrupt", "0", "0", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_threads_of_a_forked_child_never_use_the_parents_connection(tmp_path: Path) -> None:
    """Several use the file for the first time at once, and may be interrupted anywhere."""
    output = run_script(
        """
        import os, sys, threading, warnings
        from pathlib import Path
        from rerank_core.vectors import VectorFile

        warnings.simplefilter("ignore", DeprecationWarning)
        file = VectorFile(Path(sys.argv[1], "a"))
        parents = file._run(lambda connection: connection)
        failed = 0
        for _ in range(60):
            child = os.fork()
            if child == 0:
                sys.setswitchinterval(1e-7)
                barrier, own = threading.Barrier(8), []

                def use():
                    barrier.wait()
                    own.append(file._run(lambda connection: connection is not parents))

                threads = [threading.Thread(target=use) for _ in range(8)]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                os._exit(0 if own == [True] * 8 else 1)
            failed += os.waitpid(child, 0)[1] != 0
        print(failed)
        """,
        str(tmp_path),
    )
    assert output == "0\n"
