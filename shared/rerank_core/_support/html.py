"""A ranking as a table for notebooks: the page's own colours, and no trust in any text."""

from __future__ import annotations

import unicodedata
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_core.types import RankedDocument, Ranking

__all__ = ["html", "plain"]

_ROWS = 50
_SHOWN = 160
_HOVER = 1000
_CONTEXT = 40
_BAR = 80  # pixels

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_CELL = (
    "padding:0.25em 0.7em;text-align:left;vertical-align:top;border:0;border-top:1px solid rgba(128,128,128,.3)"
)
_NUMBER = f"{_CELL};white-space:nowrap;font-variant-numeric:tabular-nums"
_FAINT = "opacity:.75"


def html(ranking: Ranking[Any]) -> str:
    """Return a table of at most 50 rows, a few kilobytes each; every text is escaped, and cut if long."""
    cut = cut_of(ranking)
    rows = [_row(document, cut) for document in ranking.documents[:_ROWS]]
    headings = "".join(
        f'<th scope="col" style="{_CELL};border-top:0">{name}</th>' for name in ("#", "moved", "score", "text")
    )
    table = (
        f'<table style="border-collapse:collapse;color:inherit;background:transparent">'
        f"<thead><tr>{headings}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        if rows
        else f'<div style="{_FAINT}">no documents</div>'
    )
    hidden = len(ranking) - len(rows)
    more = f'<div style="{_FAINT}">… and {hidden:,} more</div>' if hidden else ""
    return f'<div style="color:inherit;line-height:1.4">{_head(ranking)}{table}{more}{_foot(ranking, cut)}</div>'


def plain(text: str, limit: int) -> str:
    """Return a text on one line, at most ``limit`` characters, what is invisible or turns lines round replaced.

    >>> plain("one\\n\\ttwo \\u202e three", 100)
    'one two � three'
    """
    piece = " ".join(text[: 4 * limit].split())  # so that a huge text is not read as a whole
    cleaned = "".join("�" if _unsafe(character) else character for character in piece)
    return cleaned if len(cleaned) <= limit and len(text) <= 4 * limit else cleaned[: limit - 1] + "…"


def cut_of(ranking: Ranking[Any]) -> float | None:
    """Return the score that the selection cut at, None where it cut at none."""
    scores = [score for score in ranking.scores if score is not None]
    cut = ranking.selection.cut(max(scores)) if ranking.selection and scores else 0.0
    return cut or None


def _unsafe(character: str) -> bool:
    return character in _BIDI or unicodedata.category(character) in ("Cc", "Cs")


def _head(ranking: Ranking[Any]) -> str:
    facts = [plain(ranking.model, 80), f"{len(ranking):,} of {len(ranking.scores):,} documents"]
    if ranking.usage.seconds:
        facts.append(f"{ranking.usage.seconds * 1000:,.0f} ms")
    if ranking.usage.cost:
        facts.append(f"${ranking.usage.cost:.6f}".rstrip("0"))
    facts += [f"after {plain(attempt.model, 80)}: {type(attempt.error).__name__}" for attempt in ranking.attempts]
    error = ""
    if ranking.error is not None:
        message = escape(plain(str(ranking.error), 300))
        error = f"<div>⚠ not reranked, first-stage order: {type(ranking.error).__name__}: {message}</div>"
    query = f'<bdi style="font-weight:bold">{escape(plain(ranking.query, 200))}</bdi>'
    return f'<div>{query} <span style="{_FAINT}">{escape(" · ".join(facts))}</span></div>{error}'


def _row(document: RankedDocument[Any], cut: float | None) -> str:
    moved = document.index + 1 - document.rank
    hover = escape(plain(document.text, _HOVER))
    arrow = f"▲ {moved}" if moved > 0 else f"▼ {-moved}" if moved < 0 else "="
    return (
        f'<tr style="background:transparent;color:inherit"><td style="{_NUMBER}">{document.rank}</td>'
        f'<td style="{_NUMBER}" title="was {document.index + 1}">{arrow}</td>'
        f'<td style="{_NUMBER}">{_bar(document.score, cut)}</td>'
        f'<td style="{_CELL}" title="{hover}"><bdi>{_text(document)}</bdi></td></tr>'
    )


def _bar(score: float | None, cut: float | None) -> str:
    if score is None:
        return "–"
    line = ""
    if cut is not None:
        left = round(min(cut, 1.0) * (_BAR - 2))
        line = (
            f'<span style="position:absolute;left:{left}px;top:-2px;bottom:-2px;width:0;'
            'border-left:2px dashed currentColor"></span>'
        )
    return (
        f'<span style="display:inline-block;position:relative;width:{_BAR}px;height:0.7em;'
        'background:rgba(128,128,128,.25);margin-right:0.6em">'
        f'<span style="display:block;width:{round(score * _BAR)}px;height:100%;background:#4c8fc7"></span>'
        f"{line}</span>{score:.3f}"
    )


def _text(document: RankedDocument[Any]) -> str:
    if document.passage is None:
        return escape(plain(document.text, _SHOWN))
    start, end = document.passage
    before, after = document.text[max(0, start - _CONTEXT) : start], document.text[end : end + _CONTEXT]
    left = ("… " if start > _CONTEXT else "") + escape(plain(before, _CONTEXT)) + " " * before[-1:].isspace()
    right = " " * after[:1].isspace() + escape(plain(after, _CONTEXT))
    more = " …" if len(document.text) > end + _CONTEXT else ""
    marked = "background:rgba(230,180,0,.35);color:inherit"
    return f'{left}<mark style="{marked}">{escape(plain(document.passage_text, _SHOWN))}</mark>{right}{more}'


def _foot(ranking: Ranking[Any], cut: float | None) -> str:
    kept = {document.index for document in ranking}
    dropped = [
        (score, index) for index, score in enumerate(ranking.scores) if index not in kept and score is not None
    ]
    dropped.sort(key=lambda pair: (-pair[0], pair[1]))
    line = "" if cut is None else f"┆ cut at score {cut:.3f}"
    if not dropped:
        return f'<div style="{_FAINT}">{line}</div>' if line else ""
    shown = ", ".join(f"document {index + 1}: {score:.3f}" for score, index in dropped[:_ROWS])
    more = f" … and {len(dropped) - _ROWS:,} more" if len(dropped) > _ROWS else ""
    summary = f"{line} · {len(dropped):,} dropped" if line else f"{len(dropped):,} dropped"
    return f'<details style="{_FAINT}"><summary>{summary}</summary>{shown}{more}</details>'
