"""The command ``rerank-bridge``; needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rerank_core._support.extras import check_installed
from rerank_core.errors import MissingExtraError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for a wrong call, 130 for Ctrl-C.

    Args:
        arguments: without the command's name; by default those of the process.
    """
    try:
        check_installed("rich", "typer", extra="cli", purpose="the command rerank-bridge")
    except MissingExtraError as exc:
        sys.stderr.write(f"rerank-bridge: {exc}\n")
        return 1
    try:
        from rerank_tools.cli.app import run  # takes a while, in which Ctrl-C may come

        return run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("rerank-bridge: interrupted\n")
        return 130
