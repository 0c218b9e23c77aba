"""Splitting of files into blocks: paragraphs below headings, and statements of code.

Every splitter takes time in proportion to the length of the text, whatever is wrong with it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

from rerank_core._support.extras import require

__all__ = ["Block", "split_html", "split_markdown", "split_python", "split_rst", "split_text"]

_TITLE_CHARS = 120
_HEADING_CHARS = 300


class Block(NamedTuple):
    """Lines that belong together.

    Attributes:
        start: the first line, from 1.
        end: the last line.
        heading: the headings above it, outermost first.
        text: as many lines as the file has from ``start`` to ``end``, or a single line.
    """

    start: int
    end: int
    heading: str
    text: str


class _Headings:
    """The headings above a line, outermost first; bounded, because every block below them repeats them."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []
        self.text = ""

    def enter(self, level: int, title: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, " ".join(title.split())[:_TITLE_CHARS]))
        self.text = " › ".join(title for _, title in self._open if title)[-_HEADING_CHARS:]


_Titles = Mapping[int, tuple[int, int, str]]
"""By a title's first line, from 1: the line after it, its level, its text."""


def split_text(content: str) -> Iterator[Block]:
    """Split text into paragraphs, and code of any language at its blank lines."""
    return _split_paragraphs(content.split("\n"), {})


def split_markdown(content: str) -> Iterator[Block]:
    """Split Markdown into paragraphs below its headings; fenced code stays whole."""
    markdown: Any = require("markdown_it", extra="cli", purpose="corpus search").MarkdownIt("commonmark")
    markdown.core.ruler.enableOnly(["normalize", "block"])
    titles: dict[int, tuple[int, int, str]] = {}
    fenced: set[int] = set()
    for token, following in pairwise(markdown.parse(content)):
        if token.type == "fence":
            fenced.update(range(token.map[0] + 1, token.map[1] + 1))
        elif token.type == "heading_open" and token.level == 0:
            titles[token.map[0] + 1] = token.map[1] + 1, int(token.tag[1]), following.content
    return _split_paragraphs(content.split("\n"), titles, fenced)


_ADORNMENT = re.compile(r"([=\-`:.'\"~^_*+#<>!$%&(),/;?@\[\\\]{|}])\1+$")


def split_rst(content: str) -> Iterator[Block]:
    """Split reStructuredText into paragraphs below its underlined titles.

    The level of a title is the order in which its kind of underline first appears.
    """
    lines = content.split("\n")
    titles: dict[int, tuple[int, int, str]] = {}
    levels: list[str] = []
    after = 0
    for number, (title, line) in enumerate(pairwise(lines), 1):
        below = line.rstrip()
        # Above the title there may be a line like the one below it, and nothing else.
        above = lines[number - 2].rstrip() if number - 1 > after else ""
        overlined = above == below and (number - 2 <= after or not lines[number - 3].strip())
        if (
            title.strip()
            and len(below) >= len(title.strip())
            and _ADORNMENT.match(below)
            and not _ADORNMENT.match(title.rstrip())
            and (overlined or not above)
        ):
            style = below[0] * (2 if overlined else 1)
            if style not in levels:
                levels.append(style)
            after = number + 1
            titles[number - overlined] = after + 1, levels.index(style), title
    return _split_paragraphs(lines, titles)


def _split_paragraphs(lines: Sequence[str], titles: _Titles, fenced: Container[int] = ()) -> Iterator[Block]:
    """Yield what stands between blank lines, which do not count in fenced code."""
    headings = _Headings()
    start, after_title = 0, 0
    for number, line in enumerate([*lines, ""], 1):
        if number < after_title:
            continue
        if number not in titles and (line.strip() or (start and number in fenced)):
            start = start or number
            continue
        if start:
            yield _join(lines, start - 1, number - 1, headings.text)
            start = 0
        if number in titles:
            after_title, level, title = titles[number]
            headings.enter(level, title)


def _join(lines: Sequence[str], start: int, end: int, heading: str) -> Block:
    """Return the block of the lines from ``start``, counted from 0, to before ``end``."""
    return Block(start + 1, end, heading, "\n".join(line.rstrip() for line in lines[start:end]))


_BREAKING_TAGS = (
    "address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section summary table tbody td th thead "
    "title tr ul"
)
_BREAKING = frozenset(_BREAKING_TAGS.split())
_HIDDEN = frozenset({"script", "style", "template", "noscript"})
_TITLES = {f"h{level}": level for level in range(1, 7)}
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_TAG_STOP = re.compile(r""">|=\s*["']""")
_RAW_END = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style")}
_HUGE_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")


