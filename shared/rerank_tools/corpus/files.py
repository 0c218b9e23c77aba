"""The files of a corpus: which there are, whether they changed, and the chunks in them."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core._support.extras import require
from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError
from rerank_tools.corpus.chunks import SUFFIXES, Chunk, chunk_file
from rerank_tools.records import FORMATS, decode, parse_records

_NEVER_INDEXED = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_RECORD_SUFFIXES = frozenset(suffix for suffix, name in FORMATS.items() if name in ("jsonl", "csv", "tsv"))
_MAX_BYTES = 4 * 2**20
_MAX_STARS = 4


class Stamp(NamedTuple):
    """A file as it was when it was read.

    Attributes:
        size: bytes.
        changed: time of the last change, in nanoseconds.
        digest: of its content; empty where it could not be read.
        problem: why it has no chunks; empty where nothing is wrong.
    """

    size: int
    changed: int
    digest: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder, or a single file.

    Attributes:
        path: where it is.
        text_field: the field that holds the text, in a file of records.
        use_ignore_files: leave out what ``.gitignore``, ``.ignore`` and the user's git excludes name.

    Raises:
        ConfigurationError: there is no such folder or file, or the file's extension is not known.
    """

    path: Path
    text_field: str = "text"
    use_ignore_files: bool = True

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise ConfigurationError(f"{self.path} does not exist: give a folder, or a JSONL or CSV file")
        if self.path.is_file() and self.path.suffix.lower() not in {*_RECORD_SUFFIXES, *SUFFIXES}:
            raise ConfigurationError(
                f"{self.path} is of no known kind: give a folder, a file of text or code, or a file that ends in "
                f"{', '.join(sorted(_RECORD_SUFFIXES))}"
            )

    def files(self) -> dict[str, os.stat_result]:
        """Return the files to index, in order, by their path relative to the folder, with slashes.

        Hidden files and folders, dependencies, symbolic links and files over 4 MiB are left out.
        """
        if self.path.is_file():
            return {self.path.name: self.path.stat()}
        return dict(sorted(_walk(self.path.resolve(), use_ignore_files=self.use_ignore_files)))

    def read(self, name: str) -> tuple[Stamp, list[Chunk]]:
        """Read and split one of :meth:`files`. In a folder, what cannot be read is a problem and has no chunks.

        Raises:
            ConfigurationError: the corpus is a single file that cannot be read, or holds a malformed record.
        """
        path = self._locate(name)
        stamp = Stamp(-1, 0, "")
        try:
            status = path.lstat()
            stamp = Stamp(status.st_size, status.st_mtime_ns, "")
            data = self._read_bytes(name)
            stamp = stamp._replace(digest=digest(data))
            return stamp, self._split(name, data)
        except Exception as exc:  # one odd file must not stop the search of all others
            problem = f"cannot be split: {type(exc).__name__}"
            if isinstance(exc, OSError):
                problem = f"cannot be read: {exc.strerror or exc}"
            elif isinstance(exc, ConfigurationError):
                problem = str(exc).removeprefix(f"{path} is ")
            if self.path.is_file():
                raise (
                    exc if isinstance(exc, ConfigurationError) else ConfigurationError(f"{path} {problem}")
                ) from exc
            return stamp._replace(problem=problem), []

    def has_changed(self, name: str, status: os.stat_result, stamp: Stamp, read_at: int) -> bool:
        """Tell whether a file differs from what it was when it was read, at ``read_at`` nanoseconds.

        A file whose date is not before that may have changed twice within the clock's resolution, and one that
        could not be read may be readable now: their content decides.
        """
        if status.st_size != stamp.size:
            return True
        if stamp.digest and status.st_mtime_ns == stamp.changed and stamp.changed < read_at:
            return False
        try:
            return digest(self._read_bytes(name)) != stamp.digest
        except OSError:
            return bool(stamp.digest)

    def _locate(self, name: str) -> Path:
        return self.path if self.path.is_file() else self.path / name

    def _read_bytes(self, name: str) -> bytes:
        return self.path.read_bytes() if self.path.is_file() else _read_regular_file(self.path / name)

    def _split(self, name: str, data: bytes) -> list[Chunk]:
        suffix = self.path.suffix.lower()
        source = str(self._locate(name))
        if not self.path.is_file() or suffix not in _RECORD_SUFFIXES:
            return chunk_file(name, decode(data, source=source))
        records = parse_records(data, source=source, format=FORMATS[suffix], text_field=self.text_field)
        lines = [(record.line or 1, record.text) for record in records if record.text.strip()]
        return [Chunk(name, line, line, "", text) for line, text in lines]


