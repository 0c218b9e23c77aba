"""Writing to standard output and standard error; nothing written to a terminal can control it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

from rerank_core._support.tables import UNSAFE_CHARACTERS

if TYPE_CHECKING:
    from rich.console import RenderableType


Output = Literal["table", "json", "jsonl"]
"""How results are written."""


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
    """Write a table, as wide as the terminal, or 80 columns where there is none."""
    from rich.console import Console

    with _open_output():
        Console(file=sys.stdout, highlight=False, soft_wrap=False).print(table)


def write_text(text: str) -> None:
    """Write a text, with a line end."""
    with _open_output():
        sys.stdout.write(text.removesuffix("\n") + "\n")


def write_results(output: Output, table: RenderableType, rows: Sequence[Any], whole: Any) -> None:
    """Write results as a table, one row per line of JSON, or all that is known as one JSON document."""
    if output == "table":
        write_table(table)
    elif output == "json":
        write_text(json.dumps(whole, ensure_ascii=False, indent=2, default=str))
    else:
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)
        write_text("\n".join(lines))


def format_dollars(amount: float | None) -> str:
    """Return an amount with two decimals, or as many as a small one has, up to six."""
    if amount is None:
        return "unknown"
    whole, _, decimals = f"{amount:,.{2 if amount >= 1.0 else 6}f}".partition(".")
    return f"${whole}.{decimals.rstrip('0'):0<2}"


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
