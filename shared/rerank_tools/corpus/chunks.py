"""From a file's text to chunks that keep their lines and the headings above them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from rerank_tools.corpus._blocks import Block, html_blocks, markdown_blocks, plain_blocks, rst_blocks
from rerank_tools.corpus._python import python_blocks

__all__ = ["MAX_CHARS", "SUFFIXES", "Chunk", "chunk_file"]

MAX_CHARS = 1000
"""Characters of a chunk at most: about the 256 tokens that a small model reads."""

_SPLITTERS: tuple[tuple[Callable[[str], Iterable[Block]], str], ...] = (
    (plain_blocks, ".txt .text .log"),
    (markdown_blocks, ".md .markdown .mdx"),
    (rst_blocks, ".rst .rest"),
    (html_blocks, ".html .htm .xhtml"),
    (python_blocks, ".py .pyi"),
    # Lines of code between blank lines are paragraphs, too.
    (
        plain_blocks,
        ".c .cc .cfg .clj .cpp .cs .css .dart .ex .exs .go .gradle .h .hpp .hs .ini .java .js .json .jsx",
    ),
    (
        plain_blocks,
        ".kt .lua .m .ml .php .pl .proto .ps1 .r .rb .rs .scala .sh .sql .swift .tf .toml .ts .tsx .vue",
    ),
    (plain_blocks, ".xml .yaml .yml .zig"),
)

SUFFIXES = MappingProxyType({suffix: splitter for splitter, suffixes in _SPLITTERS for suffix in suffixes.split()})
"""How files are split, by the end of their name; others are passed over."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a corpus.

    Attributes:
        path: of its file, relative to the corpus, with slashes.
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
    r"""Split a file's text on its structure, which the end of its name tells.

    Paragraphs, functions and classes stay whole where they fit, and small neighbours below one heading share a
    chunk.

    Args:
        path: of the file, which the chunks carry.
        content: its text.
        max_chars: characters of a chunk at most, at least 1.

    >>> chunks = chunk_file("guide.md", "# Setup\n\nInstall it.\n\n## Keys\n\nSet the variable.\n")
    >>> [(chunk.where, chunk.heading, chunk.text) for chunk in chunks]
    [('guide.md:3', 'Setup', 'Install it.'), ('guide.md:7', 'Setup › Keys', 'Set the variable.')]
    """
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    blocks = SUFFIXES.get(suffix, plain_blocks)(content)
    pieces = (piece for block in blocks for piece in _cut(block, max_chars))
    return [
        Chunk(path, block.start, block.end, block.heading, block.text)
        for block in _packed(pieces, max_chars)
        if block.text.strip()
    ]


def _packed(blocks: Iterable[Block], max_chars: int) -> Iterator[Block]:
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
        while len(line) > max_chars:
            yield Block(number, number, block.heading, line[:max_chars])
            line = line[max_chars:]
        if not lines:
            start = number
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield Block(start, block.end, block.heading, "\n".join(lines))
