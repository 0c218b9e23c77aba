"""The files of a corpus: which there are, whether they changed, and the chunks in them."""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError
from rerank_tools.corpus.chunks import SUFFIXES, Chunk, chunk_file
from rerank_tools.records import FORMATS, decode, parse_records

_NEVER_INDEXED = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_RECORD_SUFFIXES = frozenset(suffix for suffix, name in FORMATS.items() if name in ("jsonl", "csv", "tsv"))
_MAX_BYTES = 4 * 2**20
_MAX_STARS = 4

_Rules = tuple[tuple[str, Any], ...]
"""What ignore files say, as pairs of the folder that they hold for and the patterns, nearest folder first."""


class Corpus:
    """A folder, or a single file."""

    def __init__(self, path: Path, text_field: str = "text", *, use_ignore_files: bool = True) -> None:
        if not path.exists():
            raise ConfigurationError(f"{path} does not exist: give a folder, or a JSONL or CSV file")
        self.path = path
        self.text_field = text_field
        self.use_ignore_files = use_ignore_files
        self.is_file = path.is_file()
        if self.is_file and path.suffix.lower() not in {*_RECORD_SUFFIXES, *SUFFIXES}:
            raise ConfigurationError(
                f"{path} is of no known kind: give a folder, a file of text or code, or a file that ends in "
                f"{', '.join(sorted(_RECORD_SUFFIXES))}"
            )

    def files(self) -> dict[str, os.stat_result]:
        """Return the files to index, in order, by their path relative to the folder, with slashes.

        Hidden files and folders, dependencies, symbolic links and files over 4 MiB are left out.
        """
        if self.is_file:
            return {self.path.name: self.path.stat()}
        return dict(sorted(_walk(self.path.resolve(), use_ignore_files=self.use_ignore_files)))

    def read(self, name: str) -> list[Chunk]:
        """Read and split one of :meth:`files`; what is wrong with it is a ConfigurationError."""
        path = self.path if self.is_file else self.path / name
        try:
            if not (self.is_file or name.isprintable()):
                raise ConfigurationError(f"{path} has control characters in its path: rename it")
            data = path.read_bytes() if self.is_file else _read_regular_file(path)
            return self._split(name, data, str(path))
        except ConfigurationError:
            raise
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}") from exc
        except Exception as exc:  # one odd file must not stop the search of all others
            raise ConfigurationError(f"{path} cannot be split: {type(exc).__name__}") from exc

    def _split(self, name: str, data: bytes, source: str) -> list[Chunk]:
        suffix = self.path.suffix.lower()
        if not self.is_file or suffix not in _RECORD_SUFFIXES:
            return chunk_file(name, decode(data, source=source))
        records = parse_records(data, source=source, format=FORMATS[suffix], text_field=self.text_field)
        lines = [(record.line or 1, record.text) for record in records if record.text.strip()]
        return [Chunk(name, line, line, "", text) for line, text in lines]


def fingerprint(files: Mapping[str, os.stat_result]) -> str:
    """Return what changes with files: their paths, sizes and dates, those of changed permissions, too."""
    stamps = [(name, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in files.items()]
    return digest(json.dumps(stamps))


def _read_regular_file(path: Path, *, follow_link: bool = False) -> bytes:
    """Return a file's first 4 MiB; what is no file any more, but a pipe or (by default) a link, is not read."""
    # Neither flag exists on Windows.
    flags = getattr(os, "O_NONBLOCK", 0) | (0 if follow_link else getattr(os, "O_NOFOLLOW", 0))
    with open(path, "rb", opener=lambda name, given: os.open(name, given | flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no file")
        return file.read(_MAX_BYTES)


def _walk(root: Path, *, use_ignore_files: bool) -> Iterator[tuple[str, os.stat_result]]:
    base = f"{root.as_posix().rstrip('/')}/"
    folders = [(base, _read_rules_above(root) if use_ignore_files else ())]
    while folders:
        folder, rules = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError:  # it went away, or may not be read
            continue
        if use_ignore_files:
            rules = _read_rules(Path(folder)) + rules
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _NEVER_INDEXED:
                continue
            path = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not _is_ignored(f"{path}/", rules):
                    folders.append((f"{path}/", rules))
            elif entry.is_file(follow_symlinks=False) and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # it went away
                    continue
                if status.st_size <= _MAX_BYTES and not _is_ignored(path, rules):
                    yield path[len(base) :], status


def _is_ignored(path: str, rules: _Rules) -> bool:
    """Tell whether a file is ignored, or a folder, whose path ends in a slash."""
    for base, patterns in rules:
        found: bool | None = patterns.check_file(path[len(base) :]).include
        if found is not None:
            return found
    return False


def _read_rules_above(root: Path) -> _Rules:
    """Return the rules of the folders above, up to the repository's top; none where there is no repository."""
    above = [root, *root.parents]
    top = next((number for number, folder in enumerate(above) if (folder / ".git").exists()), 0)
    return tuple(rule for folder in above[1 : top + 1] for rule in _read_rules(folder, searched=root))


def _read_rules(folder: Path, *, searched: Path | None = None) -> _Rules:
    """Return what the ignore files of a folder say, as the only pair; none where they say nothing.

    What would ignore the whole search is left out: whoever names a folder wants it searched.
    """
    lines: list[str] = []
    for name in (".gitignore", ".ignore"):  # the last line that matches decides
        try:
            lines += _read_regular_file(folder / name, follow_link=True).decode(errors="replace").splitlines()
        except OSError:
            continue
    patterns = [pattern for line in lines for pattern in _parse_pattern(line)]
    if searched is not None:
        inner = f"{searched.relative_to(folder).as_posix()}/"
        patterns = [pattern for pattern in patterns if not pattern.match_file(inner)]
    if not patterns:
        return ()
    pathspec: Any = require("pathspec", extra="cli", purpose="corpus search")
    return ((f"{folder.as_posix().rstrip('/')}/", pathspec.GitIgnoreSpec(patterns)),)


def _parse_pattern(line: str) -> list[Any]:
    """Return the pattern of a line of an ignore file; none of a comment, or of what is no pattern."""
    stars = list(re.finditer(r"\*+", line))
    if len(stars) > _MAX_STARS:  # each star is a loop within that of the one before
        if line.startswith("!"):
            return []
        line = line[: stars[_MAX_STARS - 1].end()]  # hides more files, and takes no hours
    pathspec: Any = require("pathspec", extra="cli", purpose="corpus search")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(pathspec.GitIgnoreSpec.from_lines([line]).patterns)
    except (ValueError, re.error):
        return []