def split_html(content: str) -> Iterator[Block]:
    """Split a page into the visible text of its block elements below h1 to h6."""
    headings, words, lines = _Headings(), list[str](), (0, 0)
    line, counted, hidden, level = 1, 0, 0, 0
    for kind, value, offset in chain(_parse_html(content), [("/", "body", len(content))]):
        line += content.count("\n", counted, offset)
        counted = offset
        if kind == "text":
            if not hidden and (data := value.strip()):
                first = line + value[: value.index(data)].count("\n")
                lines = (lines[0] if words else first, first + data.count("\n"))
                words += html.unescape(_HUGE_REFERENCE.sub("\ufffd", data)).split()
            continue
        if value in _BREAKING and words:
            text, words = " ".join(words), []
            if level:
                headings.enter(level, text)
            else:
                yield Block(*lines, headings.text, text)
            level = 0
        if value in _HIDDEN:
            hidden = max(0, hidden + (-1 if kind == "/" else 1))
        elif value in _TITLES:
            level = 0 if kind == "/" else _TITLES[value]


def _parse_html(content: str) -> Iterator[tuple[str, str, int]]:
    """Yield texts, opening tags ("") and closing tags ("/") with their offsets, as browsers find them.

    The standard library's parser raises at ``<![``, and looks for the end of an unfinished tag again and again.
    """
    position = 0
    while position < len(content):
        start = content.find("<", position)
        start = len(content) if start < 0 else start
        if start > position:
            yield "text", content[position:start], position
        if tag := _TAG.match(content, start):
            position, name = _find_tag_end(content, tag.end()), tag[2].lower()
            yield tag[1], name, start
            if name in _RAW_END and not tag[1]:
                end = _RAW_END[name].search(content, position)
                position = end.start() if end else len(content)
        elif content.startswith(("<!", "<?", "</"), start):
            mark = "-->" if content.startswith("<!--", start) else ">"
            end_mark = content.find(mark, start + 2)
            position = len(content) if end_mark < 0 else end_mark + len(mark)
        elif start < len(content):
            yield "text", "<", start
            position = start + 1
        else:
            position = start


def _find_tag_end(content: str, position: int) -> int:
    """Return where a tag ends, which a quoted value may not; the page's end for one that never does."""
    while stop := _TAG_STOP.search(content, position):
        if stop[0] == ">":
            return stop.end()
        position = content.find(stop[0][-1], stop.end()) + 1
        if not position:
            break
    return len(content)


_CLASS = re.compile(r"[ \t]*class[ \t]+(\w+)")
_GOES_ON = re.compile(r"[)\]}]|(?:else|elif|except|finally)\b")
_LONG_CLASS = 20
_MAX_DEPTH = 5


def split_python(content: str) -> Iterator[Block]:
    """Split Python into statements and the members of long classes; each with the comments above it.

    It goes by indentation, so that other versions of Python and templates are split as well.
    """
    lines = content.split("\n")
    yield from _split_statements(lines, 0, len(lines), "", 0)


def _split_statements(lines: Sequence[str], start: int, end: int, heading: str, depth: int) -> Iterator[Block]:
    """Yield one block for each statement from line ``start`` on, counted from 0, to before line ``end``."""
    statements = list(_find_statements(lines, start, end))
    borders = [start, *(above for above, _ in statements[1:]), end]
    for (first, last), (_, number) in zip(pairwise(borders), statements or [(start, start)], strict=True):
        found = _CLASS.match(lines[number]) if depth < _MAX_DEPTH and last - first > _LONG_CLASS else None
        if found is None:
            yield from _trim(lines, first, last, heading)
            continue
        name = f"class {found[1][:_TITLE_CHARS]}"
        inside = f"{heading} › {name}" if heading else name
        yield from _trim(lines, first, number + 1, inside)
        yield from _split_statements(lines, number + 1, last, inside, depth + 1)


def _find_statements(lines: Sequence[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the comments and decorators above each statement begin, and where itself does."""
    indent: int | None = None
    above: int | None = None
    decorated = False
    for number in range(start, end):
        line = lines[number]
        text = line.lstrip()
        if not text:
            continue
        if indent is None and text[0] != "#":
            indent = len(line) - len(text)
        if indent is not None and (len(line) - len(text) > indent or _GOES_ON.match(text)):
            above = above if decorated else None
            continue
        above = number if above is None else above
        if text[0] == "@":
            decorated = True
        elif text[0] != "#":
            yield above, number
            above, decorated = None, False


def _trim(lines: Sequence[str], start: int, end: int, heading: str) -> Iterator[Block]:
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    if start < end:
        yield _join(lines, start, end, heading)
