"""What the output folder says is checked when a run resumes: only what is on the disk and fits counts."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.batches import failures, results, some_rows, write_rows
from support.loopback import Loopback
from support.providers import scorer_of

from rerank_core import ConfigurationError
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, plan_file, rerank_file
from rerank_tools.batch.folder import BatchFolder
from rerank_tools.batch.rows import Outcome
from rerank_tools.batch.sources import open_source

ROWS = some_rows(12)


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, Path, BatchOptions]:
    """Return the input, the folder and the options of a job that is finished, in three parts."""
    source, output = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out"
    options = BatchOptions(FakeScorer(), rows_per_part=4)
    assert rerank_file(source, output, options).ok
    return source, output, options


def test_a_part_whose_file_is_gone_or_changed_is_reranked(job: tuple[Path, Path, BatchOptions]) -> None:
    """The plan and the report count what is on the disk, and afterwards everything is as it was."""
    source, output, options = job
    whole = results(output)
    first, second, _ = sorted((output / "rows").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-40])
    plan = plan_file(source, output, options)
    assert (plan.finished, plan.documents) == (4, 32)
    report = rerank_file(source, output, options)
    assert (report.ok, report.finished, report.resumed, report.usage.documents) == (True, 12, 4, 32)
    assert results(output) == whole
    assert rerank_file(source, output, options).resumed == 12


def test_how_far_a_job_is_takes_little_memory(tmp_path: Path) -> None:
    """Parts with failed rows are never written for good, and a job of millions of rows has many."""
    source = write_rows(tmp_path / "in.jsonl", some_rows(100))
    options = BatchOptions(FakeScorer())
    folder = BatchFolder(tmp_path / "out", open_source(source, options), {}, rows_per_part=100)
    with folder.hold():
        journal = folder.open_part(0)
        assert journal is not None
        for number in range(99):
            journal.add(Outcome(number, list(range(300)), [1.0 / (place + 3) for place in range(300)]))
        journal.close()
        tracemalloc.start()
        try:
            states = folder.load_parts()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert states[0].finished_rows == 99
    assert held < 100_000


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"finished": 4, "failed": 0}', "\x00" * 8])
def test_a_damaged_marker_is_no_marker(job: tuple[Path, Path, BatchOptions], content: str) -> None:
    """Its part is reranked; so is one whose marker says something else than it did, or is another part's."""
    source, output, options = job
    whole = results(output)
    markers = sorted((output / "state").glob("*.journal"))
    markers[0].write_text(content)
    markers[1].write_bytes(markers[2].read_bytes())
    assert plan_file(source, output, options).finished == 4
    report = rerank_file(source, output, options)
    assert (report.ok, report.resumed, results(output)) == (True, 4, whole)


def _journal_of(folder: BatchFolder, number: int = 0, outcomes: Sequence[Outcome] = ()) -> Path:
    """Write a journal; where the part is written already, that is forgotten before."""
    (folder.path / "state" / f"part-{number:05}.journal").unlink(missing_ok=True)
    journal = folder.open_part(number)
    assert journal is not None
    for outcome in outcomes:
        journal.add(outcome)
    journal.close()
    return folder.path / "state" / f"part-{number:05}.journal"


