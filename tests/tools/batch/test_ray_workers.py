"""What Ray's workers run, called here without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.batches import failures, plain_loop, results, some_rows, write_rows
from support.providers import KEY

from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    Reranker,
    Scorer,
    ScorerUnavailableError,
    Selection,
    load_scorer,
)
from rerank_core.policies import Fallback
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.ray.dataset import DatasetWorker, rerank_dataset
from rerank_tools.batch.ray.job import PartWorker, count_workers, prepare_scorer
from rerank_tools.batch.sources import open_source


def raising(scorer: FakeScorer) -> DatasetWorker:
    """Return a worker that raises what goes wrong."""
    return DatasetWorker(BatchOptions(scorer), "raise")


def keeping(scorer: FakeScorer) -> DatasetWorker:
    """Return a worker that keeps the first candidate, and the reasons of failures."""
    return DatasetWorker(BatchOptions(scorer, prefix="new_", selection=Selection(top_n=1)), "column")


def worker_of(tmp_path: Path, scorer: FakeScorer) -> PartWorker:
    """Return a worker on six rows in two parts, the last row bad."""
    options = BatchOptions(scorer, rows_per_part=3)
    source = open_source(write_rows(tmp_path / "in.jsonl", [*some_rows(5), "{}"]), options)
    folder = BatchFolder(tmp_path / "out", source, options.fingerprint_options(), rows_per_part=3)
    return PartWorker(options, source, folder, None)


def test_a_worker_writes_a_part_and_says_how_it_ended(tmp_path: Path) -> None:
    """A part that is written is not done again; a row that failed is tried again."""
    scorer = FakeScorer()
    worker = worker_of(tmp_path, scorer)
    ends = [worker({"part": part}) for part in (1, 0, 0, 1)]
    assert {(end["is_exhausted"], end["error"], end["reason"]) for end in ends} == {(False, "", "")}
    assert [row["id"] for row in results(tmp_path / "out")] == [0, 1, 2, 3, 4]
    assert [failure["row"] for failure in failures(tmp_path / "out")] == [5]
    assert scorer.calls == 5


def test_a_worker_names_the_error_of_all_rows(tmp_path: Path) -> None:
    """As a name and a text, which the driver raises again."""
    worker = worker_of(tmp_path, FakeScorer(error=AuthenticationError("fake refused the key")))
    end = worker({"part": 0})
    assert (end["error"], end["reason"]) == ("AuthenticationError", "fake: fake refused the key")
    assert not (tmp_path / "out" / "rows").exists()


def table_of(rows: list[dict[str, Any]]) -> Any:
    """Return an Arrow table."""
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed").Table.from_pylist(rows)


def test_a_dataset_worker_adds_columns() -> None:
    """What a plain loop returns, and nothing else is changed."""
    rows = some_rows(5)
    table = raising(FakeScorer())(table_of(rows))
    assert table.column_names == ["id", "query", "documents", "indices", "scores", "usage"]
    found = [(row["indices"], row["scores"]) for row in table.to_pylist()]
    assert found == plain_loop(Reranker(FakeScorer()), rows, Selection())


def test_a_dataset_worker_keeps_rows_that_fail() -> None:
    """Nulls, and why: the service's error or what is wrong with the row."""
    rows = [*some_rows(1), {"id": 1, "query": " ", "documents": ["a"]}]
    (good, bad) = keeping(FakeScorer())(table_of(rows)).to_pylist()
    assert (good["new_indices"], good["new_error"]) == ([0], None)
    assert (bad["new_indices"], bad["new_scores"]) == (None, None)
    assert bad["new_error"].startswith("row 1 of its batch: the query is empty")
    down = FakeScorer(error=ScorerUnavailableError("fake is down"))
    (row, _) = keeping(down)(table_of(rows)).to_pylist()
    assert (row["new_indices"], row["new_error"]) == (None, "fake: fake is down")


def test_a_dataset_worker_raises() -> None:
    """For a bad row or column by default, and for a key that is refused in any case."""
    with pytest.raises(ConfigurationError, match="row 0 of its batch: the query is empty"):
        raising(FakeScorer())(table_of([{"query": "", "documents": ["a"]}]))
    with pytest.raises(ConfigurationError, match="no column 'documents': there is query"):
        raising(FakeScorer())(table_of([{"query": ""}]))
    with pytest.raises(ConfigurationError, match="there is a column 'scores' already"):
        raising(FakeScorer())(table_of([{"query": "a", "documents": ["a"], "scores": 1}]))
    with pytest.raises(AuthenticationError, match="refused"):
        keeping(FakeScorer(error=AuthenticationError("refused")))(table_of(some_rows(1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "drop"}, "on_error is 'drop': give one of raise, column"),
        ({"model": FakeScorer(), "model_options": {"a": 1}}, "leave out model_options="),
        ({"batch_size": 0}, "batch_size is 0: give a whole number of at least 1"),
        ({"cpus_per_worker": 0}, "cpus_per_worker is 0: give a whole number of at least 1"),
        ({"timeout": -1}, "timeout is -1: give seconds above 0"),
        ({"workers": (2, 1)}, r"workers is \(2, 1\): give a number of processes"),
        ({"workers": 0}, "workers is 0: give a number of processes"),
    ],
)
def test_options_of_a_dataset_are_checked(options: dict[str, Any], message: str) -> None:
    """Before a dataset is built."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(ConfigurationError, match=message):
        rerank_dataset(None, **options)  # type: ignore[arg-type]


def test_a_worker_gives_local_models_its_cores() -> None:
    """Inside a policy too; a number that was given stays."""
    assert prepared("embedded").options.threads == 3  # type: ignore[attr-defined]
    assert prepared("embedded", threads=1).options.threads == 1  # type: ignore[attr-defined]
    policy = prepare_scorer(Fallback(["embedded", FakeScorer()]), threads=2, workers=1)
    assert policy.scorers[0].options.threads == 2  # type: ignore[attr-defined]


def test_workers_share_the_limits_of_a_service() -> None:
    """Together they stay below each; there are no more workers than can have a share."""
    limits = {"max_concurrency": 16, "tokens_per_minute": 1000}
    options = prepared("jina:any", **limits).options  # type: ignore[attr-defined]
    assert (options.max_concurrency, options.requests_per_minute, options.tokens_per_minute) == (4, None, 250)
    policy = Fallback([load_scorer("jina:any", api_key=KEY, requests_per_minute=5), "embedded"])
    assert (count_workers(policy, 8), count_workers(policy, 4)) == (5, 4)
    assert count_workers(load_scorer("embedded"), 100) == 100


def prepared(name: str, **options: Any) -> Scorer:
    """Return a scorer for one of four workers."""
    given = {} if name == "embedded" else {"api_key": KEY}
    return prepare_scorer(load_scorer(name, **given, **options), threads=3, workers=4)