def _read_regular_file(path: Path, *, follow_link: bool = False) -> bytes:
    """Return a file's first 4 MiB; what is no file any more, but a pipe or (by default) a link, is not read."""
    # Neither flag exists on Windows.
    flags = getattr(os, "O_NONBLOCK", 0) | (0 if follow_link else getattr(os, "O_NOFOLLOW", 0))
    with open(path, "rb", opener=lambda name, given: os.open(name, given | flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no file")
        return file.read(_MAX_BYTES)


class _Rules(NamedTuple):
    """What ignore files say, as pairs of the folder that they hold for and the patterns, nearest folder first."""

    root: str  # the folder that is searched, with a slash
    own: tuple[tuple[str, Any], ...] = ()  # of .ignore
    git: tuple[tuple[str, Any], ...] = ()  # of .gitignore, then of the repository and the user

    def read(self, folder: Path, *, git: bool = True) -> _Rules:
        """Return these rules with those of a folder before them."""
        own = self.read_file(folder / ".ignore", folder)
        return self._replace(
            own=own + self.own, git=self.read_file(folder / ".gitignore", folder) + self.git if git else self.git
        )

    def read_file(self, path: Path, folder: Path) -> tuple[tuple[str, Any], ...]:
        """Return what an ignore file says for a folder, as the only pair; none where it says nothing.

        What would ignore the whole search is left out: whoever names a folder wants it searched.
        """
        try:
            lines = _read_regular_file(path, follow_link=True).decode("utf-8", errors="replace").splitlines()
        except OSError:
            return ()
        pathspec: Any = require("pathspec", extra="cli", purpose="corpus search")
        base = f"{folder.as_posix().rstrip('/')}/"
        patterns: list[Any] = []
        for line in lines:
            stars = list(re.finditer(r"\*+", line))
            if len(stars) > _MAX_STARS:  # each star is a loop within that of the one before
                if line.startswith("!"):
                    continue
                line = line[: stars[_MAX_STARS - 1].end()]  # hides more files, and takes no hours
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    patterns += pathspec.GitIgnoreSpec.from_lines([line]).patterns
            except (ValueError, re.error):
                continue
        if searched := self.root[len(base) :]:
            patterns = [pattern for pattern in patterns if not pattern.match_file(searched)]
        return ((base, pathspec.GitIgnoreSpec(patterns)),)

    def ignore(self, path: str) -> bool:
        """Tell whether a file is ignored, or a folder, whose path ends in a slash."""
        for base, patterns in chain(self.own, self.git):
            found: bool | None = patterns.check_file(path[len(base) :]).include
            if found is not None:
                return found
        return False


def _walk(root: Path, *, use_ignore_files: bool) -> Iterator[tuple[str, os.stat_result]]:
    base = f"{root.as_posix().rstrip('/')}/"
    rules = _Rules(base)
    folders = [(base, _read_rules_above(root, rules) if use_ignore_files else rules)]
    while folders:
        folder, rules = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError:  # it went away, or may not be read
            continue
        if use_ignore_files:
            rules = rules.read(Path(folder))
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _NEVER_INDEXED or not entry.name.isprintable():
                continue
            path = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not rules.ignore(f"{path}/"):
                    folders.append((f"{path}/", rules))
            elif entry.is_file(follow_symlinks=False) and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # it went away
                    continue
                if status.st_size <= _MAX_BYTES and not rules.ignore(path):
                    yield path[len(base) :], status


def _read_rules_above(root: Path, rules: _Rules) -> _Rules:
    """Return the rules that hold for a folder from outside it.

    As ripgrep does: every folder above may have an ``.ignore``, those up to the repository's top a
    ``.gitignore``.
    """
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    excludes = _find_user_excludes()
    rules = rules._replace(git=rules.read_file(excludes, root) if excludes else ())
    if top is not None:
        rules = rules._replace(git=rules.read_file(top / ".git" / "info" / "exclude", top) + rules.git)
    for folder in reversed(root.parents):
        rules = rules.read(folder, git=top is not None and folder.is_relative_to(top))
    return rules


_EXCLUDES_FILE = re.compile(r'^\s*excludesfile\s*=\s*"?\s*([^"\n]+?)\s*"?\s*$', re.IGNORECASE | re.MULTILINE)


def _find_user_excludes() -> Path | None:
    """Return the file of the user's own git excludes: ``core.excludesFile``, or where git looks without it."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git"
    for path in (home / ".gitconfig", config / "config"):
        try:
            stated = _EXCLUDES_FILE.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if stated:
            return home / stated[1].removeprefix("~/")
    return config / "ignore"
