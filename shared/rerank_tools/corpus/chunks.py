"""Chunks: pieces of files that a model can read, with their lines and the headings above them.

Every splitter takes time in proportion to the length of the text, whatever is wrong with it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

from rerank_core._support.extras import require

__all__ = ["MAX_CHARS", "SUFFIXES", "Chunk", "chunk_file"]

MAX_CHARS = 1000
"""The most characters of a chunk: about the 256 tokens that a small model reads."""

_TITLE_CHARS = 120
_HEADING_CHARS = 300


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a corpus.

    Attributes:
        path: its file's path, relative to the corpus, with slashes.
        start_line: its first line, from 1.
        end_line: its last line.
        heading: the headings above it, outermost first; empty where there is none.
        text: its text, at most :data:`MAX_CHARS` characters; a record of a JSONL or CSV file is kept whole.
    """

    path: str
    start_line: int
    end_line: int
    heading: str
    text: str

    @property
    def reading(self) -> str:
        """What a model should read: the heading, and the text below it."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text

    @property
    def where(self) -> str:
        """Path and first line, as editors and compilers write it."""
        return f"{self.path}:{self.start_line}"


def chunk_file(path: str, content: str, *, max_chars: int = MAX_CHARS) -> list[Chunk]:
    r"""Split a file's text on its structure, which the file's extension tells.

    Paragraphs, and what stands between blank lines of code, stay whole where they fit, and small neighbours below
    one heading share a chunk.

    Args:
        path: the file's path, for the chunks.
        content: the file's text.
        max_chars: the most characters of a chunk; ≥ 1.

    >>> chunks = chunk_file("guide.md", "# Setup\n\nInstall it.\n\n## Keys\n\nSet the variable.\n")
    >>> [(chunk.where, chunk.heading, chunk.text) for chunk in chunks]
    [('guide.md:3', 'Setup', 'Install it.'), ('guide.md:7', 'Setup › Keys', 'Set the variable.')]
    """
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    blocks = SUFFIXES.get(suffix, _split_text)(content.replace("\r\n", "\n").replace("\r", "\n"))
    pieces = (piece for block in blocks for piece in _cut(block, max_chars))
    return [
        Chunk(path, block.start, block.end, block.heading, block.text)
        for block in _pack(pieces, max_chars)
        if block.text.strip()
    ]


def _pack(blocks: Iterable[_Block], max_chars: int) -> Iterator[_Block]:
    """Join small neighbours below one heading."""
    held: _Block | None = None
    for block in blocks:
        # Gaps of blank lines become one blank line.
        if held and held.heading == block.heading and len(held.text) + 2 + len(block.text) <= max_chars:
            gap = "\n" if block.start <= held.end + 1 else "\n\n"
            held = _Block(held.start, block.end, held.heading, held.text + gap + block.text)
            continue
        if held:
            yield held
        held = block
    if held:
        yield held


def _cut(block: _Block, max_chars: int) -> Iterator[_Block]:
    """Cut a block that is too long at the ends of lines, and lines that are too long anywhere."""
    if len(block.text) <= max_chars:
        yield block
        return
    start, lines, size = block.start, list[str](), 0
    for number, line in enumerate(block.text.split("\n"), block.start):
        if lines and size + 1 + len(line) > max_chars:
            yield _Block(start, number - 1, block.heading, "\n".join(lines))
            start, lines, size = number, [], 0
        whole = max(0, len(line) - 1) // max_chars * max_chars
        for begin in range(0, whole, max_chars):
            yield _Block(number, number, block.heading, line[begin : begin + max_chars])
        if not lines:
            start = number
        lines.append(line[whole:])
        size += len(line) - whole + 1
    if lines:
        yield _Block(start, block.end, block.heading, "\n".join(lines))


class _Block(NamedTuple):
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


def _split_text(content: str) -> Iterator[_Block]:
    """Split text into paragraphs, and code of any language at its blank lines."""
    return _split_paragraphs(content.split("\n"), {})


def _split_markdown(content: str) -> Iterator[_Block]:
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


def _split_paragraphs(lines: Sequence[str], titles: _Titles, fenced: Container[int] = ()) -> Iterator[_Block]:
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


def _join(lines: Sequence[str], start: int, end: int, heading: str) -> _Block:
    """Return the block of the lines from ``start``, counted from 0, to before ``end``."""
    return _Block(start + 1, end, heading, "\n".join(line.rstrip() for line in lines[start:end]))


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


def _split_html(content: str) -> Iterator[_Block]:
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
                yield _Block(*lines, headings.text, text)
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


_CODE = (
    ".c .cc .cfg .clj .cpp .cs .css .dart .ex .exs .go .gradle .h .hpp .hs .ini .java .js .json .jsx .kt .lua .m "
    ".ml .php .pl .proto .ps1 .py .pyi .r .rb .rs .scala .sh .sql .swift .tf .toml .ts .tsx .vue .xml .yaml .yml "
    ".zig"
)
_SPLITTERS = (
    (_split_text, f".txt .text .log .rst .rest {_CODE}"),
    (_split_markdown, ".md .markdown .mdx"),
    (_split_html, ".html .htm .xhtml"),
)

SUFFIXES: Mapping[str, Callable[[str], Iterable[_Block]]] = MappingProxyType(
    {suffix: splitter for splitter, suffixes in _SPLITTERS for suffix in suffixes.split()}
)
"""How files are split, by the extension; files with others are not indexed."""
