"""Batches on Ray: a small cluster on this machine, with a worker killed at work, and one spending cap for all."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.batches import plain_loop, results, some_rows, worker_pids, write_rows
from support.loopback import Loopback
from support.providers import KEY, scorer_of

from rerank_core import ConfigurationError, Reranker, Selection, load_scorer
from rerank_core._support.files import lock_file
from rerank_core.vectors import VectorFile
from rerank_tools.batch import BatchOptions, precompute_dataset, rerank_dataset, rerank_file
from rerank_tools.batch.ray.job import start_cap

ray = pytest.importorskip("ray", reason="Ray is not installed")

# Ray itself leaves files and sockets to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two cores; its workers find the services' keys in their environment."""
    variables = {"CO_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()


def test_a_worker_is_killed_and_nothing_is_lost_or_paid_twice(
    cluster: None, tmp_path: Path, loopback: Loopback
) -> None:
    """Two workers share the spending cap and the limits: each row once, never more requests than allowed."""
    loopback.plan(delay=0.01)
    rows = some_rows(240)
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    scorer = scorer_of("cohere", loopback, max_concurrency=4)
    options = BatchOptions(scorer, rows_per_part=30, workers=2, max_cost=1.0)
    killed: list[int] = []
    threading.Thread(target=_kill_a_worker, args=[output, killed], daemon=True).start()
    report = rerank_file(source, output, options)
    stats = loopback.stats()
    assert len(killed) == 1
    assert (report.ok, report.engine, report.stopped) == (True, "ray", None)
    assert [row["id"] for row in results(output)] == list(range(240))
    # What was under way at the kill is lost with its answer, and nothing else.
    sent = Counter(request["body"]["query"] for request in stats["requests"])
    assert sum(sent.values()) - 240 <= 2
    assert stats["most_active"] <= 4 + 2  # the killed worker's may be under way still
    assert report.cost == pytest.approx(240 * 0.002)
    loopback.plan()
    found = [(row["indices"], row["scores"]) for row in results(output)]
    assert found == plain_loop(Reranker(scorer), rows, Selection())


def test_a_dataset_gets_three_columns(cluster: None) -> None:
    """As a plain loop fills them, by the embedded model; a row that fails may say so in a fourth one."""
    rows = some_rows(24)
    expected = plain_loop(Reranker("embedded"), rows, Selection(top_n=2))
    bad = {"id": 24, "query": "", "documents": ["a"]}
    dataset = ray.data.from_items([*rows, bad])
    ranked = rerank_dataset(dataset, selection=Selection(top_n=2), on_error="column", batch_size=8, workers=(1, 2))
    found = sorted(ranked.take_all(), key=lambda row: row["id"])
    assert [row["query"] for row in found] == [row["query"] for row in [*rows, bad]]
    assert [list(row["indices"]) for row in found[:24]] == [indices for indices, _ in expected]
    for row, (_, scores) in zip(found, expected, strict=False):
        assert list(row["scores"]) == pytest.approx(scores, abs=1e-4)
        assert row["usage"]["documents"] == 4
        assert row["error"] is None
    assert found[24]["indices"] is None
    assert "the query is empty" in found[24]["error"]


def test_workers_fill_one_vector_file(cluster: None, tmp_path: Path) -> None:
    """Each text is encoded once, also in a second run; what an interrupted one has left is taken in."""
    texts = [f"document {number}" for number in range(40)]
    path = tmp_path / "rerank[1].vectors"  # which is a pattern, too
    Reranker(load_scorer("embedded", vectors=f"{path}.old.part")).precompute(texts[:5])
    dataset = ray.data.from_items([{"text": text, "id": at} for at, text in enumerate(texts)])
    usage = precompute_dataset(dataset, path, batch_size=10, workers=2)
    assert (usage.documents, usage.stored) == (35, 5)
    again = precompute_dataset(dataset, path, batch_size=10)
    assert (again.documents, again.stored) == (0, 40)
    assert VectorFile(path).stats().documents == 40
    assert not list(tmp_path.glob("*.part*"))
    assert Reranker(load_scorer("embedded", vectors=path)).rerank("document 7", texts).usage.stored == 40
    with pytest.raises(ConfigurationError, match="stores no vectors"):
        precompute_dataset(dataset, path, "cohere:rerank-v3.5", model_options={"api_key": KEY})
    with pytest.raises(Exception, match=r"documents\[1\] is None"):
        precompute_dataset(ray.data.from_items([{"text": "a leak"}, {"text": None}]), path)


def test_the_cap_is_the_clusters(cluster: None) -> None:
    """It says no when it is reached."""

    async def spend() -> list[bool]:
        cap = start_cap(1.0, {0: 0.4})
        await cap.begin(0, 0.5)
        answers = [await cap.reserve(0, 0.4)]
        await cap.settle(0, 0.4, 0.4)
        return [*answers, await cap.reserve(0, 0.2)]

    assert asyncio.run(spend()) == [True, False]


def _kill_a_worker(output: Path, killed: list[int]) -> None:
    until = time.monotonic() + 100
    while time.monotonic() < until:
        journals = list((output / "state").glob("*.journal")) if output.exists() else []
        if sum(journal.read_bytes().count(b"\n") for journal in journals if journal.exists()) > 20:
            killed.append(worker_pids()[0])
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.01)


def test_two_runs_do_not_write_one_vector_file(tmp_path: Path) -> None:
    """Each would merge, and remove, what the other's workers are writing."""
    held = pytest.raises(ConfigurationError, match=r"another run is writing .*file\.vectors: wait")
    with lock_file(tmp_path / "file.vectors.lock"), held:
        precompute_dataset(ray.data.from_items([{"text": "a"}]), tmp_path / "file.vectors")
