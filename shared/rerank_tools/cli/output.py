"""Writing to standard output and standard error; nothing written to a terminal can control it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

from rerank_core._support.tables import UNSAFE_CHARACTERS

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "Output",
    "OutputClosedError",
    "TerminalFilter",
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
    """The reader of our output has closed it, as ``| head`` does."""


class TerminalFilter:
    """A terminal's stream on which control characters are replaced, other than line ends and tabs.

    Server messages, file names and documents may hold escape sequences. rich, which writes sequences of its own,
    finds the terminal in ``rich_proxied_file``; what it is given is cleaned by the tables.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write a text, with � for control characters."""
        return self.rich_proxied_file.write(
            UNSAFE_CHARACTERS.sub(lambda found: found[0] if found[0] in "\n\r\t" else "\ufffd", text)
        )

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def prepare_streams() -> None:
    """Make both streams write UTF-8, whatever the locale, and filter those that are terminals."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        if getattr(stream, "isatty", bool)() and not isinstance(stream, TerminalFilter):
            setattr(sys, name, TerminalFilter(stream))


def note(message: str) -> None:
    """Write a line to standard error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"rerank-bridge: {' '.join(message.split())}\n")


def write_table(table: RenderableType) -> None:
    """Write a table, as wide as the terminal, or 80 columns.

    Raises:
        OutputClosedError: the reader has closed the output.
    """
    from rich.console import Console

    with _open_output():
        Console(file=sys.stdout, highlight=False, soft_wrap=False).print(table)


def write_json(content: Any, *, lines: bool = False) -> None:
    """Write JSON: one document, or one per line.

    Raises:
        OutputClosedError: the reader has closed the output.
    """
    with _open_output():
        for item in content if lines else [content]:
            text = json.dumps(item, ensure_ascii=False, indent=None if lines else 2, default=str)
            sys.stdout.write(f"{text}\n")


def write_text(text: str) -> None:
    """Write a text, with a line end.

    Raises:
        OutputClosedError: the reader has closed the output.
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
