"""Print what becomes of attacks on the library: attack, what must hold, what happened. POSIX only.

Each attack runs in a process of its own, against real services on loopback. With ``--minutes N`` a mixed load
runs instead, of threads, event loops, cancelled calls, forks and caches that die in cycles, while the service
fails: 5 % status 429, 2 % dropped connections, 1 % bodies of 3 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from support.loopback import running
from support.providers import KEY, scorer_of
from support.scorers import Endless
from support.soak import Soak

from rerank_core import InvalidResponseError, Reranker, RerankError, ScorerTimeoutError, Selection
from rerank_core.policies import Cached
from rerank_core.policies.caches import DiskCache
from rerank_core.testing import FakeScorer

TESTS = Path(__file__).parents[1]
QUERY = "find a memory leak"
RUNS = 40
TIMEOUT, GOAL = 0.2, 0.25
SECONDS_PER_ATTACK = 600
CROWD_SECONDS = 40.0
ONE_BYTE_BODY = (
    b"POST /v2/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
)

TESTED = {
    "4 lost answers, retries, hedges": ("the bill stays below the cap", "tools/batch/test_spending.py"),
    "5 web pages, slow and large bodies": ("refused", "tools/serve/test_serve.py"),
    "6 an index in the folder, damaged": ("rebuilt", "tools/corpus/test_index.py"),
    "7 files that take quadratic time": ("linear", "tools/corpus/test_chunks.py"),
    "8 ignored secrets": ("not read", "tools/corpus/test_files.py"),
    "9, 10 input and state rewritten": ("found, redone", "tools/batch/test_folder.py"),
    "11 kinds of strings, corrupt pages": ("found first", "tools/batch/test_parquet.py"),
    "12 escapes for the terminal": ("filtered", "tools/cli/test_cli.py -k steer"),
    "13 keys and texts repeated": ("never shown", "core/remote/test_secrets.py"),
    "14 damaged ONNX files": ("refused at once", "core/local/test_formats_onnx.py"),
    "14 damaged safetensors files": ("refused at once", "core/local/test_formats_safetensors.py"),
    "14 a model cache others may write": ("refused", "core/local/test_model_cache.py"),
    "15 waits of zero, answers with gaps": ("jitter; error", "core/remote/test_failures.py"),
}
"""Attacks that are tests already: what must hold, and the arguments of pytest."""


def peak_mib() -> float:
    """Return the most memory that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def caches_in_cycles() -> tuple[bool, str]:
    """Make 300 rerankers with caches that die in cycles."""
    with tempfile.TemporaryDirectory() as folder:
        before = threading.active_count()
        for number in range(300):
            reranker = Reranker(Cached(FakeScorer(), DiskCache(Path(folder) / "cache.db")), timeout=30.0)
            reranker.rerank(QUERY, [f"text {number}"])
            reranker.itself = reranker  # type: ignore[attr-defined]
        threads = threading.active_count() - before
    return threads <= 4, f"300 calls answered, {threads} more threads"


def bodies(**plan: int) -> tuple[bool, str]:
    """Send replies that are too large, through our client and both SDKs'."""
    outcomes = []
    with running() as loopback:
        scorers = [scorer_of(name, loopback) for name in ("jina", "cohere", "voyage")]
        loopback.plan()
        for scorer in scorers:
            Reranker(scorer).rerank(QUERY, ["a text"])
        before = peak_mib()
        loopback.plan(**plan)
        for scorer in scorers:
            try:
                Reranker(scorer).rerank(QUERY, ["a text"])
                outcomes.append("answered")
            except RerankError as exc:
                outcomes.append(type(exc).__name__)
    more = peak_mib() - before
    return set(outcomes) == {"InvalidResponseError"} and more < 50, f"{', '.join(outcomes)}; {more:.0f} MiB more"


def neighbour(documents: int, per_request: int | None, **plan: object) -> tuple[bool, str]:
    """Measure a deadline of 0.2 s while a huge call is under way, and while none is."""
    texts = [f"text number {number} about memory" for number in range(documents)]
    small = Reranker(Endless(), timeout=TIMEOUT, on_error="passthrough")

    def seconds() -> float:
        began = time.perf_counter()
        assert isinstance(small.rerank(QUERY, ["a", "b"]).error, ScorerTimeoutError)
        return time.perf_counter() - began

    alone = sorted(seconds() for _ in range(RUNS))
    with running() as loopback:
        # Of 400,000 ranked documents, the garbage collector's full runs would be measured: up to 0.25 s each.
        scorer = scorer_of("jina", loopback, documents_per_request=per_request, timeout=60.0)
        large = Reranker(scorer, selection=Selection(top_n=100))
        large.rerank(QUERY, texts[:10])
        loopback.plan(record=False, flat=True, **plan)
        ended = threading.Event()
        calls = 0

        def call() -> None:
            nonlocal calls
            while not ended.is_set():
                with contextlib.suppress(InvalidResponseError):
                    large.rerank(QUERY, texts)
                calls += 1

        thread = threading.Thread(target=call)
        thread.start()
        beside = sorted(seconds() for _ in range(RUNS))
        ended.set()
        thread.join()
    within = sum(second <= GOAL for second in beside)
    return within == RUNS, (
        f"{within} of {RUNS} within {GOAL} s, last after {beside[-1]:.3f} s "
        f"({sum(second <= GOAL for second in alone)} and {alone[-1]:.3f} s without); {calls} large calls"
    )