def test_lines_of_a_journal_that_do_not_fit_are_not_believed(tmp_path: Path) -> None:
    """Lines of other jobs and parts, changed lines, indices that do not exist: their rows are reranked."""
    options = BatchOptions(FakeScorer(), rows_per_part=4)
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    source = open_source(path, options)
    ours = BatchFolder(tmp_path / "out", source, options.fingerprint_options(), rows_per_part=4)
    other = BatchFolder(tmp_path / "other", source, {"model": "other"}, rows_per_part=4)
    with ours.hold(), other.hold():
        right = Outcome(1, [0, 1, 2, 3], [0.9, 0.5, 0.25, 0.0])
        journal = _journal_of(ours, 0, [Outcome(0, [3, 2, 1, 0], [0.8, 0.4, 0.2, 0.0]), right])
        foreign = _journal_of(other, 0, [Outcome(2, [3, 2, 1, 0], [1.0, 1.0, 1.0, 1.0])])
    lines = list(filter(None, journal.read_text().splitlines()))
    by_hand = {"row": 3, "usage": {}, "indices": [99], "scores": [0.5]}
    journal.write_text(
        "\n".join(
            [lines[0].replace("[3, 2, 1, 0]", "[3, 2, 1, 7]"), lines[1], foreign.read_text(), json.dumps(by_hand)]
        )
    )
    journal.with_name("part-00001.journal").write_text(lines[1] + "\n")
    assert plan_file(path, tmp_path / "out", options).finished == 1
    report = rerank_file(path, tmp_path / "out", options)
    assert (report.ok, report.resumed, failures(tmp_path / "out")) == (True, 1, [])
    found = {row["id"]: row["scores"] for row in results(tmp_path / "out")}
    assert list(found) == list(range(12))
    assert found[1] == [0.9, 0.5, 0.25, 0.0]
    rerank_file(path, tmp_path / "again", options)
    expected = {row["id"]: row["scores"] for row in results(tmp_path / "again")}
    assert [found[row] for row in (0, 2, 3)] == [expected[row] for row in (0, 2, 3)]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_is_made_again(job: tuple[Path, Path, BatchOptions], seed: int) -> None:
    """Files that are cut, changed, swapped, emptied or gone, in ``rows/`` and ``state/``."""
    source, output, options = job
    whole = results(output)
    drawn = random.Random(seed)
    _journal_of(BatchFolder(output, open_source(source, options), options.fingerprint_options(), rows_per_part=4))
    for _ in range(drawn.randint(1, 4)):
        path = drawn.choice([path for path in sorted(output.glob("*/part*")) if path.suffix != ".lock"])
        data = bytearray(path.read_bytes())
        match drawn.randrange(4):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(data[: drawn.randrange(len(data) + 1)])
            case 2 if data:
                data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
                path.write_bytes(data)
            case _:
                path.write_bytes(drawn.choice(sorted(path.parent.iterdir())).read_bytes())
    report = rerank_file(source, output, options)
    assert (report.ok, report.finished, report.failed) == (True, 12, 0)
    assert results(output) == whole
    assert plan_file(source, output, options).finished == 12


def test_a_run_that_was_killed_before_it_began_is_no_obstacle(tmp_path: Path) -> None:
    """What it left is not taken for somebody else's; half-written files are removed."""
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / ".manifest.json.0123.tmp").write_text("{")
    (tmp_path / "out" / "rows").mkdir()
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(ConfigurationError, match="is not empty and not the output of a batch"):
        rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer()))
    (tmp_path / "out" / "rows").rmdir()
    assert rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer())).ok
    (tmp_path / "out" / "rows" / ".part-00000.jsonl.0123.tmp").write_text("{")
    assert rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer())).resumed == 12
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == []


def test_what_a_lost_part_cost_still_counts(tmp_path: Path, loopback: Loopback) -> None:
    """The cap is for all that was spent: a part that has to be paid for again may not fit."""
    loopback.plan()
    source, output = write_rows(tmp_path / "in.jsonl", some_rows(10)), tmp_path / "out"
    options = BatchOptions(scorer_of("cohere", loopback, max_retries=0), rows_per_part=5, max_cost=0.025)
    assert rerank_file(source, output, options).cost == pytest.approx(0.02)
    (output / "rows" / "part-00001.jsonl").unlink()
    assert plan_file(source, output, options).spent == pytest.approx(0.02)
    for _ in range(2):
        report = rerank_file(source, output, options)
        assert (report.ok, report.finished, report.stopped is not None) == (False, 7, True)
        assert report.cost == pytest.approx(0.024)


