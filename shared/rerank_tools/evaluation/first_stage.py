"""The first stage: where the candidates come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rerank_tools.evaluation._reading import read_run
from rerank_tools.evaluation.dataset import Dataset

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError

__all__ = ["Candidates", "FirstStage", "Search", "retrieve"]

Search = Callable[[str, int], Iterable[str] | Mapping[str, float]]
"""Takes a query's text and how many documents to find, returns their ids best first, or ids with scores."""

FirstStage = str | Path | Mapping[str, Mapping[str, float]] | Search
"""``"bm25"``, the path of a TREC run file, a run as mappings (query id, document id, score), or a search."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stage found for one query.

    Attributes:
        scores: score of each document, best first; None where the search gave none.
        seconds: what finding them took; None where they were read from a run.
    """

    scores: Mapping[str, float | None]
    seconds: float | None


def retrieve(first_stage: FirstStage, dataset: Dataset, top_k: int) -> tuple[str, dict[str, Candidates]]:
    """Return the first stage's name, and what it found for each judged query.

    Raises:
        ConfigurationError: the first stage is none of the kinds, or found a document that there is not.
        MissingExtraError: ``"bm25"`` without the extra ``eval``.
    """
    if first_stage == "bm25":
        return "BM25", _searched(_bm25(dataset.documents), dataset, top_k)
    if isinstance(first_stage, (str, Path)):
        path = Path(first_stage)
        if not path.is_file():
            raise ConfigurationError(f"first_stage is {str(first_stage)!r}: give 'bm25' or a TREC run file's path")
        return path.stem, _given(read_run(path), dataset, top_k)
    if isinstance(first_stage, Mapping):
        return "first stage", _given(first_stage, dataset, top_k)
    if callable(first_stage):
        name = getattr(first_stage, "__name__", type(first_stage).__name__)
        return name if name.isidentifier() else "first stage", _searched(first_stage, dataset, top_k)
    raise ConfigurationError(
        f"first_stage is a {type(first_stage).__name__}: give 'bm25', a run file's path, a run, or a function"
    )


def _bm25(documents: Mapping[str, str]) -> Search:
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
        scores = _best_first(answer) if isinstance(answer, Mapping) else dict.fromkeys(answer)
        found[query] = _checked(scores, perf_counter() - start, dataset, top_k)
    return found


def _given(run: Mapping[str, Mapping[str, float]], dataset: Dataset, top_k: int) -> dict[str, Candidates]:
    found = {query: _checked(_best_first(run.get(query, {})), None, dataset, top_k) for query in dataset.judged}
    if not any(candidates.scores for candidates in found.values()):
        raise ConfigurationError(
            f"the first stage's run ranks no document for any judged query of {dataset.name}: give its own run"
        )
    return found


def _best_first(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {document: scores[document] for document in sorted(scores, key=lambda document: -scores[document])}


def _checked(
    scores: Mapping[str, float | None], seconds: float | None, dataset: Dataset, top_k: int
) -> Candidates:
    kept = dict(list(scores.items())[:top_k])
    for document in kept:
        if document not in dataset.documents:
            raise ConfigurationError(
                f"the first stage found document {document!r}, which is not among the documents of {dataset.name}"
            )
    return Candidates(kept, seconds)
