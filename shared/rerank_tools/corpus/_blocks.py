"""Blocks of text files: paragraphs below headings, and lines of code between blank lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import NamedTuple

__all__ = ["Block", "html_blocks", "markdown_blocks", "plain_blocks", "rst_blocks"]


class Block(NamedTuple):
    """Lines that belong together; ``text`` has as many lines as the file has from ``start`` to ``end``, or one."""

    start: int
    end: int
    heading: str
    text: str


class _Headings:
    """The headings above a line, outermost first."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, " ".join(title.split())))

    def __str__(self) -> str:
        return " › ".join(title for _, title in self._open if title)


class _Paragraph:
    """Lines that are gathered until a blank line."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._start = 0

    def add(self, number: int, line: str) -> None:
        if not self._lines:
            self._start = number
        self._lines.append(line.rstrip())

    def pop_line(self) -> str:
        return self._lines.pop() if self._lines else ""

    def end(self, heading: str) -> Iterator[Block]:
        if self._lines:
            end = self._start + len(self._lines) - 1
            yield Block(self._start, end, heading, "\n".join(self._lines))
            self._lines = []

    def __len__(self) -> int:
        return len(self._lines)


def plain_blocks(content: str) -> Iterator[Block]:
    """Return paragraphs; of code in any language, the lines between blank lines."""
    paragraph = _Paragraph()
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            paragraph.add(number, line)
        else:
            yield from paragraph.end("")
    yield from paragraph.end("")


_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def markdown_blocks(content: str) -> Iterator[Block]:
    """Return paragraphs and fenced code below ATX and setext headings."""
    headings, paragraph, fence = _Headings(), _Paragraph(), ""
    for number, line in enumerate(content.split("\n"), 1):
        mark = _FENCE.match(line)
        if fence:
            paragraph.add(number, line)
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
        elif mark:
            fence = mark[1]
            paragraph.add(number, line)
        elif atx := _ATX.match(line):
            yield from paragraph.end(str(headings))
            headings.enter(len(atx[1]), atx[2] or "")
        elif len(paragraph) and (setext := _SETEXT.match(line)):
            title = paragraph.pop_line()
            yield from paragraph.end(str(headings))
            headings.enter(1 if setext[1][0] == "=" else 2, title)
        elif line.strip():
            paragraph.add(number, line)
        else:
            yield from paragraph.end(str(headings))
    yield from paragraph.end(str(headings))


_ADORNMENT = re.compile(r"([=\-`:.'\"~^_*+#<>!$%&(),/;?@\[\\\]{|}])\1*$")
_SHORTEST_ADORNMENT = 2


def rst_blocks(content: str) -> Iterator[Block]:
    """Return paragraphs below underlined titles; a level is the order in which its character first appears."""
    headings, paragraph, levels = _Headings(), _Paragraph(), list[str]()
    for number, line in enumerate(content.split("\n"), 1):
        bare = line.rstrip()
        is_adornment = len(bare) >= _SHORTEST_ADORNMENT and _ADORNMENT.match(bare) is not None
        if is_adornment and 1 <= len(paragraph) <= _SHORTEST_ADORNMENT:
            title = paragraph.pop_line()
            # Above the title there may be a line like the one below it, and nothing else.
            overline = paragraph.pop_line()
            style = bare[0] * (2 if overline else 1)
            if len(bare) >= len(title.strip()) and not _ADORNMENT.match(title) and overline in ("", bare):
                if style not in levels:
                    levels.append(style)
                headings.enter(levels.index(style), title)
                continue
            for back, text in enumerate((overline, title) if overline else (title,)):
                paragraph.add(number - (2 if overline else 1) + back, text)
        if bare:
            paragraph.add(number, line)
        else:
            yield from paragraph.end(str(headings))
    yield from paragraph.end(str(headings))


_BREAKING_TAGS = (
    "address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section summary table tbody td th thead "
    "title tr ul"
)
_BREAKING = frozenset(_BREAKING_TAGS.split())
_UNREAD = frozenset({"script", "style", "template", "noscript"})
_TITLES = {f"h{level}": level for level in range(1, 7)}


class _HtmlReader(HTMLParser):
    """Gathers visible text; line numbers are those of the source."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._headings = _Headings()
        self._words: list[str] = []
        self._lines = (0, 0)
        self._unread = 0
        self._title = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in _BREAKING:
            self.flush()
        if tag in _UNREAD:
            self._unread += 1
        self._title = _TITLES.get(tag, self._title)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNREAD:
            self._unread = max(0, self._unread - 1)
        if tag in _BREAKING:
            self.flush()

    def handle_data(self, data: str) -> None:
        words = data.split()
        if self._unread or not words:
            return
        first = self.getpos()[0] + data[: len(data) - len(data.lstrip())].count("\n")
        last = first + data.strip().count("\n")
        self._lines = (self._lines[0] if self._words else first, last)
        self._words.extend(words)

    def flush(self) -> None:
        """End a block, or a heading."""
        text, self._words = " ".join(self._words), []
        if text and self._title:
            self._headings.enter(self._title, text)
        elif text:
            self.blocks.append(Block(*self._lines, str(self._headings), text))
        if text:
            self._title = 0


def html_blocks(content: str) -> Iterator[Block]:
    """Return the visible text of block elements below h1 to h6, without scripts and styles."""
    reader = _HtmlReader()
    reader.feed(content)
    reader.close()
    reader.flush()
    yield from reader.blocks
