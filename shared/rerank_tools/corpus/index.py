"""An index of a corpus, built anew when its files change."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core._support.checks import check_count
from rerank_core._support.extras import check_installed, require
from rerank_core._support.files import (
    digest,
    digest_file,
    find_cache_folder,
    lock_file,
    make_private,
    write_atomically,
)
from rerank_core.errors import ConfigurationError
from rerank_tools.bm25 import build_bm25, search_bm25
from rerank_tools.corpus.chunks import Chunk
from rerank_tools.corpus.files import Corpus, fingerprint

_VERSION = 5
_LOCK_SECONDS = 30.0
_UNSETTLED = ""
"""The fingerprint of files that may have changed since they were read."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        chunk: what was found.
        score: BM25's, above 0, without an upper limit: comparable within one query only.
    """

    chunk: Chunk
    score: float


class CorpusIndex:
    """The first stage over a folder of text and code, or over a JSONL or CSV file: BM25 over its chunks.

    Made by :meth:`open`. It may be shared by threads.

    Attributes:
        built: whether :meth:`open` had to build it, because files changed or there was none.
        kept_at: the folder that keeps it; None where it is in memory only.
        files: how many files it covers.
        skipped: which files could not be read, and why.
    """

    def __init__(self, kept: _Kept, *, built: bool, kept_at: Path | None) -> None:
        self._chunks = kept.chunks
        self._bm25 = kept.bm25
        self.files: int = kept.about["files"]
        self.skipped: dict[str, str] = kept.about["skipped"]
        self.built = built
        self.kept_at = kept_at

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, text_field: str = "text", use_ignore_files: bool = True
    ) -> CorpusIndex:
        """Load the index of a corpus, or build it where a file's path, size or date changed since.

        It is kept in the user's cache folder, or where the environment variable ``RERANK_BRIDGE_CACHE`` says, for
        this user only.

        Args:
            path: a folder, or a file.
            text_field: the field that holds the text, in a file of records.
            use_ignore_files: leave out what ``.gitignore`` and ``.ignore`` name, in the folder and above it up to
                the repository's top.

        Raises:
            ConfigurationError: there is no such corpus, there is nothing to read in it, or a file of records is
                malformed.
            MissingExtraError: the extra ``cli`` is not installed.
        """
        packages = ("bm25s", "markdown_it", "numpy", "pathspec", "platformdirs", "Stemmer")
        check_installed(*packages, extra="cli", purpose="corpus search")
        corpus = Corpus(Path(path), text_field, use_ignore_files=use_ignore_files)
        started = time.time_ns()
        files = corpus.files()
        mark = fingerprint(files)
        folder = _make_folder(corpus)
        if folder is not None:
            with suppress(Exception):  # whatever is odd about it: it is built anew
                return cls(_load(folder, mark), built=False, kept_at=folder)
        built = _build(corpus, files)
        if any(one.st_mtime_ns >= started for one in files.values()):
            mark = _UNSETTLED  # what has just been changed can change again within the clock's resolution
        if folder is not None:
            try:
                _save(built, folder, mark)
            except OSError:
                folder = None
        return cls(built, built=True, kept_at=folder)

    def search(self, query: str, candidates: int = 20) -> list[Hit]:
        """Return at most ``candidates`` chunks that share a term with the query, best first.

        Raises:
            ConfigurationError: ``candidates`` is no whole number of at least 1.
        """
        candidates = check_count("candidates", candidates)
        terms = list(dict.fromkeys(_Terms().split(query)))  # a stemmer must not be shared by threads
        return [Hit(_parse(self._chunks[row]), score) for row, score in search_bm25(self._bm25, terms, candidates)]

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self._chunks)


class _Kept(NamedTuple):
    """What is kept of an index. Chunks are lines of JSON, since making objects of all of them takes long."""

    about: Mapping[str, Any]
    chunks: Sequence[bytes]
    bm25: Any


def _build(corpus: Corpus, files: Mapping[str, os.stat_result]) -> _Kept:
    chunks: list[Chunk] = []
    skipped: dict[str, str] = {}
    for name in files:
        try:
            chunks += corpus.read(name)
        except ConfigurationError as exc:
            if corpus.is_file:
                raise
            skipped[name] = str(exc).removeprefix(f"{corpus.path / name} ").removeprefix("is ")
    if not chunks:
        raise ConfigurationError(
            f"{corpus.path} holds nothing to search: give a folder of Markdown, text or source code"
        )
    terms = _Terms()
    bm25 = build_bm25([terms.split(f"{chunk.path} {chunk.reading}") for chunk in chunks], k1=1.2, b=0.75)
    about = {"corpus": str(corpus.path.resolve()), "files": len(files), "skipped": skipped}
    return _Kept(about, [json.dumps(astuple(chunk)).encode() for chunk in chunks], bm25)


def _parse(line: bytes) -> Chunk:
    return Chunk(*json.loads(line))


def _make_folder(corpus: Corpus) -> Path | None:
    """Return the folder that keeps an index, in the user's cache, since a corpus may be anybody's; else None."""
    try:
        folder = make_private(find_cache_folder(extra="cli", purpose="corpus search") / "corpus")
        return make_private(folder / digest(str(corpus.path.resolve()), corpus.text_field))
    except OSError:
        return None


def _load(folder: Path, mark: str) -> _Kept:
    """Load what :func:`_save` wrote. Whatever this raises, there is nothing to be used."""
    bm25s: Any = require("bm25s", extra="cli", purpose="corpus search")
    with lock_file(folder / "lock", wait_seconds=_LOCK_SECONDS):
        header = json.loads((folder / "header.json").read_bytes())
        if (header["version"], header["fingerprint"]) != (_VERSION, mark):
            raise ValueError("the files changed, or it is of another version")
        if any(digest_file(folder / name) != expected for name, expected in header["content"].items()):
            raise ValueError("it is damaged")
        about, *chunks = (folder / "chunks.jsonl").read_bytes().split(b"\n")
        return _Kept(json.loads(about), chunks, bm25s.BM25.load(folder / "bm25"))


def _save(kept: _Kept, folder: Path, mark: str) -> None:
    """Replace an index, its header last, and remove the indexes of what is gone."""
    with lock_file(folder / "lock", wait_seconds=_LOCK_SECONDS):
        for path in folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (folder / "chunks.jsonl").write_bytes(b"\n".join([json.dumps(kept.about).encode(), *kept.chunks]))
        kept.bm25.save(folder / "bm25", show_progress=False)
        paths = [folder / "chunks.jsonl", *(folder / "bm25").iterdir()]
        content = {path.relative_to(folder).as_posix(): digest_file(path) for path in paths}
        header = {"version": _VERSION, "fingerprint": mark, "content": content}
        with write_atomically(folder / "header.json") as file:
            file.write(json.dumps(header).encode())
    for other in folder.parent.iterdir():
        with suppress(Exception):  # it is being written, or another version's
            with (other / "chunks.jsonl").open("rb") as file:
                about = json.loads(file.readline())
            if not Path(about["corpus"]).exists():
                shutil.rmtree(other)


_WORD = re.compile(r"\w+")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_COMMON_WORDS = (
    "a an and are as at be but by can do does for from has have how i if in into is it its my not of on "
    "or s should so such t that the their then there these they this to was what when where which will "
    "with you your"
)
_STOP_WORDS = frozenset(_COMMON_WORDS.split())


class _Terms:
    """Turns texts into terms: stemmed words, and the parts of identifiers besides the whole.

    >>> _Terms().split("How does getHttpResponse handle retries?")
    ['gethttprespons', 'get', 'http', 'respons', 'handl', 'retri']
    """

    def __init__(self) -> None:
        self._stem = require("Stemmer", extra="cli", purpose="corpus search").Stemmer("english").stemWords
        self._known: dict[str, list[str]] = {}

    def split(self, text: str) -> list[str]:
        """Return the terms of a text, in order."""
        terms: list[str] = []
        for word in _WORD.findall(text):
            found = self._known.get(word)
            if found is None:
                found = self._known[word] = self._split_word(word)
            terms += found
        return terms

    def _split_word(self, word: str) -> list[str]:
        lowered = word.lower()
        if lowered in _STOP_WORDS:
            return []
        parts = [part.lower() for part in _PARTS.findall(word)]
        whole = lowered.strip("_")
        words = [whole] if len(parts) < 2 else [whole, *(part for part in parts if part not in _STOP_WORDS)]
        return [str(term) for term in self._stem([each for each in words if each])]