class Rewriting(FakeScorer):
    """Rewrites the input after some calls; any two are the same scorer."""

    def __init__(self, path: Path, content: bytes | None, *, after: int) -> None:
        super().__init__()
        self._path, self._content, self._after = path, content, after

    async def score(self, query: str, texts: Any) -> Any:
        """Score, and rewrite the file once."""
        scored = await super().score(query, texts)
        if self.calls == self._after:
            if self._content is None:
                self._path.unlink()
            else:
                self._path.write_bytes(self._content)
        return scored

    def cache_key(self) -> str:
        """Return the same for all."""
        return "rewriting"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_input_that_is_rewritten_ends_the_run(tmp_path: Path, form: str) -> None:
    """With what differs; no row of the new file is in the output, and with the old one the job goes on."""
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    source = write_rows(tmp_path / f"in.{form}", ROWS)
    old = source.read_bytes()
    renamed = [{**row, "query": row["query"].replace("memory", "paris!")} for row in ROWS]
    same_size = write_rows(tmp_path / f"same.{form}", renamed).read_bytes()
    shorter = write_rows(tmp_path / f"shorter.{form}", some_rows(3)).read_bytes()
    for number, (content, message) in enumerate(
        [
            (same_size, r"was changed while the batch ran \((its content differs|it has [\d,]+ bytes)"),
            (
                shorter,
                r"was changed while the batch ran \(it has [\d,]+ bytes instead of [\d,]+\): put the old file",
            ),
            (None, "was removed while the batch ran: put it back and run again to go on"),
        ]
    ):
        source.write_bytes(old)
        output = tmp_path / f"out{number}"
        options = BatchOptions(Rewriting(source, content, after=5), rows_per_part=2, rows_at_once=1)
        with pytest.raises(ConfigurationError, match=message):
            rerank_file(source, output, options)
        queries = [row["query"] for row in ROWS]
        assert [row["query"] for row in results(output)] == queries[: len(results(output))]
        if content is not None:
            with pytest.raises(ConfigurationError, match="another input, or the input was changed since"):
                rerank_file(source, output, options)
        source.write_bytes(old)
        report = rerank_file(source, output, BatchOptions(Rewriting(source, old, after=-1), rows_per_part=2))
        assert report.ok
        assert report.resumed >= 2
        assert [row["query"] for row in results(output)] == queries


def test_a_new_date_is_no_new_content(tmp_path: Path) -> None:
    """A file that was touched or copied anew while the batch ran is the same file."""
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    options = BatchOptions(Rewriting(source, source.read_bytes(), after=3), rows_per_part=2, rows_at_once=1)
    assert rerank_file(source, tmp_path / "out", options).ok


def test_a_part_that_another_process_has_written_is_left_alone(tmp_path: Path) -> None:
    """Its lock is gone."""
    options = BatchOptions(FakeScorer())
    source = open_source(write_rows(tmp_path / "in.jsonl", some_rows(1)), options)
    folder = BatchFolder(tmp_path / "out", source, options.fingerprint_options(), rows_per_part=1)
    journal = folder.open_part(0)
    assert journal is not None
    journal.add(Outcome(0, [0], [0.5]))
    folder.write_part(0, b"{}\n", journal)
    journal.close()
    assert os.listdir(tmp_path / "out" / "state") == ["part-00000.journal"]
    assert folder.open_part(0) is None
    assert folder.load_part(0).is_written


@pytest.mark.parametrize("end", ["\u00a0", "\u2028", "\x1c", "\x0b", "\0"])
def test_what_follows_a_line_is_never_copied_into_the_output(tmp_path: Path, end: str) -> None:
    """The row fails, and every line of the output is JSON."""
    (row, *_) = rows = some_rows(2)
    lines = [json.dumps(row) + end, json.dumps(rows[1])]
    source = tmp_path / "in.jsonl"
    source.write_bytes("\n".join(lines).encode())
    report = rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer()))
    assert (report.finished, report.failed) == (1, 1)
    assert len(results(tmp_path / "out")) == 1
