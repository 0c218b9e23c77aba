"""The first stage: where the candidates come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_tools.bm25 import build_bm25, search_bm25
from rerank_tools.evaluation.dataset import Dataset, Run, read_run

Search = Callable[[str, int], Iterable[str] | Mapping[str, float]]
"""Takes a query's text and how many documents to find; returns their ids, best first, or ids with scores."""

FirstStage = str | Path | Mapping[str, Mapping[str, float]] | Search
"""``"bm25"``, the path of a TREC run file, a run as mappings (query id, document id, score), or a search."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stage found for one query: documents with scores, best first, and how long it took."""

    scores: Mapping[str, float | None]
    seconds: float | None


def retrieve(first_stage: FirstStage, dataset: Dataset, candidates: int) -> tuple[str, dict[str, Candidates]]:
    """Return the first stage's name, and what it found for each judged query."""
    if first_stage == "bm25":
        return "BM25", _search_all(_make_bm25(dataset.documents), dataset, candidates)
    if isinstance(first_stage, (str, Path)):
        path = Path(first_stage)
        if not path.is_file():
            raise ConfigurationError(f"first_stage is {str(first_stage)!r}: give 'bm25' or a TREC run file's path")
        return path.stem, _take_from_run(read_run(path), dataset, candidates)
    if isinstance(first_stage, Mapping):
        return "first stage", _take_from_run(first_stage, dataset, candidates)
    if callable(first_stage):
        name = getattr(first_stage, "__name__", type(first_stage).__name__)
        return name if name.isidentifier() else "first stage", _search_all(first_stage, dataset, candidates)
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


def _search_all(search: Search, dataset: Dataset, candidates: int) -> dict[str, Candidates]:
    found = {}
    for query, text in dataset.judged.items():
        start = perf_counter()
        answer = search(text, candidates)
        scores = _sort(answer) if isinstance(answer, Mapping) else dict.fromkeys(answer)
        found[query] = _take_best(scores, perf_counter() - start, dataset, candidates)
    return found


def _take_from_run(run: Run, dataset: Dataset, candidates: int) -> dict[str, Candidates]:
    found = {query: _take_best(_sort(run.get(query, {})), None, dataset, candidates) for query in dataset.judged}
    if not any(one.scores for one in found.values()):
        raise ConfigurationError(
            f"the first stage's run ranks no document for any judged query of {dataset.name}: give its own run"
        )
    return found


def _sort(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {document: scores[document] for document in sorted(scores, key=lambda document: -scores[document])}


def _take_best(
    scores: Mapping[str, float | None], seconds: float | None, dataset: Dataset, candidates: int
) -> Candidates:
    kept = dict(list(scores.items())[:candidates])
    for document in kept:
        if document not in dataset.documents:
            raise ConfigurationError(
                f"the first stage found document {document!r}, which is not among the documents of {dataset.name}"
            )
    return Candidates(kept, seconds)
