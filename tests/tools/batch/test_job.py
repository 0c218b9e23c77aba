"""The file job in one process: results, resuming, what is paid for, and rows that fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import failures, plain_loop, results, some_rows, write_rows
from support.loopback import Loopback
from support.providers import KEY, scorer_of

from rerank_core import AuthenticationError, ConfigurationError, Reranker, ScorerUnavailableError, Selection
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, Progress, plan_file, rerank_file

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["memory leak", "naïve café", "\U0001f40d"]),
        st.lists(st.sampled_from(["", " ", "memory", "leak", "日本語"]) | st.text(max_size=5), max_size=5),
    ),
    max_size=9,
)


def sent(loopback: Loopback) -> Counter[str]:
    """Return how often each query was sent."""
    return Counter(request["body"]["query"] for request in loopback.stats()["requests"])


@settings(max_examples=15)
@given(ROWS, st.integers(2, 5), st.sampled_from([Selection(), Selection(top_n=2, score_threshold=0.3)]))
def test_the_result_equals_a_plain_loop(
    pairs: list[tuple[str, list[str]]], rows_per_part: int, selection: Selection
) -> None:
    """Row by row, in order, with the row's other fields, however the input is divided."""
    rows = [{"n": n, "query": query, "documents": texts} for n, (query, texts) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        source, output = write_rows(Path(folder) / "in.jsonl", rows), Path(folder) / "out"
        report = rerank_file(
            source, output, BatchOptions(FakeScorer(), selection=selection, rows_per_part=rows_per_part)
        )
        assert report.ok
        found = results(output) if rows else []
    assert [{name: row[name] for name in ("n", "query", "documents")} for row in found] == rows
    expected = plain_loop(Reranker(FakeScorer()), rows, selection)
    assert [(row["indices"], row["scores"]) for row in found] == expected
    assert report.usage.documents == sum(row["usage"]["documents"] for row in found)


def test_parquet_keeps_columns_and_types(tmp_path: Path) -> None:
    """Three columns are added, and those that were there are as they were, across row groups and parts."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    rows = some_rows(23)
    source = write_rows(tmp_path / "in.parquet", rows)
    report = rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer(), rows_per_part=5))
    assert report.ok
    found = results(tmp_path / "out")
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    expected = plain_loop(Reranker(FakeScorer()), rows, Selection())
    assert [(row["indices"], row["scores"]) for row in found] == expected
    schemas = [parquet.read_schema(part) for part in sorted((tmp_path / "out" / "rows").iterdir())]
    before = parquet.read_schema(source)
    assert all([schema.field(name) for name in before.names] == list(before) for schema in schemas)
    assert schemas[0].names[-3:] == ["indices", "scores", "usage"]


def test_parquet_resumes_in_the_middle(tmp_path: Path) -> None:
    """Parts that are not written yet are found in the file, wherever they are."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    source, output = write_rows(tmp_path / "in.parquet", some_rows(40)), tmp_path / "out"
    options = BatchOptions(FakeScorer(), rows_per_part=4)
    rerank_file(source, output, options)
    whole = results(output)
    for number in (0, 3, 9):
        for path in (output / "rows", output / "state"):
            next(path.glob(f"part-{number:05}.*")).unlink()
    assert plan_file(source, output, options).finished == 28
    report = rerank_file(source, output, options)
    assert (report.ok, report.resumed, results(output)) == (True, 28, whole)


def test_a_killed_run_goes_on_and_pays_for_nothing_twice(tmp_path: Path, loopback: Loopback) -> None:
    """SIGKILL in the middle, with a torn line: each row once; what was written down is not sent again."""
    loopback.plan(delay=0.02)
    rows = some_rows(150)
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    scorer = {"base_url": loopback.url("http"), "max_concurrency": 8}
    process = subprocess.Popen([sys.executable, "-c", _JOB, str(source), str(output), json.dumps(scorer)])
    _wait_for_lines(output, more_than=60, process=process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    lines = _journal_lines(output)
    with max((output / "state").glob("*.journal")).open("a") as journal:
        journal.write('{"row": 1, "usa')
    before = sent(loopback)
    report = rerank_file(source, output, BatchOptions("http:any", model_options=scorer, rows_per_part=50))
    after = sent(loopback)
    assert report.ok
    assert report.resumed > 60
    assert [row["id"] for row in results(output)] == list(range(150))
    assert len(lines) == len(set(lines))
    assert (after - before).total() == 150 - report.resumed
    # What was under way at the kill is lost with its answer, and nothing else.
    assert sum(count - 1 for count in after.values()) <= 8
    loopback.plan()
    found = [(row["indices"], row["scores"]) for row in results(output)]
    assert found == plain_loop(Reranker(scorer_of("http", loopback)), rows, Selection())


_JOB = """
import json, sys
from rerank_tools.batch import BatchOptions, rerank_file
_, source, output, options = sys.argv
rerank_file(source, output, BatchOptions("http:any", model_options=json.loads(options), rows_per_part=50))
"""


def _journal_lines(output: Path) -> list[int]:
    lines: list[int] = []
    for journal in (output / "state").glob("*.journal"):
        entries = [json.loads(line) for line in journal.read_text().split("\n")[:-1] if line]
        lines += [entry["row"] for entry in entries if "row" in entry]
    return lines


def _wait_for_lines(output: Path, *, more_than: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        done = 50 * len(list((output / "rows").glob("part*"))) if (output / "rows").exists() else 0
        if done + len(_journal_lines(output)) > more_than:
            return
        time.sleep(0.01)
    raise AssertionError("the job ended, or did nothing for a minute")


def test_the_cap_is_kept_and_a_higher_one_goes_on(tmp_path: Path, loopback: Loopback) -> None:
    """Twenty requests fit into 4 cents; the rest waits for more money, and nothing is sent twice."""
    loopback.plan()
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(50)), tmp_path / "out"
    options = BatchOptions(scorer_of("cohere", loopback, max_retries=0), rows_per_part=8, max_cost=0.041)
    report = rerank_file(source, output, options)
    assert report.stopped is not None
    assert "max_cost=0.041: 0.04 US dollars are spent" in report.stopped
    assert (report.ok, report.finished, report.failed) == (False, 20, 0)
    assert report.cost == pytest.approx(0.04)
    assert loopback.stats()["counts"]["requests"] == 20
    assert rerank_file(source, output, options).finished == 20
    report = rerank_file(source, output, replace(options, max_cost=1.0))
    assert (report.ok, report.stopped, report.resumed) == (True, None, 20)
    assert report.cost == pytest.approx(0.1)
    assert report.usage.cost == pytest.approx(0.06)
    assert set(sent(loopback).values()) == {1}
    assert len(results(output)) == 50


def test_a_row_that_fails_is_told_and_tried_again(tmp_path: Path, loopback: Loopback) -> None:
    """The others go on; a rerun sends the row that failed, and nothing else."""
    rows = some_rows(12)
    loopback.plan(always="400", only=rows[5]["documents"][0])
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    options = BatchOptions(scorer_of("jina", loopback), rows_per_part=4)
    report = rerank_file(source, output, options)
    assert (report.ok, report.finished, report.failed) == (False, 11, 1)
    assert [row["id"] for row in results(output)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    (failure,) = failures(output)
    assert failure["row"] == 5
    assert failure["error"] == "ScorerError"
    assert "400" in failure["reason"]
    loopback.plan()
    report = rerank_file(source, output, options)
    assert (report.ok, report.resumed, report.usage.requests) == (True, 11, 1)
    assert [row["id"] for row in results(output)] == list(range(12))
    assert failures(output) == []


BAD_LINES = {
    '{"documents": ["a"]}': "line 2: no column 'query': add it, or name another",
    '{"query": "a"}': "line 2: no column 'documents'",
    '{"query": 7, "documents": ["a"]}': "line 2: the query is a int: give a string",
    '{"query": " ", "documents": ["a"]}': "line 2: the query is empty",
    '{"query": "a", "documents": "text"}': "line 2: the documents are a str: give a list of strings",
    '{"query": "a", "documents": ["b", null]}': r"line 2: documents\[1\] is None",
    '{"query": "a", "documents": [{"text": "b"}]}': r"line 2: documents\[0\] is a dict",
    '{"query": "a", "documents": ["b"], "scores": 1}': "line 2: there is a column 'scores' already: give prefix=",
    '{"query": "a",': r"line 2, column \d+: not JSON \(Expecting",
    "[" * 100_000: "line 2: JSON that is nested too deeply",
    '{"query": ' + "1" * 5000 + "}": "line 2: a number in the JSON is too long",
    "[1, 2]": "line 2: a list: give an object",
}


def test_bad_rows_are_errors_of_the_row(tmp_path: Path) -> None:
    """With the file's name and the line; the good ones around them are ranked."""
    good = {"query": "memory", "documents": ["a", "memory"]}
    for number, (line, message) in enumerate(BAD_LINES.items()):
        source = write_rows(tmp_path / f"in{number}.jsonl", [good, line, good])
        report = rerank_file(source, tmp_path / f"out{number}", BatchOptions(FakeScorer()))
        assert (report.finished, report.failed) == (2, 1)
        (failure,) = failures(tmp_path / f"out{number}")
        assert failure["row"] == 1
        assert re.search(f"^in{number}.jsonl, {message}", failure["reason"]), failure


def test_blank_lines_prefixes_and_surrogates(tmp_path: Path) -> None:
    """Blank lines are no rows; columns can be named otherwise; what has no UTF-8 stays an escape."""
    lines = ["", '{"q": "memory", "d": ["memory", "\\ud800"], "scores": [1]}', "  "]
    source = write_rows(tmp_path / "in.jsonl", lines)
    options = BatchOptions(FakeScorer(), query_column="q", documents_column="d", prefix="new_")
    assert rerank_file(source, tmp_path / "out", options).rows == 1
    (row,) = results(tmp_path / "out")
    assert (row["scores"], row["new_indices"], row["d"]) == ([1], [0, 1], ["memory", "\ud800"])


def test_an_error_of_all_rows_ends_the_run(tmp_path: Path, loopback: Loopback) -> None:
    """A key that is refused makes no row fail; what was finished stays."""
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(40)), tmp_path / "out"
    options = BatchOptions(scorer_of("cohere", loopback, max_concurrency=1), rows_at_once=1)
    loopback.plan(faults=[*[None] * 5, *["401"] * 40])
    with pytest.raises(AuthenticationError, match="401"):
        rerank_file(source, output, options)
    assert failures(output) == []
    loopback.plan()
    report = rerank_file(source, output, options)
    assert (report.ok, report.resumed) == (True, 5)


def test_the_folder_belongs_to_its_input_and_options(tmp_path: Path) -> None:
    """Anything that would mix results is refused, with what differs; what changes none is not."""
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(6)), tmp_path / "out"
    options = BatchOptions("embedded", model_options={"threads": 1}, rows_per_part=4)
    assert rerank_file(source, output, options).ok
    same = replace(options, model_options={"threads": 2}, max_cost=0.0, rows_at_once=1)
    assert rerank_file(source, output, same).resumed == 6
    with pytest.raises(ConfigurationError, match=r"begun with another rows_per_part \(4, not 5\): give what"):
        rerank_file(source, output, replace(options, rows_per_part=5))
    with pytest.raises(ConfigurationError, match="another fingerprint of the model"):
        plan_file(source, output, replace(options, model_options={"max_length": 64}))
    write_rows(source, some_rows(7))
    with pytest.raises(ConfigurationError, match="begun with another input, or the input was changed since"):
        rerank_file(source, output, options)
    (output / "manifest.json").write_text('{"version": 0}')
    with pytest.raises(ConfigurationError, match="another version of this package"):
        rerank_file(source, output, options)
    (output / "manifest.json").write_text("torn")
    with pytest.raises(ConfigurationError, match=r"manifest\.json is not JSON: give a new folder"):
        rerank_file(source, output, options)
    (output / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match="is not empty and not the output of a batch"):
        rerank_file(source, output, options)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one says so at once."""
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(2)), tmp_path / "out"
    rerank_file(source, output, BatchOptions(FakeScorer()))
    with (output / "state" / "lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another run is writing .*: wait until it has ended"):
            rerank_file(source, output, BatchOptions(FakeScorer()))


@pytest.mark.parametrize("provider", ["cohere", "voyage"])
def test_the_plan_bounds_the_cost(tmp_path: Path, loopback: Loopback, provider: str) -> None:
    """Nothing is written or sent; the run then costs no more than the plan says at most."""
    loopback.plan()
    rows = [*some_rows(5), {"query": "long", "documents": ["word " * 900] * 2 + ["", "x " * 3000] * 60}, {}]
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    options = BatchOptions(scorer_of(provider, loopback))
    plan = plan_file(source, output, options)
    assert (plan.rows, plan.finished, plan.bad, plan.documents, plan.spent) == (7, 0, 1, 22, 0.0)
    assert not output.exists()
    assert loopback.stats()["counts"] == {}
    cost = rerank_file(source, output, options).cost
    assert cost is not None
    assert plan.cost is not None
    assert plan.cost_at_most is not None
    assert 0 < cost <= plan.cost_at_most
    assert plan.cost <= plan.cost_at_most
    rest = plan_file(source, output, options)
    assert (rest.finished, rest.bad, rest.documents, rest.cost, rest.spent) == (6, 1, 0, 0.0, cost)


def test_progress_is_told(tmp_path: Path) -> None:
    """It ends with all rows, their failures and the cost."""
    told: list[Progress] = []
    source = write_rows(tmp_path / "in.jsonl", [*some_rows(30), "{}"])
    scorer = FakeScorer(latency=0.01)
    rerank_file(source, tmp_path / "out", BatchOptions(scorer, rows_at_once=1), on_progress=told.append)
    assert len(told) >= 2
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert (told[-1].rows, told[-1].done, told[-1].failed, told[-1].cost) == (31, 31, 1, 0.0)
    assert told[-1].rows_per_second > 0


def test_no_key_is_written(tmp_path: Path, loopback: Loopback) -> None:
    """Neither in the manifest nor in any other file, also when rows fail."""
    loopback.plan(always="400", message=f"wrong key {KEY}")
    given = {"api_key": KEY, "base_url": loopback.url("jina")}
    options = BatchOptions("jina:jina-reranker-v2-base-multilingual", model_options=given)
    report = rerank_file(write_rows(tmp_path / "in.jsonl", some_rows(3)), tmp_path / "out", options)
    assert report.failed == 3
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert [path for path in files if KEY[:8].encode() in path.read_bytes()] == []
    assert KEY not in repr(options)


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """What the system says reaches the caller, and nothing hangs."""
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(3)), tmp_path / "out"
    output.mkdir()
    output.joinpath("manifest.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        rerank_file(source, output, BatchOptions(FakeScorer()))
    output.joinpath("manifest.json").rmdir()
    options = BatchOptions(FakeScorer())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is not empty and not the output of a batch"):
        rerank_file(source, tmp_path / "file", options)
    rerank_file(source, output, options)
    for path in (output / "state").glob("part-*"):
        path.unlink()
    for path in (output / "rows").iterdir():
        path.unlink()
        path.mkdir()
    with pytest.raises(OSError, match=os.strerror(21)):
        rerank_file(source, output, options)


def test_scorers_errors_stay_with_their_rows(tmp_path: Path) -> None:
    """A service that is down makes rows fail; its message is the reason."""
    scorer = FakeScorer(error=ScorerUnavailableError("fake is down: start it"))
    source = write_rows(tmp_path / "in.jsonl", some_rows(3))
    report = rerank_file(source, tmp_path / "out", BatchOptions(scorer))
    assert (report.failed, report.finished) == (3, 0)
    assert {failure["reason"] for failure in failures(tmp_path / "out")} == {"fake: fake is down: start it"}


def test_inputs_that_are_none(tmp_path: Path) -> None:
    """Each is an error with its fix; a file without rows is a job without work."""
    for name, content, message in [
        ("in.csv", b"a,b", "neither .parquet nor .jsonl: convert it"),
        ("in.parquet", b"PAR1 not really", "damaged, or not Parquet"),
    ]:
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigurationError, match=message):
            rerank_file(tmp_path / name, tmp_path / "out", BatchOptions(FakeScorer()))
    with pytest.raises(ConfigurationError, match=r"cannot be read \(No such file"):
        rerank_file(tmp_path / "absent.jsonl", tmp_path / "out")
    (tmp_path / "empty.jsonl").write_text("\n")
    report = rerank_file(tmp_path / "empty.jsonl", tmp_path / "out", BatchOptions(FakeScorer()))
    assert (report.ok, report.rows) == (True, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "a", "documents": ["b"]}, "in.parquet: no column 'query': there is q, documents"),
        ({"query": 1, "documents": ["b"]}, "the column 'query' is of int64: give strings"),
        ({"query": "a", "documents": "b"}, "the column 'documents' is of string: give lists of strings"),
        ({"query": "a", "documents": [1]}, "the column 'documents' is of list.*: give lists of strings"),
        ({"query": "a", "documents": ["b"], "usage": 1}, "there is a column 'usage' already: give prefix="),
    ],
)
def test_columns_of_parquet_are_checked_first(tmp_path: Path, row: Any, message: str) -> None:
    """Before anything is sent or written."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    source = write_rows(tmp_path / "in.parquet", [row])
    with pytest.raises(ConfigurationError, match=message):
        rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer()))
    assert not (tmp_path / "out").exists()


