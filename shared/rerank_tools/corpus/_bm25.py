"""BM25 over chunks, by bm25s, and the terms that it counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rerank_core._support.extras import require

__all__ = ["Terms", "build", "restored", "search"]

_WORD = re.compile(r"\w+")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_COMMON_WORDS = (
    "a an and are as at be but by can do does for from has have how i if in into is it its my not of on "
    "or s should so such t that the their then there these they this to was what when where which will "
    "with you your"
)
_FOUND_EVERYWHERE = frozenset(_COMMON_WORDS.split())


class Terms:
    """Turns texts into terms: stemmed words, and the parts of identifiers besides the whole.

    >>> Terms().of("How does getHttpResponse handle retries?")
    ['gethttprespons', 'get', 'http', 'respons', 'handl', 'retri']
    """

    def __init__(self) -> None:
        stemmer: Any = require("Stemmer", extra="cli", purpose="corpus search")
        self._stem = stemmer.Stemmer("english").stemWords
        self._known: dict[str, list[str]] = {}

    def of(self, text: str) -> list[str]:
        """Return the terms of a text, in order."""
        known = self._known
        terms: list[str] = []
        for word in _WORD.findall(text):
            found = known.get(word)
            if found is None:
                found = known[word] = self._of_word(word)
            terms += found
        return terms

    def _of_word(self, word: str) -> list[str]:
        lowered = word.lower()
        if lowered in _FOUND_EVERYWHERE:
            return []
        parts = [part.lower() for part in _PARTS.findall(word)]
        whole = lowered.strip("_")
        words = [whole] if len(parts) < 2 else [whole, *(part for part in parts if part not in _FOUND_EVERYWHERE)]
        return [str(term) for term in self._stem([each for each in words if each])]


def build(texts: Iterable[str]) -> Any:
    """Return the index of texts."""
    bm25s = _library()
    terms = Terms()
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index([terms.of(text) for text in texts], show_progress=False)
    return index


def restored(scores: dict[str, Any], vocabulary: dict[str, int]) -> Any:
    """Return an index that was built before, from what :func:`build`'s one keeps."""
    index = _library().BM25(k1=1.2, b=0.75)
    index.scores = scores
    index.vocab_dict = vocabulary
    index.nonoccurrence_array = None  # of variants that score texts without a term, which this one is not
    return index


def search(index: Any, query: str, k: int) -> Sequence[tuple[int, float]]:
    """Return position and score of at most ``k`` texts that share a term with the query, best first."""
    import numpy as np

    terms = [term for term in dict.fromkeys(Terms().of(query)) if term in index.vocab_dict]
    if not terms:
        return []
    scores = index.get_scores(terms)
    # A stable order, so that equal scores keep the order of the corpus.
    best = np.argsort(-scores, kind="stable")[:k]
    return [(int(position), float(scores[position])) for position in best if scores[position] > 0]


def _library() -> Any:
    return require("bm25s", extra="cli", purpose="corpus search")
