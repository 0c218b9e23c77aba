"""Load the development server from a second process, and print what came back, how late, and its memory.

Clients ask at once, one in ten disconnects before its answer, and whoever is refused asks again after a while.
Then the same documents through the engine, one call at a time and many at once: what dynamic batching is worth.

    python tests/benchmarks/serve.py [SECONDS] [CLIENTS]
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))

from stdlib_corpus import passages

from rerank_core import Reranker, load_scorer

SERVER = """
import uvicorn

from rerank_core import Reranker, load_scorer
from rerank_tools.serve import create_app

app = create_app(Reranker(load_scorer("embedded", cache_bytes=0)))
uvicorn.run(app, port=0, limit_concurrency=17, access_log=False)
"""
QUERY = "How do I find a memory leak?"
DOCUMENTS = 5
TEXTS = [passage.text for passage in passages()]


def body(random_: random.Random) -> bytes:
    """Return a request for a few documents."""
    return json.dumps({"query": QUERY, "documents": random_.sample(TEXTS, DOCUMENTS)}).encode()


async def ask(port: int, content: bytes, *, leave: bool) -> int:
    """Return the status of one request, 0 where the client left before the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            "POST /v2/rerank HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        if leave:
            await asyncio.sleep(0.01)
            return 0
        answer = await reader.read()
        return int(answer.split(b" ", 2)[1])
    finally:
        writer.close()


async def client(number: int, port: int, until: float, seen: Counter[int], seconds: list[float]) -> None:
    """Ask until the time is over."""
    random_ = random.Random(number)
    while time.perf_counter() < until:
        started = time.perf_counter()
        status = await ask(port, body(random_), leave=random_.random() < 0.1)
        seen[status] += 1
        if status == 200:
            seconds.append(time.perf_counter() - started)
        elif status:
            await asyncio.sleep(random_.uniform(0.5, 1.5))


def resident(pid: int) -> float:
    """Return a process's memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


async def load(process: subprocess.Popen[str], port: int, duration: float, clients: int) -> None:
    """Run the clients, and print a line for each tenth of the time, and the sums."""
    seen: Counter[int] = Counter()
    seconds: list[float] = []
    started = time.perf_counter()
    until = started + duration
    tasks = [asyncio.ensure_future(client(number, port, until, seen, seconds)) for number in range(clients)]
    for _ in range(10):
        await asyncio.sleep(duration / 10)
        elapsed, asked = time.perf_counter() - started, sum(seen.values())
        print(f"{elapsed:6.0f} s  {asked:7} asked  {resident(process.pid):6.0f} MiB", flush=True)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    print("statuses (0: left early):", dict(sorted(seen.items())), f"clients that failed: {len(failed)}")
    ordered = sorted(seconds)
    print(
        f"{len(seconds) / duration:.1f} answers/s; p50 {statistics.median(ordered):.2f} s, "
        f"p99 {ordered[int(0.99 * len(ordered))]:.2f} s"
    )


def batching(calls: int = 32) -> None:
    """Print the ratio of many calls at once to one after the other, of the same documents."""
    random_ = random.Random(0)
    documents = [random_.sample(TEXTS, DOCUMENTS) for _ in range(calls)]
    reranker = Reranker(load_scorer("embedded", cache_bytes=0))
    reranker.warm_up()
    ratios = []
    for _ in range(3):
        started = time.perf_counter()
        for texts in documents:
            reranker.rerank(QUERY, texts)
        single = time.perf_counter() - started
        started = time.perf_counter()
        reranker.rerank_many([QUERY] * calls, documents)
        ratios.append(single / (time.perf_counter() - started))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"dynamic batching: {statistics.median(ratios):.2f} times faster ({spread})")


def main() -> None:
    """Run both."""
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    process = subprocess.Popen([sys.executable, "-c", SERVER], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    started = (re.search(r"running on http://127\.0\.0\.1:(\d+)", line) for line in process.stderr)
    port = int(next(found[1] for found in started if found))
    try:
        asyncio.run(load(process, port, duration, clients))
    finally:
        process.terminate()
        process.wait()
    batching()


if __name__ == "__main__":
    main()
