"""What goes to standard output, and what to standard error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "Output",
    "OutputClosedError",
    "console",
    "note",
    "prepare_streams",
    "write_json",
    "write_table",
    "write_text",
]


class Output(str, Enum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class OutputClosedError(Exception):
    """Whoever read our output has gone: ``| head`` has what it wanted."""


def prepare_streams() -> None:
    """Make both streams write UTF-8, whatever the locale; what has no UTF-8 is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def note(message: str) -> None:
    """Write a line to standard error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"rerank-bridge: {' '.join(message.split())}\n")


def console() -> Console:
    """Return a console for standard output; one that is no terminal gets neither colours nor control codes."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=False)


def write_table(table: RenderableType) -> None:
    """Write a table, as wide as the terminal, or 80 columns.

    Raises:
        OutputClosedError: nobody reads it.
    """
    with _open_output():
        console().print(table)


def write_json(content: Any, *, lines: bool = False) -> None:
    """Write JSON: one document, or one a line.

    Raises:
        OutputClosedError: nobody reads it.
    """
    with _open_output():
        if not lines:
            sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n")
            return
        items: Iterable[Any] = content
        for item in items:
            sys.stdout.write(json.dumps(item, ensure_ascii=False, default=str) + "\n")


def write_text(text: str) -> None:
    """Write a text, with a line end.

    Raises:
        OutputClosedError: nobody reads it.
    """
    with _open_output():
        sys.stdout.write(text.removesuffix("\n") + "\n")


@contextlib.contextmanager
def _open_output() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, which must not fail again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputClosedError from None