def crowd(connections: int, sent: bytes) -> tuple[bool, str]:
    """Open connections to ``rerank-bridge serve`` that send this and no more, while another client asks."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    body = {"query": QUERY, "documents": ["a memory leak", "tea"]}

    def wait_for(is_there: Callable[[], bool]) -> float:
        began = time.monotonic()
        while time.monotonic() < began + CROWD_SECONDS:
            with contextlib.suppress(httpx.TransportError):
                if is_there():
                    break
            time.sleep(0.2)
        return time.monotonic() - began

    def is_served() -> bool:
        return httpx.post(f"http://127.0.0.1:{port}/v2/rerank", json=body, timeout=60.0).status_code == 200

    command = [sys.executable, "-m", "rerank_tools.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    descriptors = Path(f"/proc/{process.pid}/fd")
    try:
        wait_for(is_served)
        before = len(os.listdir(descriptors))
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        for connection in crowd:
            connection.sendall(sent)
        time.sleep(1.0)
        during = len(os.listdir(descriptors))
        served = wait_for(is_served)
        freed = wait_for(lambda: len(os.listdir(descriptors)) <= before + 2)
    finally:
        process.kill()
        process.wait()
    happened = f"served after {served:.1f} s; {before} descriptors, {during}, {before} again after {freed:.1f} s"
    return max(served, freed) < CROWD_SECONDS, happened


def late_result() -> tuple[bool, str]:
    """Score on the loop for longer than the deadline."""

    class Blocking(FakeScorer):
        async def score(self, query: str, texts: object) -> object:  # type: ignore[override]
            time.sleep(0.3)  # noqa: ASYNC251 - that is the attack
            return await super().score(query, texts)  # type: ignore[arg-type]

    try:
        Reranker(Blocking(), timeout=0.1).rerank(QUERY, ["a"])
    except ScorerTimeoutError:
        return True, "ScorerTimeoutError"
    return False, "a result after the deadline"


ATTACKS: dict[str, tuple[str, Callable[[], tuple[bool, str]]]] = {
    "1 caches die in cycles": ("no call hangs, threads stay", caches_in_cycles),
    "2 a body of 200 MB": ("refused, < 50 MiB", lambda: bodies(padding=200_000_000)),
    "2 gzip of 200 MB": ("refused, < 50 MiB", lambda: bodies(padding=200_000_000, gzip=1)),
    "2 gzip in gzip of 200 MB": ("refused, < 50 MiB", lambda: bodies(padding=200_000_000, gzip=2)),
    "3 72 MB for 1,000 documents": ("neighbour ≤ 0.25 s", lambda: neighbour(1000, None, padding=72_000_000)),
    "3 400,000 documents": ("neighbour ≤ 0.25 s", lambda: neighbour(400_000, None)),
    "3 400,000 documents in a request": ("neighbour ≤ 0.25 s", lambda: neighbour(400_000, 400_000)),
    "3 a result after its deadline": ("a timeout", late_result),
    "5 128 bodies of one byte": ("served, descriptors back", lambda: crowd(128, ONE_BYTE_BODY)),
    "5 1,000 half headers": ("served, descriptors back", lambda: crowd(1000, ONE_BYTE_BODY[:30])),
}


def run_pytest(arguments: str) -> tuple[bool, str]:
    """Run tests, and return whether they passed and pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    path, *options = arguments.split()
    done = subprocess.run([*command, TESTS / path, *options], capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout.strip().splitlines() or ["nothing"])[-1]


def table(chosen: str) -> int:
    """Run every attack whose name begins with ``chosen``; return how many did not hold."""
    failed = 0
    print(f"{'':4}{'attack':38}{'must hold':30}what happened")
    for name in sorted({**ATTACKS, **TESTED}, key=lambda name: (int(name.split()[0].rstrip(",")), name)):
        if not name.startswith(chosen):
            continue
        wanted = {**ATTACKS, **TESTED}[name][0]
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--attack", name],
                capture_output=True,
                text=True,
                timeout=SECONDS_PER_ATTACK,
                check=False,
            )
            held, happened = done.returncode == 0, (done.stdout or done.stderr).strip().splitlines()[-1]
        except subprocess.TimeoutExpired:
            held, happened = False, f"hung for {SECONDS_PER_ATTACK} s"
        failed += not held
        print(f"{'ok' if held else 'NO':4}{name:38}{wanted:30}{happened}", flush=True)
    return failed


def main() -> int:
    """Print the table, or run the load; exits with 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="run the mixed load instead, for so long")
    parser.add_argument("--only", default="", help="attacks whose names begin with this")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.attack:
        if given.attack in TESTED:
            held, happened = run_pytest(TESTED[given.attack][1])
        else:
            held, happened = ATTACKS[given.attack][1]()
        print(happened.replace(KEY, "KEY"))
        return not held
    if given.minutes is None:
        return bool(table(given.only))
    with running() as loopback, tempfile.TemporaryDirectory() as folder:
        return bool(Soak(loopback, Path(folder), given.minutes * 60).run())


if __name__ == "__main__":
    sys.exit(main())
