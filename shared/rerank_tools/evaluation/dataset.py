"""A data set: documents, queries, and which documents answer which query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rerank_tools.evaluation._reading import read_collection, read_qrels

from rerank_core.errors import ConfigurationError

__all__ = ["Dataset", "load_dataset"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Documents, queries and judgements, by id.

    Attributes:
        documents: text of each document.
        queries: text of each query.
        qrels: grade of each judged document of a query; above 0 is relevant. Queries without a relevant
            document are neither sent nor measured.
        name: for tables.

    Raises:
        ConfigurationError: there is nothing to measure, an id or a text is not usable, or a judgement is of a
            query that there is not.

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
    queries = read_collection(path / "queries.jsonl")
    return Dataset(
        read_collection(path / "corpus.jsonl"), queries, read_qrels(qrels_path, queries), name=path.resolve().name
    )


def _check_id(kind: str, key: object) -> None:
    if not isinstance(key, str) or not key or any(map(str.isspace, key)):
        raise ConfigurationError(f"the {kind} id {key!r} is not usable: give a string without spaces")
