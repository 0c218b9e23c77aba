"""A ranking as a table in a terminal."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from rerank_core.types import Ranking

__all__ = ["SHOWN_CHARS", "as_text", "moved", "ranking_table", "visible"]

SHOWN_CHARS = 160
"""Characters of a document's text that a table shows."""

_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs"})
_JOINERS = "\u200c\u200d"


def visible(text: str, limit: int = SHOWN_CHARS) -> str:
    r"""Return the beginning of a text in one line, without what would change how a terminal shows the rest.

    >>> visible("red \x1b[31malert\n  again", limit=16)
    'red �[31malert …'
    """
    # A text may be very long, and most of white space vanishes.
    words = " ".join(text[: limit * 8].split())
    cut = words if len(words) <= limit and len(text) <= limit * 8 else words[: limit - 1] + "…"
    return "".join("�" if unicodedata.category(char) in _HIDDEN and char not in _JOINERS else char for char in cut)


def as_text(text: str, style: str = "") -> Text:
    """Return a text for a cell, in which brackets mean nothing and control characters are replaced."""
    rich_text: Any = require("rich.text", extra="cli", purpose="a table in a terminal")
    made: Text = rich_text.Text(visible(text), style=style)
    return made


def ranking_table(ranking: Ranking[Any]) -> RenderableType:
    """Return the table of a ranking: rank, score, how far each document moved, and its text.

    Raises:
        MissingExtraError: rich is not installed.
    """
    console: Any = require("rich.console", extra="cli", purpose="a table in a terminal")
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("moved", justify="right", no_wrap=True)
    table.add_column("text", overflow="fold", ratio=1)
    for row in ranking:
        table.add_row(
            str(row.rank),
            "–" if row.score is None else f"{row.score:.3f}",
            moved(row.index + 1, row.rank),
            as_text(row.passage_text),
        )
    title = f"{visible(ranking.query, 60)} · {ranking.model} · {len(ranking)} of {len(ranking.scores)}"
    notes = [] if ranking.error is None else [as_text(f"not scored: {ranking.error}", "italic")]
    group: RenderableType = console.Group(as_text(title, "italic"), table, *notes)
    return group


def moved(before: int, after: int) -> str:
    """Return how many places a document went up or down.

    >>> moved(5, 2), moved(1, 3), moved(4, 4)
    ('↑3', '↓2', '=')
    """
    if before == after:
        return "="
    return f"↑{before - after}" if before > after else f"↓{after - before}"
