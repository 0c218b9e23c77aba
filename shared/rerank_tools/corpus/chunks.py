"""Chunks: pieces of files that a model can read, with their lines and the headings above them.

Splitting takes time in proportion to the length of the text, whatever is wrong with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from rerank_core._support.extras import require

MAX_CHARS = 1000
"""The most characters of a chunk: about the 256 tokens that a small model reads."""

_MARKDOWN = (".md", ".markdown", ".mdx")
_TEXT_AND_CODE = (
    ".c .cc .cfg .clj .cpp .cs .css .dart .ex .exs .go .gradle .h .hpp .hs .htm .html .ini .java .js .json .jsx "
    ".kt .log .lua .m .ml .php .pl .proto .ps1 .py .pyi .r .rb .rest .rs .rst .scala .sh .sql .swift .text .tf "
    ".toml .ts .tsx .txt .vue .xhtml .xml .yaml .yml .zig"
)
SUFFIXES = frozenset((*_MARKDOWN, *_TEXT_AND_CODE.split()))
"""Extensions of the files that are indexed."""

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
    r"""Split a file's text at its blank lines, and Markdown at its headings as well.

    Paragraphs stay whole where they fit, and small neighbours below one heading share a chunk.

    Args:
        path: the file's path, for the chunks.
        content: the file's text.
        max_chars: the most characters of a chunk; ≥ 1.

    >>> chunks = chunk_file("guide.md", "# Setup\n\nInstall it.\n\n## Keys\n\nSet the variable.\n")
    >>> [(chunk.where, chunk.heading, chunk.text) for chunk in chunks]
    [('guide.md:3', 'Setup', 'Install it.'), ('guide.md:7', 'Setup › Keys', 'Set the variable.')]
    """
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    titles, fenced = _read_markdown(content) if path.lower().endswith(_MARKDOWN) else ({}, set())
    paragraphs = _split_paragraphs(path, content.split("\n"), titles, fenced)
    pieces = (piece for paragraph in paragraphs for piece in _cut(paragraph, max_chars))
    return [chunk for chunk in _pack(pieces, max_chars) if chunk.text.strip()]


_Titles = Mapping[int, tuple[int, int, str]]
"""By a title's first line, from 1: the line after it, its level, its text."""


def _read_markdown(content: str) -> tuple[_Titles, set[int]]:
    """Return the titles, and the lines that stand in fenced code."""
    markdown: Any = require("markdown_it", extra="cli", purpose="corpus search").MarkdownIt("commonmark")
    markdown.core.ruler.enableOnly(["normalize", "block"])
    titles: dict[int, tuple[int, int, str]] = {}
    fenced: set[int] = set()
    for token, following in pairwise(markdown.parse(content)):
        if token.type == "fence":
            fenced.update(range(token.map[0] + 1, token.map[1] + 1))
        elif token.type == "heading_open" and token.level == 0:
            titles[token.map[0] + 1] = token.map[1] + 1, int(token.tag[1]), following.content
    return titles, fenced


def _split_paragraphs(path: str, lines: Sequence[str], titles: _Titles, fenced: Container[int]) -> Iterator[Chunk]:
    """Yield what stands between blank lines, which do not count in fenced code."""
    headings: list[tuple[int, str]] = []
    heading = ""
    start, after_title = 0, 0
    for number, line in enumerate([*lines, ""], 1):
        if number < after_title:
            continue
        if number not in titles and (line.strip() or (start and number in fenced)):
            start = start or number
            continue
        if start:
            text = "\n".join(line.rstrip() for line in lines[start - 1 : number - 1])
            yield Chunk(path, start, number - 1, heading, text)
            start = 0
        if number in titles:
            after_title, level, title = titles[number]
            while headings and headings[-1][0] >= level:
                headings.pop()
            headings.append((level, " ".join(title.split())[:_TITLE_CHARS]))
            # Bounded, because every chunk below repeats it.
            heading = " › ".join(title for _, title in headings if title)[-_HEADING_CHARS:]


def _cut(chunk: Chunk, max_chars: int) -> Iterator[Chunk]:
    """Cut a chunk that is too long at the ends of lines, and lines that are too long anywhere."""
    if len(chunk.text) <= max_chars:
        yield chunk
        return
    start, lines, size = chunk.start_line, list[str](), 0
    for number, line in enumerate(chunk.text.split("\n"), chunk.start_line):
        if lines and size + 1 + len(line) > max_chars:
            yield replace(chunk, start_line=start, end_line=number - 1, text="\n".join(lines))
            start, lines, size = number, [], 0
        whole = max(0, len(line) - 1) // max_chars * max_chars
        for begin in range(0, whole, max_chars):
            yield replace(chunk, start_line=number, end_line=number, text=line[begin : begin + max_chars])
        if not lines:
            start = number
        lines.append(line[whole:])
        size += len(line) - whole + 1
    if lines:
        yield replace(chunk, start_line=start, text="\n".join(lines))


def _pack(chunks: Iterable[Chunk], max_chars: int) -> Iterator[Chunk]:
    """Join small neighbours below one heading."""
    held: Chunk | None = None
    for chunk in chunks:
        # Gaps of blank lines become one blank line.
        if held and held.heading == chunk.heading and len(held.text) + 2 + len(chunk.text) <= max_chars:
            gap = "\n" if chunk.start_line <= held.end_line + 1 else "\n\n"
            held = replace(held, end_line=chunk.end_line, text=held.text + gap + chunk.text)
            continue
        if held:
            yield held
        held = chunk
    if held:
        yield held
