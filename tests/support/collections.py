"""A small collection with known answers, in memory and in BEIR layout."""

from __future__ import annotations

import json
from pathlib import Path

from rerank_tools.evaluation import Dataset

SUBJECTS = ("memory", "thread", "socket", "regex", "decimal", "archive", "locale", "signal")
VERBS = ("leak", "lock", "close", "match", "round", "extract", "format", "handle")


def collection() -> Dataset:
    """Return 64 documents, one for each pair of a subject and a verb, and a query for each subject.

    The document of the query's own pair has grade 2, two others of the subject have grade 1, one is judged and
    not relevant.
    """
    documents = {
        f"d{row}{column}": f"How to {verb} a {subject}. " + "Notes on the subject. " * ((row + column) % 3)
        for row, subject in enumerate(SUBJECTS)
        for column, verb in enumerate(VERBS)
    }
    queries = {f"q{row}": f"{subject} {VERBS[row]}" for row, subject in enumerate(SUBJECTS)}
    qrels = {
        f"q{row}": {
            f"d{row}{row}": 2,
            f"d{row}{(row + 1) % 8}": 1,
            f"d{row}{(row + 2) % 8}": 1,
            f"d{row - 1}{row}": 0,
        }
        for row in range(1, 8)
    }
    qrels["q0"] = {"d00": 2, "d01": 1, "d02": 1, "d70": 0}
    return Dataset(documents, queries, qrels, name="small")


def write_beir(data: Dataset, folder: Path) -> Path:
    """Write a data set in BEIR layout, and return its folder."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", data.documents), ("queries", data.queries)):
        lines = [json.dumps({"_id": key, "title": "", "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [f"{query}\t{key}\t{grade}\n" for query, grades in data.qrels.items() for key, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")
    return folder
