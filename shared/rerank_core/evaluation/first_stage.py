"""The first stage: where the candidates come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rerank_core._optional import require
from rerank_core.errors import ConfigurationError
from rerank_core.evaluation._reading import read_run
from rerank_core.evaluation.dataset import Dataset

__all__ = ["Candidates", "FirstStage", "Search", "retrieve"]

Search = Callable[[str, int], "Iterable[str] | Mapping[str, float]"]
"""Takes a query's text and how many documents to find, returns their ids best first, or ids with scores."""

FirstStage = "str | Path | Mapping[str, Mapping[str, float]] | Search"
"""``"bm25"``, the path of a TREC run file, a run as mappings (query id, document id, score), or a search."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stage found for one query.

    Attributes:
        scores: score of each document, best first; None where the search gave none.
        seconds: what finding them took; 0.0 where they were read from a run.
    """

    scores: Mapping[str, float | None]
    seconds: float


def retrieve(
    first_stage: str | Path | Mapping[str, Mapping[str, float]] | Search, dataset: Dataset, top_k: int
) -> tuple[str, dict[str, Candidates]]:
    """Return the first stage's name, and what it found for each judged query.

    Raises:
        ConfigurationError: the first stage is none of the kinds, or found a document that there is not.
        MissingExtraError: ``"bm25"`` without the extra ``eval``.
    """
    if first_stage == "bm25":
        return "BM25", _searched(bm25_search(dataset.documents), dataset, top_k)
    if isinstance(first_stage, (str, Path)):
        path = Path(first_stage)
        if not path.is_file():
            raise ConfigurationError(f"first_stage is {str(first_stage)!r}: give 'bm25' or a TREC run file's path")
        return path.stem, _given(read_run(path), dataset, top_k, str(path))
    if isinstance(first_stage, Mapping):
        return "first stage", _given(first_stage, dataset, top_k, "first_stage")
    if callable(first_stage):
        name = getattr(first_stage, "__name__", type(first_stage).__name__)
        return name if name.isidentifier() else "first stage", _searched(first_stage, dataset, top_k)
    raise ConfigurationError(
        f"first_stage is a {type(first_stage).__name__}: give 'bm25', a run file's path, a run, or a function"
    )


def bm25_search(documents: Mapping[str, str]) -> Search:
    """Return a BM25 search with English stop words and stemming, k1 = 0.9 and b = 0.4.

    Raises:
        MissingExtraError: the extra ``eval`` is not installed.
    """
    bm25s = require("bm25s", extra="eval", purpose="first_stage='bm25'")
    stemmer = require("Stemmer", extra="eval", purpose="first_stage='bm25'").Stemmer("english")
    options: dict[str, Any] = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    ids = list(documents)
    tokens = bm25s.tokenize(list(documents.values()), **options)
    if not tokens.vocab:
        raise ConfigurationError("first_stage='bm25' found no word in the documents: give documents with text")
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(tokens, show_progress=False)

    def bm25(query: str, top_k: int) -> dict[str, float]:
        words = bm25s.tokenize([query], **options)
        found, scores = index.retrieve(words, k=min(top_k, len(ids)), show_progress=False)
        pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
        return {ids[position]: score for position, score in pairs if score > 0.0}

    return bm25


def _searched(search: Search, dataset: Dataset, top_k: int) -> dict[str, Candidates]:
    found = {}
    for query, text in dataset.judged.items():
        start = perf_counter()
        answer = search(text, top_k)
        scores: Mapping[str, float | None] = (
            _best_first(answer) if isinstance(answer, Mapping) else dict.fromkeys(answer)
        )
        found[query] = Candidates(_cut(scores, top_k), perf_counter() - start)
        _check(found[query].scores, dataset, query, "the first stage")
    return found


def _given(
    run: Mapping[str, Mapping[str, float]], dataset: Dataset, top_k: int, source: str
) -> dict[str, Candidates]:
    found = {}
    for query in dataset.judged:
        found[query] = Candidates(_cut(_best_first(run.get(query, {})), top_k), 0.0)
        _check(found[query].scores, dataset, query, source)
    if not any(candidates.scores for candidates in found.values()):
        raise ConfigurationError(
            f"{source} ranks no document for any judged query: does it belong to {dataset.name}?"
        )
    return found


def _best_first(scores: Mapping[str, float]) -> dict[str, float | None]:
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _cut(scores: Mapping[str, float | None], top_k: int) -> dict[str, float | None]:
    return dict(list(scores.items())[:top_k])


def _check(found: Sequence[str] | Mapping[str, Any], dataset: Dataset, query: str, source: str) -> None:
    for document in found:
        if document not in dataset.documents:
            raise ConfigurationError(
                f"{source} found document {document!r} for query {query!r}, which is not among the documents"
            )
