"""Chunks: pieces of files that a model can read, with their lines and the headings above them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from rerank_tools.corpus.blocks import Block, split_html, split_markdown, split_python, split_rst, split_text

__all__ = ["MAX_CHARS", "SUFFIXES", "Chunk", "chunk_file"]

MAX_CHARS = 1000
"""The most characters of a chunk: about the 256 tokens that a small model reads."""

_CODE = (
    ".c .cc .cfg .clj .cpp .cs .css .dart .ex .exs .go .gradle .h .hpp .hs .ini .java .js .json .jsx .kt .lua .m "
    ".ml .php .pl .proto .ps1 .r .rb .rs .scala .sh .sql .swift .tf .toml .ts .tsx .vue .xml .yaml .yml .zig"
)
_SPLITTERS: tuple[tuple[Callable[[str], Iterable[Block]], str], ...] = (
    (split_text, f".txt .text .log {_CODE}"),
    (split_markdown, ".md .markdown .mdx"),
    (split_rst, ".rst .rest"),
    (split_html, ".html .htm .xhtml"),
    (split_python, ".py .pyi"),
)

SUFFIXES = MappingProxyType({suffix: splitter for splitter, suffixes in _SPLITTERS for suffix in suffixes.split()})
"""How files are split, by the extension; files with others are not indexed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a corpus.

    Attributes:
        path: its file's path, relative to the corpus, with slashes.
        start_line: its first line, from 1.
        end_line: its last line.
        heading: the headings above it, or the class around it, outermost first; empty where there is none.
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

    Paragraphs, functions and classes stay whole where they fit, and small neighbours below one heading share a
    chunk.

    Args:
        path: the file's path, for the chunks.
        content: the file's text.
        max_chars: the most characters of a chunk; ≥ 1.

    >>> chunks = chunk_file("guide.md", "# Setup\n\nInstall it.\n\n## Keys\n\nSet the variable.\n")
    >>> [(chunk.where, chunk.heading, chunk.text) for chunk in chunks]
    [('guide.md:3', 'Setup', 'Install it.'), ('guide.md:7', 'Setup › Keys', 'Set the variable.')]
    """
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    blocks = SUFFIXES.get(suffix, split_text)(content.replace("\r\n", "\n").replace("\r", "\n"))
    pieces = (piece for block in blocks for piece in _cut(block, max_chars))
    return [
        Chunk(path, block.start, block.end, block.heading, block.text)
        for block in _pack(pieces, max_chars)
        if block.text.strip()
    ]


def _pack(blocks: Iterable[Block], max_chars: int) -> Iterator[Block]:
    """Join small neighbours below one heading."""
    held: Block | None = None
    for block in blocks:
        # Gaps of blank lines become one blank line.
        if held and held.heading == block.heading and len(held.text) + 2 + len(block.text) <= max_chars:
            gap = "\n" if block.start <= held.end + 1 else "\n\n"
            held = Block(held.start, block.end, held.heading, held.text + gap + block.text)
            continue
        if held:
            yield held
        held = block
    if held:
        yield held


def _cut(block: Block, max_chars: int) -> Iterator[Block]:
    """Cut a block that is too long at the ends of lines, and lines that are too long anywhere."""
    if len(block.text) <= max_chars:
        yield block
        return
    start, lines, size = block.start, list[str](), 0
    for number, line in enumerate(block.text.split("\n"), block.start):
        if lines and size + 1 + len(line) > max_chars:
            yield Block(start, number - 1, block.heading, "\n".join(lines))
            start, lines, size = number, [], 0
        whole = max(0, len(line) - 1) // max_chars * max_chars
        for begin in range(0, whole, max_chars):
            yield Block(number, number, block.heading, line[begin : begin + max_chars])
        if not lines:
            start = number
        lines.append(line[whole:])
        size += len(line) - whole + 1
    if lines:
        yield Block(start, block.end, block.heading, "\n".join(lines))
