"""Files that are there whole or not at all, and locks that end with their process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, Any

from rerank_core.errors import ConfigurationError

__all__ = ["lock", "write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place, bring it to the disk, then put it there in one step.

    A name has one writer at a time, so what a killed one left is overwritten by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


_SECONDS_BETWEEN = 0.05


def lock(file: IO[Any], name: str, *, patience: float = 0.0) -> None:
    """Lock an open file until it is closed, or its process ends; nothing where the system has no such locks.

    Args:
        file: open for writing.
        name: what the error calls it.
        patience: seconds to wait for a process that is about to end.

    Raises:
        ConfigurationError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_SECONDS_BETWEEN)
                continue
            raise ConfigurationError(
                f"another run is writing {name}: wait for its end, or give another folder"
            ) from None
