"""BM25: which of many texts share terms with a query, by the library bm25s."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rerank_core._support.extras import require

__all__ = ["Bm25"]


class Bm25:
    """Texts that can be searched; made by :meth:`build` or :meth:`load`. It may be shared by threads.

    Scores are those of Lucene's BM25.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, texts: Sequence[list[str]], *, k1: float, b: float) -> Bm25:
        """Index texts.

        Args:
            texts: the terms of each text; at least one of them has a term.
            k1: how much it counts that a term is repeated; 0 for not at all.
            b: how much long texts are marked down, from 0 to 1.

        Raises:
            MissingExtraError: bm25s is not installed (extras ``cli`` and ``eval``).
        """
        index = _import_bm25s().BM25(k1=k1, b=b)
        index.index(texts, show_progress=False)
        return cls(index)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Bm25:
        """Load what :meth:`save` wrote; the files have to be trusted.

        Raises:
            MissingExtraError: bm25s is not installed (extras ``cli`` and ``eval``).
        """
        return cls(_import_bm25s().BM25.load(folder))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index to several files of a folder, which is made where it is missing.

        Raises:
            OSError: they cannot be written.
        """
        self._index.save(folder, show_progress=False)

    def search(self, terms: Sequence[str], candidates: int) -> list[tuple[int, float]]:
        """Return the texts that share a term with the query, best first, equal scores in the texts' order.

        Args:
            terms: of the query; a term that occurs twice counts twice.
            candidates: how many texts to return at most.

        Returns:
            Position and score of each text. Scores are above 0 and comparable within one query only.
        """
        import numpy as np

        known = [term for term in terms if term in self._index.vocab_dict]
        if not known:
            return []
        scores = self._index.get_scores(known)
        best = np.argsort(-scores, kind="stable")[:candidates]
        return [(int(position), float(scores[position])) for position in best if scores[position] > 0.0]


def _import_bm25s() -> Any:
    return require("bm25s", extra="cli", purpose="BM25")
