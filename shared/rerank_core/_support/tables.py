"""A table as plain data, shown as HTML, in a terminal (rich), as Markdown, or as a pandas data frame.

It does not know what it shows: a ranking, say, or an evaluation. Every text is put on one line, cut where it is
long and escaped for the output, so that no document can break a page or a terminal.

>>> columns = (Column("system"), Column("nDCG", align="right"))
>>> rows = [("first stage", 0.5), ("ours", Cell(0.75, "0.750*", detail=".70–.80"))]
>>> print(Table("Two systems", columns, rows, note="* differs").to_markdown())
**Two systems**
<BLANKLINE>
| system | nDCG |
|---|---:|
| first stage | 0.500 |
| ours | 0.750* (.70–.80) |
<BLANKLINE>
* differs
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from rerank_core._support.extras import require

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType
    from rich.text import Text

_CELL_CHARS = 160
_AROUND_CHARS = 40  # shown before and after a mark
_LINE_CHARS = 400
_HOVER_CHARS = 1000
_HTML_ROWS = 50

# Control characters, lone surrogates, and marks that turn the direction of what follows.
UNSAFE_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MARKDOWN = re.compile(r"[\\|<`\[]")

_TEXT = (
    "padding:0.25em 0.7em;text-align:left;vertical-align:top;border:0;border-top:1px solid rgba(128,128,128,.3)"
)
_BAR = "width:80px;margin-right:0.6em"
_NUMBER = f"{_TEXT};white-space:nowrap;font-variant-numeric:tabular-nums"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, with a second line as in a :class:`Cell`; numbers stand right, and are not wrapped."""

    name: str
    detail: str = ""
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value and how it is shown; a row may also hold plain values.

    Attributes:
        value: what a data frame holds.
        text: what the other outputs show; by default the value: a float with three decimals, None as "–".
        detail: a second line in a terminal, in parentheses elsewhere.
        mark: the part ``[start:end]`` of the text that matters. HTML marks it and shows some text around it; the
            other outputs show this part alone.
        bar: a share in [0, 1] that HTML draws as a bar.
    """

    value: Any
    text: str | None = None
    detail: str = ""
    mark: tuple[int, int] | None = None
    bar: float | None = None

    def full_text(self) -> str:
        """Return the text, uncut and not escaped."""
        if self.text is not None:
            return self.text
        if self.value is None:
            return "–"
        return f"{self.value:.3f}" if isinstance(self.value, float) else str(self.value)

    def short_text(self) -> str:
        """Return the text, or its marked part, on one line and cut where it is long; not escaped."""
        return one_line(self.full_text()[slice(*self.mark or (None, None))], _CELL_CHARS)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: texts and numbers, no markup; HTML shows the first 50 rows.

    The subtitle stands beside the title, the warning between title and rows, the note below the rows.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    subtitle: str = ""
    warning: str = ""
    note: str = ""

    def to_html(self) -> str:
        """Return an HTML fragment in the colours of the page around it, without scripts or style sheets."""
        heads = (_join(column.name, column.detail) for column in self.columns)
        head = "".join(f'<th scope="col" style="{_TEXT};border-top:0">{_html(each)}</th>' for each in heads)
        rows = (map(_html_cell, _cells(row), self.columns) for row in self.rows[:_HTML_ROWS])
        body = "".join(f'<tr style="background:transparent;color:inherit">{"".join(row)}</tr>' for row in rows)
        title = f'<bdi style="font-weight:bold">{_html(self.title)}</bdi>'
        more = f"… and {len(self.rows) - _HTML_ROWS:,} more" if len(self.rows) > _HTML_ROWS else ""
        return (
            f'<div style="color:inherit;line-height:1.4"><div>{title} {_faint("span", self.subtitle)}</div>'
            f"{f'<div>⚠ {_html(self.warning)}</div>' if self.warning else ''}"
            f'<table style="border-collapse:collapse;color:inherit;background:transparent"><thead><tr>{head}</tr>'
            f"</thead><tbody>{body}</tbody></table>{_faint('div', more)}{_faint('div', self.note)}</div>"
        )

    def to_markdown(self) -> str:
        """Return a Markdown table between the title and the note."""
        rows = [[_join(column.name, column.detail) for column in self.columns]]
        rows += [[_join(cell.short_text(), cell.detail) for cell in _cells(row)] for row in self.rows]
        lines = [f"| {' | '.join(map(_markdown, row))} |" for row in rows]
        lines.insert(1, "|" + "".join("---:|" if each.align == "right" else "---|" for each in self.columns))
        title = f"**{_markdown(self.title)}** {_markdown(self.subtitle)}".strip() if self.title else ""
        parts = (title, _markdown(self.warning), "\n".join(lines), _markdown(self.note))
        return "\n\n".join(filter(None, parts))

    def to_pandas(self) -> pandas.DataFrame:
        """Return the cells' values as a data frame."""
        kind = require("pandas", extra="notebook", purpose="to_pandas").DataFrame
        values = [[cell.value for cell in _cells(row)] for row in self.rows]
        frame: pandas.DataFrame = kind(values, columns=[column.name for column in self.columns])
        return frame

    def __rich__(self) -> RenderableType:
        table = _rich("table").Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in self.columns:
            numbers = column.align == "right"
            table.add_column(
                _terminal_text(column.name, column.detail),
                justify=column.align,
                no_wrap=numbers,
                min_width=None if numbers else 8,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(_terminal_text(cell.short_text(), cell.detail) for cell in _cells(row)))
        title = " · ".join(filter(None, (self.title, self.subtitle)))
        above, *below = (
            _terminal_text(line, style="italic", max_chars=_LINE_CHARS)
            for line in (title, self.warning, self.note)
        )
        group: RenderableType = _rich("console").Group(*filter(None, (above, table, *below)))
        return group