def test_nulls_in_parquet_are_errors_of_their_rows(tmp_path: Path) -> None:
    """With the number of the row, from 1."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rows = [
        *some_rows(2),
        {"id": 2, "query": None, "documents": ["a"]},
        {"id": 3, "query": "a", "documents": None},
    ]
    source = write_rows(tmp_path / "in.parquet", rows)
    report = rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer()))
    assert (report.finished, report.failed) == (2, 2)
    reasons = [failure["reason"] for failure in failures(tmp_path / "out")]
    assert reasons[0].startswith("in.parquet, row 3: the query is a NoneType")
    assert reasons[1].startswith("in.parquet, row 4: the documents are a NoneType")


def test_numbers_beyond_floats_stay_as_they_are(tmp_path: Path) -> None:
    """The output holds the input's lines, which JSON readers of other languages can read again."""
    line = '\ufeff {"id": 1e400, "big": 1.10, "query": "a leak", "documents": ["leak", "\\ud800 é"]} \r\n'
    (tmp_path / "in.jsonl").write_text(line, encoding="utf-8")
    assert rerank_file(tmp_path / "in.jsonl", tmp_path / "out", BatchOptions(FakeScorer(), prefix="é_")).ok
    (path,) = (tmp_path / "out" / "rows").iterdir()
    written = path.read_text(encoding="utf-8")
    assert written.startswith(line.strip("\ufeff \r\n}"))
    assert list(json.loads(written))[4:] == ["é_indices", "é_scores", "é_usage"]
