"""Data sets and runs in files: what is malformed is named with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.collections import collection, write_beir

from rerank_core import ConfigurationError
from rerank_tools.evaluation import Dataset, evaluate, load_dataset

DATA = collection()


def test_a_folder_in_beir_layout_is_what_was_written(tmp_path: Path) -> None:
    """Texts, judgements, and the folder's name."""
    loaded = load_dataset(write_beir(DATA, tmp_path / "small"))
    assert loaded == DATA


def test_titles_blank_lines_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    """A byte order mark too; a file of judgements may lack its header."""
    folder = write_beir(DATA, tmp_path / "small")
    (folder / "corpus.jsonl").write_bytes(
        b'\xef\xbb\xbf{"_id": "d1", "title": "Title", "text": "Text"}\r\n\r\n{"_id": "d2", "text": ""}\r\n'
    )
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "Query", "metadata": {}}', encoding="utf-8")
    (folder / "qrels" / "dev.tsv").write_bytes(b"q1\td1\t1\r\nq1\td2\t-1\r\n")
    loaded = load_dataset(folder, split="dev")
    assert loaded.documents == {"d1": "Title\nText", "d2": ""}
    assert loaded.qrels == {"q1": {"d1": 1, "d2": -1}}


GOOD = b'{"_id": "a", "text": "x"}\n'


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", GOOD + b'{"_id": ', r"corpus\.jsonl, line 2, column \d+: not JSON"),
        ("corpus.jsonl", GOOD + b"\n[1]", r"corpus\.jsonl, line 3: a list: give an object"),
        ("corpus.jsonl", GOOD + GOOD, r"corpus\.jsonl, line 2: \"_id\" 'a' occurs a second time"),
        ("corpus.jsonl", b'{"_id": 3, "text": "x"}', r'corpus\.jsonl, line 1: "_id" is 3'),
        ("corpus.jsonl", b'{"_id": "a b", "text": "x"}', r"corpus\.jsonl, line 1: \"_id\" is 'a b'"),
        ("corpus.jsonl", b'{"_id": "a"}', r'corpus\.jsonl, line 1: "text" is missing'),
        (
            "corpus.jsonl",
            b'{"_id": "a", "text": "x", "title": 3}',
            r'corpus\.jsonl, line 1: "text" is missing, or it',
        ),
        (
            "corpus.jsonl",
            GOOD + b"\xff\n",
            r"corpus\.jsonl, line 2 is not text in UTF-8 \(byte 0xff at offset 0\)",
        ),
        ("queries.jsonl", b'{"_id": "q0", "text": null}', r'queries\.jsonl, line 1: "text" is missing'),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq0\td00\n", r"test\.tsv, line 2: 2 fields"),
        ("qrels/test.tsv", b"q0\td00\t1\nq0\td01\tyes\n", r"test\.tsv, line 2: the grade is 'yes'"),
        (
            "qrels/test.tsv",
            b"q0\td00\t1\nq99\td01\t1\n",
            r"test\.tsv, line 2: query 'q99' is not among the queries",
        ),
        (
            "qrels/test.tsv",
            b"q0\td00\t1\nq0\td00\t2\n",
            r"test\.tsv, line 2: document 'd00' is judged a second time",
        ),
        ("qrels/test.tsv", b"q0\td00\t0\n", "no query has a relevant document"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(file: str, content: bytes, message: str, tmp_path: Path) -> None:
    """And what is expected there."""
    folder = write_beir(DATA, tmp_path / "small")
    (folder / file).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load_dataset(folder)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    """With the layout that is expected."""
    folder = write_beir(DATA, tmp_path / "small")
    (folder / file).unlink()
    with pytest.raises(ConfigurationError, match=rf"{file} is missing: give a folder with corpus\.jsonl"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q0 Q0 d01 2 0.5", r"mine\.run, line 2: 5 fields"),
        ("q0 Q0 d01 2 high tag", r"mine\.run, line 2: the score is 'high'"),
        ("q0 Q0 d01 2 nan tag", r"mine\.run, line 2: the score is 'nan'"),
        ("q0 Q0 d00 2 0.5 tag", r"mine\.run, line 2: document 'd00' occurs a second time"),
    ],
)
def test_a_malformed_run_is_named_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    """And what is expected there."""
    path = tmp_path / "mine.run"
    path.write_text(f"q0 Q0 d00 1 0.9 tag\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        evaluate({}, DATA, first_stage=path)


@pytest.mark.parametrize(
    ("documents", "queries", "qrels", "message"),
    [
        ({"d": 3}, {"q": "x"}, {"q": {"d": 1}}, "document 'd' is a int"),
        ({"d": "x"}, {"q": None}, {"q": {"d": 1}}, "query 'q' is a NoneType"),
        ({"d": "x"}, {"q": " "}, {"q": {"d": 1}}, "query 'q' is judged, but blank"),
        ({"d e": "x"}, {"q": "x"}, {"q": {"d": 1}}, "document id 'd e' is not usable"),
        ({"d": "x"}, {"": "x"}, {"q": {"d": 1}}, "query id '' is not usable"),
        ({"d": "x"}, {"q": "x"}, {"other": {"d": 1}}, "qrels judge query 'other'"),
        ({"d": "x"}, {"q": "x"}, {"q": {"d": True}}, "grade of document 'd' for query 'q' is True"),
        ({"d": "x"}, {"q": "x"}, {"q": {"d": 0}}, "no query has a relevant document"),
    ],
)
def test_a_data_set_in_memory_is_checked_too(
    documents: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]], message: str
) -> None:
    """Ids that a run file could not hold are refused."""
    with pytest.raises(ConfigurationError, match=message):
        Dataset(documents, queries, qrels)


def test_systems_that_would_share_a_run_file_are_refused(tmp_path: Path) -> None:
    """One would overwrite the other."""
    result = evaluate({"a:b": "embedded", "a-b": "embedded"}, DATA, candidates=2)
    with pytest.raises(ConfigurationError, match="would share a file"):
        result.save_runs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """No half-written file, and no temporary one."""
    (tmp_path / "BM25.run").mkdir()
    with pytest.raises(OSError, match="BM25"):
        evaluate({}, DATA).save_runs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["BM25.run"]