def one_line(text: str, max_chars: int) -> str:
    r"""Return a text on one line, cut to ``max_chars``, with � for characters that would disturb its surroundings.

    >>> one_line("red \x1b[31malert\n\tagain \u202e", 100)
    'red �[31malert again �'
    >>> one_line("a long text", 7)
    'a long…'
    """
    head = text[: 8 * max_chars]  # a text may be huge, and white space shrinks
    line = UNSAFE_CHARACTERS.sub("\ufffd", " ".join(head.split()))
    return line if len(line) <= max_chars and len(head) == len(text) else line[: max_chars - 1] + "…"


def movement(places: int) -> str:
    """Return how many places something moved, up where above 0.

    >>> movement(3), movement(-2), movement(0)
    ('▲ 3', '▼ 2', '=')
    """
    return f"▲ {places}" if places > 0 else f"▼ {-places}" if places < 0 else "="


def _cells(row: Sequence[Any]) -> list[Cell]:
    return [value if isinstance(value, Cell) else Cell(value) for value in row]


def _join(text: str, detail: str) -> str:
    return f"{text} ({detail})" if detail else text


def _rich(module: str) -> Any:
    return require(f"rich.{module}", extra="cli", purpose="a table in a terminal")


def _terminal_text(*lines: str, style: str = "", max_chars: int = _CELL_CHARS) -> Text:
    """Return lines in which brackets mean nothing; empty ones are left out."""
    text: Text = _rich("text").Text("\n".join(one_line(line, max_chars) for line in lines if line), style=style)
    return text


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text, _LINE_CHARS))


def _html(text: str, max_chars: int = _LINE_CHARS) -> str:
    return escape(one_line(text, max_chars))


def _faint(tag: str, text: str) -> str:
    return f'<{tag} style="opacity:.75">{_html(text)}</{tag}>' if text else ""


def _html_cell(cell: Cell, column: Column) -> str:
    content = _html(_join(cell.short_text(), cell.detail))
    if column.align == "right":
        bar = "" if cell.bar is None else f'<meter value="{cell.bar:.3f}" style="{_BAR}"></meter>'
        return f'<td style="{_NUMBER}">{bar}{content}</td>'
    text = cell.full_text()
    if cell.mark is not None:
        start, end = cell.mark
        before, after = text[max(0, start - _AROUND_CHARS) : start], text[end : end + _AROUND_CHARS]
        content = (
            f"{'… ' * (start > _AROUND_CHARS)}{_html(before)}{' ' * before[-1:].isspace()}"
            f'<mark style="background:rgba(230,180,0,.35);color:inherit">{content}</mark>'
            f"{' ' * after[:1].isspace()}{_html(after)}{' …' * (len(text) > end + _AROUND_CHARS)}"
        )
    is_cut = cell.mark is not None or len(text) > _CELL_CHARS
    hover = f' title="{_html(text, _HOVER_CHARS)}"' if is_cut else ""
    return f'<td style="{_TEXT}"{hover}><bdi>{content}</bdi></td>'
