"""A ranking as a pandas table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require

if TYPE_CHECKING:
    import pandas

    from rerank_core.types import Ranking

__all__ = ["frame"]


def frame(ranking: Ranking[Any]) -> pandas.DataFrame:
    """Return a row for each surviving document, best first; an empty ranking has the same columns.

    Raises:
        MissingExtraError: pandas is not installed (extra ``notebook``).
    """
    kind = require("pandas", extra="notebook", purpose="to_pandas").DataFrame
    return kind(
        {
            "rank": [document.rank for document in ranking],
            "moved": [document.index + 1 - document.rank for document in ranking],
            "index": [document.index for document in ranking],
            "score": [document.score for document in ranking],
            "text": [document.text for document in ranking],
            "passage": [document.passage_text for document in ranking],
            "document": [document.document for document in ranking],
        }
    )
