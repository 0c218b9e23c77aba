"""Models that were made on this machine (exported, quantised), kept for the next process.

::

    <folder>/<key>/manifest.json    size and SHA-256 of each file, written last
    <folder>/<key>/…                the files
    <folder>/.<key>.lock            held by the process that makes them; ends with it
    <folder>/.<key>.<random>/       what it has made so far; removed by the next one if it was killed
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError

__all__ = ["ModelCache", "digest_of", "model_cache"]

_VARIABLE = "RERANK_BRIDGE_CACHE"
_APPLICATION = "rerank-bridge"
_MANIFEST = "manifest.json"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_BESIDE = re.compile(r"\.([A-Za-z0-9_-]+)\.[0-9a-f]{32}")
_CHUNK_BYTES = 2**20
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG})

_logger = logging.getLogger("rerank_core")


class ModelCache:
    """A folder of made models by key, for several processes at once.

    An entry is there whole or not at all: it is made in a folder beside, and moved into place in one step. Its
    files are compared with its manifest, sizes at every use and SHA-256 at this object's first; what does not fit
    is made anew. Processes that want the same entry wait for the one that makes it. Entries are never dropped:
    remove the folder, or any entry in it, whenever no process is loading a model.

    Args:
        folder: where the entries are, made where it is missing; by default ``models`` in the folder that the
            environment variable ``RERANK_BRIDGE_CACHE`` names, or in the user's cache folder for this package.
            Where it cannot be written, a temporary folder serves this process, and one warning is logged; entries
            that are there already are used all the same.

    Raises:
        MissingExtraError: platformdirs or filelock is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder).expanduser().absolute() if folder is not None else _default_folder()
        self._filelock = require("filelock", extra="onnx", purpose="the cache of models")
        self._checked: set[Path] = set()
        self._temporary: _TemporaryFolder | None = None
        self._tidied = False

    def get_or_make(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of an entry, made where it is missing or damaged.

        Args:
            key: names what it is made from, by its digest; up to 100 letters, digits, ``-`` and ``_``.
            make: writes the entry's files into the empty folder that it is given; whatever it raises is raised
                here, and nothing is kept. Not called where the entry is there.

        Raises:
            ConfigurationError: the files cannot be written: the disk is full, say.
            ValueError: a key of other characters.
        """
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} is no key: up to 100 letters, digits, '-' and '_'")
        if not self._tidied:
            self._tidied = True
            self._remove_leftovers()
        entry = self.folder / key
        if self._is_whole(entry):
            return entry
        with ExitStack() as held:
            folder = self.folder
            try:
                held.enter_context(self._locked(folder, key))
            except OSError as exc:
                folder = self._temporary_folder(exc)
                held.enter_context(self._locked(folder, key))
            return self._made(folder / key, make)

    def _made(self, entry: Path, make: Callable[[Path], None]) -> Path:
        """Make an entry whose lock is held, unless another process has done so meanwhile."""
        if self._is_whole(entry):
            return entry
        beside = _beside(entry)
        try:
            if entry.exists():
                _logger.warning("the model in %s is damaged: it is made anew", entry)
                aside = _beside(entry)
                entry.replace(aside)
                shutil.rmtree(aside)
            beside.mkdir()
            make(beside)
            _write_manifest(beside)
            beside.replace(entry)
        except OSError as exc:
            if exc.errno is None:  # a library's, about something else
                raise
            raise _unwritable(entry.parent, exc) from exc
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._checked.add(entry)
        return entry

    def _is_whole(self, entry: Path) -> bool:
        try:
            manifest: dict[str, list[Any]] = json.loads((entry / _MANIFEST).read_bytes())
            if any((entry / name).stat().st_size != size for name, (size, _) in manifest.items()):
                return False
            if entry not in self._checked:
                if any(_file_digest(entry / name) != digest for name, (_, digest) in manifest.items()):
                    return False
                self._checked.add(entry)
        except (OSError, ValueError, AttributeError, TypeError):  # no manifest, or one that was overwritten
            return False
        return True

    @contextmanager
    def _locked(self, folder: Path, key: str, *, wait: bool = True) -> Iterator[None]:
        """Hold an entry's lock.

        Raises:
            OSError: the folder cannot be written.
            TimeoutError: (an OSError) another process holds it, and ``wait`` is False.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = self._filelock.FileLock(folder / f".{key}.lock", timeout=-1 if wait else 0)
            lock.acquire()
        except NotImplementedError as exc:
            raise OSError(errno.ENOLCK, "the file system has no locks") from exc
        try:
            yield
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Remove what processes left that were killed; what one that lives is making stays."""
        with suppress(OSError):
            for path in list(self.folder.iterdir()):
                found = _BESIDE.fullmatch(path.name)
                if found is None:
                    continue
                with suppress(OSError), self._locked(self.folder, found[1], wait=False):
                    shutil.rmtree(path)

    def _temporary_folder(self, error: OSError) -> Path:
        if self._temporary is None or self._temporary.process != os.getpid():
            self._temporary = _TemporaryFolder()
            _logger.warning(
                "models cannot be kept in %s (%s): they are made again by every process; set %s to a folder that "
                "can be written",
                self.folder,
                error.strerror or error,
                _VARIABLE,
            )
        return self._temporary.path


class _TemporaryFolder:
    """A folder that goes with its owner, or with the process; a forked child's end leaves it alone."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.path = Path(tempfile.mkdtemp(prefix=f"{_APPLICATION}-"))
        weakref.finalize(self, _remove_own, self.path, self.process)


def _remove_own(path: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)


def model_cache() -> ModelCache:
    """Return the cache in the default folder; the same object as long as the environment says the same."""
    return _cache_in(_default_folder())


@functools.cache
def _cache_in(folder: Path) -> ModelCache:
    return ModelCache(folder)


def digest_of(*parts: Path | str) -> str:
    """Return the SHA-256 of files' contents and of texts, in hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{_file_digest(part) if isinstance(part, Path) else part!r}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _default_folder() -> Path:
    stated = os.environ.get(_VARIABLE)
    if stated:
        return Path(stated).expanduser().absolute() / "models"
    platformdirs = require("platformdirs", extra="onnx", purpose="the cache of models")
    return Path(platformdirs.user_cache_path(_APPLICATION, appauthor=False)) / "models"


def _beside(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")


def _write_manifest(folder: Path) -> None:
    # Nothing is synchronised with the disk: what a power cut leaves incomplete, its digest tells.
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {path.relative_to(folder).as_posix(): [path.stat().st_size, _file_digest(path)] for path in files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _unwritable(folder: Path, error: OSError) -> ConfigurationError:
    if error.errno in _FULL:
        fix = f"free some space there, or set {_VARIABLE} to a folder on another disk"
    else:
        fix = f"set {_VARIABLE} to a folder that can be written"
    return ConfigurationError(f"a model cannot be written to {folder} ({error.strerror or error}): {fix}")
