"""Data sets: documents, queries, and which documents answer which query; and the rankings in TREC run files."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rerank_core.errors import ConfigurationError
from rerank_tools.records import parse_json_object, read_lines

Run = Mapping[str, Mapping[str, float]]
"""Query id, document id, score."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Documents, queries and judgements, by id.

    Attributes:
        documents: text of each document.
        queries: text of each query.
        qrels: grade of each judged document of a query; above 0 is relevant. Queries without a relevant
            document are neither sent nor measured.
        name: the data set's name in tables.

    Raises:
        ConfigurationError: there is nothing to measure, an id or a text is not usable, or a judgement is of an
            unknown query.

    >>> data = Dataset({"d1": "memory leak"}, {"q1": "leak?"}, {"q1": {"d1": 1}})
    >>> list(data.judged)
    ['q1']
    """

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    name: str = field(default="dataset", kw_only=True)

    def __post_init__(self) -> None:
        for kind, texts in (("document", self.documents), ("query", self.queries)):
            for key, text in texts.items():
                _check_id(kind, key)
                if not isinstance(text, str):
                    raise ConfigurationError(f"{kind} {key!r} is a {type(text).__name__}: give its text")
        for query, grades in self.qrels.items():
            if query not in self.queries:
                raise ConfigurationError(f"qrels judge query {query!r}, which is not among the queries")
            if not self.queries[query].strip():
                raise ConfigurationError(f"query {query!r} is judged, but blank: give its text or leave it out")
            for document, grade in grades.items():
                _check_id("document", document)
                if isinstance(grade, bool) or not isinstance(grade, int):
                    raise ConfigurationError(
                        f"the grade of document {document!r} for query {query!r} is {grade!r}: give a whole number"
                    )
        if not self.judged:
            raise ConfigurationError(f"{self.name}: no query has a relevant document, so nothing can be measured")

    @property
    def judged(self) -> dict[str, str]:
        """The queries that have a relevant document, in the order of ``queries``."""
        return {
            query: text
            for query, text in self.queries.items()
            if any(grade > 0 for grade in self.qrels.get(query, {}).values())
        }


def load_dataset(folder: str | Path, *, split: str = "test") -> Dataset:
    """Read a data set in BEIR layout, in place.

    Args:
        folder: holds ``corpus.jsonl`` (``_id``, ``text`` and perhaps ``title``, which is put above the text),
            ``queries.jsonl`` (``_id``, ``text``) and ``qrels/SPLIT.tsv`` (query id, document id, grade).
        split: which judgements.

    Raises:
        ConfigurationError: a file is missing or malformed; names the file and the line.
    """
    path = Path(folder)
    qrels_path = path / "qrels" / f"{split}.tsv"
    for file in (path / "corpus.jsonl", path / "queries.jsonl", qrels_path):
        if not file.is_file():
            raise ConfigurationError(
                f"{file} is missing: give a folder with corpus.jsonl, queries.jsonl and qrels/{split}.tsv"
            )
    queries = _read_texts(path / "queries.jsonl")
    qrels = _read_qrels(qrels_path, queries)
    return Dataset(_read_texts(path / "corpus.jsonl"), queries, qrels, name=path.resolve().name)


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Return the scores of a TREC run file: query id, ``Q0``, document id, rank, score, tag."""
    run: dict[str, dict[str, float]] = {}
    for where, line in read_lines(path):
        fields = line.split()
        if len(fields) != 6:
            raise ConfigurationError(
                f"{where}: {len(fields)} fields: give query id, Q0, document id, rank, score and tag"
            )
        query, _, document, _, score, _ = fields
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigurationError(f"{where}: the score is {score!r}: give a number")
        if document in run.setdefault(query, {}):
            raise ConfigurationError(f"{where}: document {document!r} occurs a second time for query {query!r}")
        run[query][document] = value
    return run


def _read_texts(path: Path) -> dict[str, str]:
    """Return the texts of a JSON-lines file by ``_id``, each below its title."""
    texts: dict[str, str] = {}
    for where, line in read_lines(path):
        row = parse_json_object(line, where)
        key, text, title = row.get("_id"), row.get("text"), row.get("title") or ""
        if not isinstance(key, str) or not key or any(map(str.isspace, key)):
            raise ConfigurationError(f'{where}: "_id" is {key!r}: give a string without spaces')
        if not isinstance(text, str) or not isinstance(title, str):
            raise ConfigurationError(f'{where}: "text" is missing, or it or "title" is no string')
        if key in texts:
            raise ConfigurationError(f'{where}: "_id" {key!r} occurs a second time')
        texts[key] = f"{title}\n{text}".strip() if title else text
    return texts


def _read_qrels(path: Path, queries: Container[str]) -> dict[str, dict[str, int]]:
    """Return the grades of a tab-separated file with or without a header: query id, document id, grade."""
    qrels: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(read_lines(path)):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 3:
            raise ConfigurationError(
                f"{where}: {len(fields)} fields: give query id, document id and grade, separated by tabs"
            )
        query, document, grade = fields
        is_number = grade.strip().removeprefix("-").isdecimal()
        if number == 0 and not is_number:
            continue  # the header
        if not is_number:
            raise ConfigurationError(f"{where}: the grade is {grade!r}: give a whole number")
        if query not in queries:
            raise ConfigurationError(f"{where}: query {query!r} is not among the queries")
        if document in qrels.setdefault(query, {}):
            raise ConfigurationError(f"{where}: document {document!r} is judged a second time for query {query!r}")
        qrels[query][document] = int(grade)
    return qrels


def _check_id(kind: str, key: object) -> None:
    if not isinstance(key, str) or not key or any(map(str.isspace, key)):
        raise ConfigurationError(f"the {kind} id {key!r} is not usable: give a string without spaces")
