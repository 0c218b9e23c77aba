"""BM25, as Lucene has it: which of many texts share terms with a query, by the library bm25s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core._support.extras import require


def build_bm25(texts: Sequence[list[str]], *, k1: float, b: float) -> Any:
    """Return an index of texts by their terms, a ``bm25s.BM25``; at least one text has a term."""
    index = require("bm25s", extra="cli", purpose="BM25").BM25(k1=k1, b=b)
    index.index(texts, show_progress=False)
    return index


def search_bm25(index: Any, terms: Sequence[str], candidates: int) -> list[tuple[int, float]]:
    """Return position and score of the texts that share a term with the query, best first, equal ones in order.

    A term that occurs twice counts twice. Threads may share the index.
    """
    import numpy as np

    known = [term for term in terms if term in index.vocab_dict]
    if not known:
        return []
    scores = index.get_scores(known)
    best = np.argsort(-scores, kind="stable")[:candidates]
    return [(int(position), float(scores[position])) for position in best if scores[position] > 0.0]
