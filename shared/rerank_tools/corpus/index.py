"""An index of a corpus that follows its files."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_core._support.checks import checked_count
from rerank_core._support.extras import check_installed, require
from rerank_core._support.files import digest, digest_file, find_cache_folder, lock_file, make_private, write_atomically
from rerank_core.errors import ConfigurationError
from rerank_tools.bm25 import Bm25
from rerank_tools.corpus.chunks import Chunk
from rerank_tools.corpus.files import Corpus, Source, Stamp

__all__ = ["CorpusIndex", "Hit"]

_VERSION = 2
_LOCK_SECONDS = 30.0


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

    def __init__(
        self, chunks: _Chunks, bm25: Bm25, problems: Mapping[str, str], *, built: bool, kept_at: Path | None
    ) -> None:
        self._chunks = chunks
        self._bm25 = bm25
        self.files = len(chunks.names)
        self.skipped = dict(problems)
        self.built = built
        self.kept_at = kept_at

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        text_field: str = "text",
        keep: bool = True,
        use_ignore_files: bool = True,
    ) -> CorpusIndex:
        """Load the index of a corpus, or build it where files changed since; only those are read again.

        It is kept in the user's cache folder, or where the environment variable ``RERANK_BRIDGE_CACHE`` says, for
        this user only.

        Args:
            path: a folder, or a file.
            text_field: the field that holds the text, in a file of records.
            keep: False for an index in memory only.
            use_ignore_files: leave out what ``.gitignore``, ``.ignore`` and the user's git excludes name, in and
                above the folder.

        Raises:
            ConfigurationError: there is no such corpus, there is nothing to read in it, or a file of records is
                malformed.
            MissingExtraError: the extra ``cli`` is not installed.
        """
        packages = ("bm25s", "markdown_it", "numpy", "pathspec", "platformdirs", "Stemmer")
        check_installed(*packages, extra="cli", purpose="corpus search")
        corpus = Corpus(Path(path), text_field, use_ignore_files)
        kept = None
        with suppress(OSError):
            kept = _KeptIndex(corpus) if keep else None
        known: Mapping[str, Source] = {}
        if kept is not None:
            with suppress(Exception):  # whatever is odd about it: it is built anew
                header, chunks, bm25 = kept.load()
                known = _find_unchanged(corpus, header, chunks)
                if list(known) == list(header["files"]) == list(corpus.files()):
                    return cls(chunks, bm25, header["problems"], built=False, kept_at=kept.folder)
        return cls._build(corpus, known, kept)

    @classmethod
    def _build(cls, corpus: Corpus, known: Mapping[str, Source], kept: _KeptIndex | None) -> CorpusIndex:
        read_at = time.time_ns()
        sources = {name: known.get(name) or corpus.read(name) for name in corpus.files()}
        chunks = _Chunks.join(sources)
        if not len(chunks):
            raise ConfigurationError(
                f"{corpus.path} holds nothing to search: give a folder of Markdown, text, HTML or source code"
            )
        terms = _Terms()
        bm25 = Bm25.build([terms.split(f"{chunk.path} {chunk.reading}") for chunk in chunks], k1=1.2, b=0.75)
        problems = {name: source.problem for name, source in sources.items() if source.problem}
        files = {name: source.stamp for name, source in sources.items()}
        kept_at = None
        if kept is not None:
            with suppress(OSError):
                kept.save({"read_at": read_at, "files": files, "problems": problems}, chunks, bm25)
                kept_at = kept.folder
        return cls(chunks, bm25, problems, built=True, kept_at=kept_at)

    def search(self, query: str, candidates: int = 20) -> list[Hit]:
        """Return at most ``candidates`` chunks that share a term with the query, best first.

        Raises:
            ConfigurationError: ``candidates`` is no whole number of at least 1.
        """
        candidates = checked_count("candidates", candidates, least=1)
        terms = list(dict.fromkeys(_Terms().split(query)))  # a stemmer must not be shared by threads
        return [Hit(self._chunks[position], score) for position, score in self._bm25.search(terms, candidates)]

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self._chunks)


class _Chunks:
    """Chunks in two arrays, so that loading an index does not make objects of all of them."""

    def __init__(self, rows: Any, content: bytes, names: Sequence[str]) -> None:
        # A row: file, first line, last line, where its heading begins, where its text begins and ends.
        self.rows = rows
        self.content = content
        self.names = names

    @classmethod
    def join(cls, sources: Mapping[str, Source]) -> _Chunks:
        import numpy as np

        rows: list[tuple[int, ...]] = []
        content = bytearray()
        for file, source in enumerate(sources.values()):
            for chunk in source.chunks:
                start = len(content)
                content += chunk.heading.encode(errors="surrogatepass")
                middle = len(content)
                content += chunk.text.encode(errors="surrogatepass")
                rows.append((file, chunk.start_line, chunk.end_line, start, middle, len(content)))
        return cls(np.array(rows, dtype=np.int64).reshape(-1, 6), bytes(content), list(sources))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Chunk:
        file, first, last, start, middle, end = map(int, self.rows[position])
        heading = self.content[start:middle].decode(errors="surrogatepass")
        text = self.content[middle:end].decode(errors="surrogatepass")
        return Chunk(self.names[file], first, last, heading, text)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[position] for position in range(len(self)))


class _KeptIndex:
    """The folder of an index, in the user's cache folder: ``header.json``, which is written last, and the rest.

    The header holds the size and the digest of every other file, and a digest of itself.

    Raises:
        OSError: the folder cannot be made, or is not this user's.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = str(corpus.path.resolve())
        self._all = make_private(find_cache_folder(extra="cli", purpose="corpus search") / "corpus")
        self.folder = make_private(self._all / digest(self._corpus, corpus.text_field))

    def load(self) -> tuple[dict[str, Any], _Chunks, Bm25]:
        """Return the header, the chunks and the BM25 index. Whatever it raises, there is nothing to be used."""
        import numpy as np

        with lock_file(self.folder / "lock", wait_seconds=_LOCK_SECONDS):
            content = json.loads((self.folder / "header.json").read_bytes())
            header: dict[str, Any] = json.loads(content["header"])
            if content["digest"] != digest(content["header"]) or header["version"] != _VERSION:
                raise ValueError("the header is damaged, or of another version")
            for name, (size, expected) in header["content"].items():
                path = self.folder / name
                # First the size, so that nothing large is read that was not written.
                if path.is_symlink() or path.stat().st_size != size or digest_file(path) != expected:
                    raise ValueError(f"{name} is damaged")
            rows = np.load(self.folder / "rows.npy")
            chunks = _Chunks(rows, (self.folder / "text").read_bytes(), list(header["files"]))
            return header, chunks, Bm25.load(self.folder / "bm25")

    def save(self, header: dict[str, Any], chunks: _Chunks, bm25: Bm25) -> None:
        """Replace what is kept, and remove what is kept of corpora that are gone."""
        import numpy as np

        with lock_file(self.folder / "lock", wait_seconds=_LOCK_SECONDS):
            for path in self.folder.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            (self.folder / "corpus").write_text(self._corpus, encoding="utf-8", errors="surrogateescape")
            np.save(self.folder / "rows.npy", chunks.rows)
            (self.folder / "text").write_bytes(chunks.content)
            bm25.save(self.folder / "bm25")
            content = {
                path.relative_to(self.folder).as_posix(): (path.stat().st_size, digest_file(path))
                for path in sorted(self.folder.rglob("*"))
                if path.is_file() and path.name != "lock"
            }
            text = json.dumps({"version": _VERSION, "content": content, **header})
            with write_atomically(self.folder / "header.json") as file:
                file.write(json.dumps({"digest": digest(text), "header": text}).encode())
        for other in self._all.iterdir():
            with suppress(OSError, ValueError):
                if not Path((other / "corpus").read_text(encoding="utf-8", errors="surrogateescape")).exists():
                    shutil.rmtree(other)


def _find_unchanged(corpus: Corpus, header: Mapping[str, Any], chunks: _Chunks) -> dict[str, Source]:
    """Return the files that are as they were when the index was built, in order."""
    stamps = {name: Stamp(*stamp) for name, stamp in header["files"].items()}
    files = corpus.files()
    unchanged = {
        name: Source(stamps[name], [], header["problems"].get(name, ""))
        for name, status in files.items()
        if name in stamps and not corpus.has_changed(name, status, stamps[name], header["read_at"])
    }
    if list(unchanged) != list(stamps) or list(unchanged) != list(files):
        for chunk in chunks:
            if chunk.path in unchanged:
                unchanged[chunk.path].chunks.append(chunk)
    return unchanged


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
