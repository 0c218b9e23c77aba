"""Files: atomic writes, locks between processes, digests, and the user's cache folder."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError

CACHE_VARIABLE = "RERANK_BRIDGE_CACHE"

_BLOCK_BYTES = 2**20
_DIGEST_BYTES = 16


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to; when the block ends, it is on the disk under its name, complete.

    It is written beside its place, as ``.NAME.RANDOM.tmp``, and then renamed. Where the block raises, what was
    there stays. The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:50]}.{os.urandom(16).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def lock_file(path: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock that other processes respect, by a file that is used for nothing else.

    The block may end in another thread than it began in. The file stays, because removing it would let two
    processes in. Raises an OSError where there can be no lock; a TimeoutError where another holder keeps it.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=-1 if wait_seconds == math.inf else wait_seconds, thread_local=False)
    try:
        lock.acquire()
    except NotImplementedError as exc:
        raise OSError(errno.ENOLCK, "the file system has no locks", str(path.parent)) from exc
    try:
        yield
    finally:
        lock.release()


def digest(*parts: str | bytes) -> str:
    """Return a digest of texts and bytes, in order: 32 hexadecimal digits, the same in every process.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    hashed = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.hexdigest()


def absolute_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a file, which need not be there but may be no folder."""
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        raise ConfigurationError(f"{file} is a folder: give the path of a file in it")
    return file


def digest_file(path: Path) -> str:
    """Return a digest of a file's content: 32 hexadecimal digits."""
    hashed = blake2b(digest_size=_DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hashed.update(block)
    return hashed.hexdigest()


def find_cache_folder(*, extra: str, purpose: str) -> Path:
    """Return where this package keeps what can be made again; the folder need not be there."""
    if stated := os.environ.get(CACHE_VARIABLE):
        return Path(stated).expanduser().absolute()
    platformdirs = require("platformdirs", extra=extra, purpose=purpose)
    return Path(platformdirs.user_cache_path("rerank-bridge", appauthor=False))


def make_private(folder: Path) -> Path:
    """Make a folder that only this user may read and write, or check that an existing one is such, and return it.

    One that others may read is closed to them first; one that they could change is refused with an OSError. On
    Windows the user's own folders are private already.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{folder} is a link: remove it")
    if os.name == "posix":
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PermissionError(f"{folder} can be changed by other users: remove it, or its permissions")
        if status.st_mode & 0o077:
            folder.chmod(0o700)
    return folder
