"""The first stage: where the candidates come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage
from rerank_tools.bm25 import build_bm25, search_bm25
from rerank_tools.evaluation.dataset import Dataset, Run, read_run
from rerank_tools.evaluation.results import QueryResult

Search = Callable[[str, int], Iterable[str] | Mapping[str, float]]
"""Takes a query's text and how many documents to find; returns their ids, best first, or ids with scores."""

FirstStage = str | Path | Mapping[str, Mapping[str, float]] | Search
"""``"bm25"``, the path of a TREC run file, a run as mappings (query id, document id, score), or a search."""


def retrieve(first_stage: FirstStage, dataset: Dataset, candidates: int) -> tuple[str, dict[str, QueryResult]]:
    """Return the first stage's name, and what it found for each judged query."""
    name, source = _open(first_stage, dataset)
    found = {}
    for query, text in dataset.judged.items():
        start = perf_counter()
        answer = source.get(query, {}) if isinstance(source, Mapping) else source(text, candidates)
        seconds = None if isinstance(source, Mapping) else perf_counter() - start
        scores = _sort(answer) if isinstance(answer, Mapping) else dict.fromkeys(answer)
        documents = tuple(scores)[:candidates]
        for document in documents:
            if document not in dataset.documents:
                raise ConfigurationError(
                    f"the first stage found document {document!r}, which is not among the documents of "
                    f"{dataset.name}"
                )
        values = tuple(scores.values())[:candidates]
        found[query] = QueryResult(documents, values, documents, values, seconds, Usage(), name)
    if isinstance(source, Mapping) and not any(answer.candidates for answer in found.values()):
        raise ConfigurationError(
            f"the first stage's run ranks no document for any judged query of {dataset.name}: give its own run"
        )
    return name, found


def _open(first_stage: FirstStage, dataset: Dataset) -> tuple[str, Search | Run]:
    if first_stage == "bm25":
        return "BM25", _make_bm25(dataset.documents)
    if isinstance(first_stage, (str, Path)):
        path = Path(first_stage)
        if not path.is_file():
            raise ConfigurationError(f"first_stage is {str(first_stage)!r}: give 'bm25' or a TREC run file's path")
        return path.stem, read_run(path)
    if isinstance(first_stage, Mapping):
        return "first stage", first_stage
    if callable(first_stage):
        name = getattr(first_stage, "__name__", type(first_stage).__name__)
        return name if name.isidentifier() else "first stage", first_stage
    raise ConfigurationError(
        f"first_stage is a {type(first_stage).__name__}: give 'bm25', a run file's path, a run, or a function"
    )


def _make_bm25(documents: Mapping[str, str]) -> Search:
    """Return a BM25 search with English stop words and stemming, k1 = 0.9 and b = 0.4 (as Anserini has them)."""
    check_installed("bm25s", "Stemmer", extra="eval", purpose="first_stage='bm25'")
    stemmer: Any = require("Stemmer", extra="eval", purpose="first_stage='bm25'").Stemmer("english")
    bm25s: Any = require("bm25s", extra="eval", purpose="first_stage='bm25'")

    def split(texts: list[str]) -> list[list[str]]:
        terms: list[list[str]] = bm25s.tokenize(
            texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )
        return terms

    ids = list(documents)
    terms = split(list(documents.values()))
    if not any(terms):
        raise ConfigurationError("first_stage='bm25' found no word in the documents: give documents with text")
    index = build_bm25(terms, k1=0.9, b=0.4)

    def bm25(query: str, candidates: int) -> dict[str, float]:
        return {ids[position]: score for position, score in search_bm25(index, split([query])[0], candidates)}

    return bm25


def _sort(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {document: scores[document] for document in sorted(scores, key=lambda document: -scores[document])}
