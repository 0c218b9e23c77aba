"""Models that were made on this machine (exported, quantised), kept for the next process.

::

    <folder>/<key>/          an entry: the files of one model
    <folder>/.<key>.lock     held by the process that makes the entry; ends with it
    <folder>/.<key>.part/    what it has made so far
"""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from rerank_core._support.files import CACHE_VARIABLE, digest, find_cache_folder, lock_file
from rerank_core.errors import ConfigurationError


def get_or_make(key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of a made model, into which ``make`` writes the files where there is none yet.

    An entry is there whole or not at all, because it is moved into place in one step. Processes that want the same
    entry wait for the one that makes it. Entries are never dropped: remove any of them, or the folder, whenever no
    process is loading a model.
    """
    folder = cache_folder()
    entry = folder / key
    _check_private(folder)
    if os.path.isdir(entry):
        return entry
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with lock_file(folder / f".{key}.lock", wait_seconds=math.inf):
            if not entry.is_dir():
                _make_entry(folder / f".{key}.part", entry, make)
    except OSError as exc:
        if exc.errno is None:  # a library's, about something else
            raise
        raise ConfigurationError(
            f"a model cannot be written to {folder} ({exc.strerror}): set {CACHE_VARIABLE} to a folder that "
            "has room and can be written"
        ) from exc
    return entry


def fingerprint_files(*parts: Path | str) -> str:
    """Return a key for files and texts; files count by their path (symbolic links resolved), size and time.

    Files of the hub's cache lie in folders that are named by revision, or are links to files named by content.
    """
    names = []
    for part in parts:
        if isinstance(part, Path):
            status = part.stat()
            part = f"{part.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
        names.append(part)
    return digest(*names)


def cache_folder() -> Path:
    """Return the folder of made models: ``models`` in ``$RERANK_BRIDGE_CACHE``, or in the user's cache folder."""
    return find_cache_folder(extra="onnx", purpose="the cache of models") / "models"


def _check_private(folder: Path) -> None:
    """Check that nobody else may put models into a folder; on Windows, permissions are not in the mode."""
    if os.name != "posix" or not os.path.isdir(folder):
        return
    status = folder.stat()
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"others may write there (mode {stat.S_IMODE(status.st_mode):o}): run 'chmod go-w {folder}'"
    elif status.st_uid not in (0, os.geteuid()):
        reason = f"it belongs to another user (uid {status.st_uid}): change its owner"
    else:
        return
    raise ConfigurationError(f"models in {folder} are not trusted, because {reason}, or set {CACHE_VARIABLE}")


def _make_entry(part: Path, entry: Path, make: Callable[[Path], None]) -> None:
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        part.mkdir()
        make(part)
        for path in part.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())  # else a power cut could leave the entry without its content
        part.replace(entry)
    finally:
        shutil.rmtree(part, ignore_errors=True)
