"""Blocks of Python files: statements, functions and the members of classes."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence

from rerank_tools.corpus._blocks import Block, plain_blocks

__all__ = ["python_blocks"]

_LONG_CLASS = 20
"""Lines from which on a class is split into its members."""


def python_blocks(content: str) -> Iterator[Block]:
    """Return top-level statements and the members of long classes; each with the comments above it.

    A file that is no Python of this interpreter's version is split at blank lines.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code that is read, such as invalid escapes
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from plain_blocks(content)
        return
    # As the parser counts lines: it also ends one at a carriage return.
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    yield from _body(lines, tree.body, 1, len(lines), "")


def _body(lines: Sequence[str], body: Sequence[ast.stmt], start: int, end: int, heading: str) -> Iterator[Block]:
    """Yield a block a statement, from line ``start`` to line ``end``; comments belong to what follows them."""
    for position, node in enumerate(body):
        last = (node.end_lineno or node.lineno) if position + 1 < len(body) else end
        if last < start:  # several statements in a line
            continue
        if isinstance(node, ast.ClassDef) and last - start >= _LONG_CLASS:
            name = f"{heading} › class {node.name}" if heading else f"class {node.name}"
            first_member = node.body[0]
            head = _first_line(first_member) - 1
            if head >= start:
                yield _block(lines, start, head, name)
            yield from _body(lines, node.body, max(start, head + 1), last, name)
        else:
            yield _block(lines, start, last, heading)
        start = last + 1


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _block(lines: Sequence[str], start: int, end: int, heading: str) -> Block:
    while start < end and not lines[start - 1].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return Block(start, end, heading, "\n".join(line.rstrip() for line in lines[start - 1 : end]))
