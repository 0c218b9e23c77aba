"""BM25, as Lucene has it: which of many texts share terms with a query, by the library bm25s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core._support.extras import require


def build_bm25(texts: Sequence[list[str]], *, k1: float, b: float) -> Any:
    """Return an index of texts, a ``bm25s.BM25``.

    Args:
        texts: the terms of each text; at least one of them has a term.
        k1: how much it counts that a term is repeated; 0 for not at all.
        b: how much long texts are marked down, from 0 to 1.

    Raises:
        MissingExtraError: bm25s is not installed (extras ``cli`` and ``eval``).
    """
    index = require("bm25s", extra="cli", purpose="BM25").BM25(k1=k1, b=b)
    index.index(texts, show_progress=False)
    return index


def search_bm25(index: Any, terms: Sequence[str], candidates: int) -> list[tuple[int, float]]:
    """Return the texts that share a term with the query, best first, equal scores in the texts' order.

    Args:
        index: from :func:`build_bm25`; it may be shared by threads.
        terms: of the query; a term that occurs twice counts twice.
        candidates: how many texts to return at most.

    Returns:
        Position and score of each text. Scores are above 0 and comparable within one query only.
    """
    import numpy as np

    known = [term for term in terms if term in index.vocab_dict]
    if not known:
        return []
    scores = index.get_scores(known)
    best = np.argsort(-scores, kind="stable")[:candidates]
    return [(int(position), float(scores[position])) for position in best if scores[position] > 0.0]
