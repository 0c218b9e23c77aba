"""An index of a corpus that follows its files."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_core._support.checks import checked_count
from rerank_core.errors import ConfigurationError
from rerank_tools.corpus import _bm25, _store
from rerank_tools.corpus._files import Corpus, Source, Stamp
from rerank_tools.corpus.chunks import Chunk

__all__ = ["CorpusIndex", "Hit"]


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
    """The first stage over a folder of texts and code, or over a JSONL or CSV file: BM25 over its chunks.

    Made by :meth:`open`. It may be shared by threads.

    Attributes:
        built: whether :meth:`open` had to build it, because files changed or there was none.
        kept_at: the file that keeps it; None where it is in memory only.
        files: how many files it covers.
    """

    def __init__(self, chunks: _Chunks, bm25: Any, *, files: int, built: bool, kept_at: Path | None) -> None:
        self._chunks = chunks
        self._bm25 = bm25
        self.files = files
        self.built = built
        self.kept_at = kept_at

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, text_field: str = "text", keep: bool = True) -> CorpusIndex:
        """Load the index of a corpus, or build it where files changed since.

        It is kept in the hidden folder ``.rerank-bridge`` of the corpus (beside a corpus that is one file); in
        the user's cache folder where that cannot be written to; else in memory. Files that did not change are not
        read again.

        Args:
            path: a folder, or a file.
            text_field: the field that holds the text, in a file of records.
            keep: False for an index in memory only.

        Raises:
            ConfigurationError: there is no such corpus, there is nothing to read in it, or a file of records is
                malformed.
            MissingExtraError: bm25s, PyStemmer or platformdirs is not installed.
        """
        corpus = Corpus(Path(path), text_field)
        places = list(_store.places(corpus.path)) if keep else []
        known: Mapping[str, Source] = {}
        for place in places:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                archive = _store.Archive(place)
                try:
                    fresh, kept = _compared(corpus, archive)
                    if fresh:
                        chunks, bm25 = _loaded(archive)
                        files = len(archive.header["files"])
                        return cls(chunks, bm25, files=files, built=False, kept_at=place)
                    known = known or kept
                finally:
                    archive.close()
        return cls._build(corpus, known, places)

    @classmethod
    def _build(cls, corpus: Corpus, known: Mapping[str, Source], places: Sequence[Path]) -> CorpusIndex:
        read_at = time.time_ns()
        sources = {name: known.get(name) or corpus.read(name) for name in corpus.files()}
        chunks = _Chunks.of(sources)
        if not len(chunks):
            raise ConfigurationError(
                f"{corpus.path} holds nothing to search: give a folder of Markdown, text, HTML or source code"
            )
        bm25 = _bm25.build(f"{chunk.path} {chunk.reading}" for chunk in chunks)
        header = {
            "text_field": corpus.text_field,
            "read_at": read_at,
            "files": {name: source.stamp for name, source in sources.items()},
        }
        arrays = {**chunks.arrays(), **_arrays_of(bm25)}
        for place in places:
            with contextlib.suppress(OSError):
                _store.save(place, arrays, {**header, "num_docs": bm25.scores["num_docs"]})
                return cls(chunks, bm25, files=len(sources), built=True, kept_at=place)
        return cls(chunks, bm25, files=len(sources), built=True, kept_at=None)

    def search(self, query: str, k: int = 20) -> list[Hit]:
        """Return at most ``k`` chunks that share a term with the query, best first.

        Raises:
            ConfigurationError: ``k`` is no whole number of at least 1.
        """
        found = _bm25.search(self._bm25, query, checked_count("k", k, least=1))
        return [Hit(self._chunks[position], score) for position, score in found]

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self._chunks)


class _Chunks:
    """Chunks in two arrays, so that loading an index does not make objects of all of them."""

    def __init__(self, rows: Any, content: Any, names: Sequence[str]) -> None:
        # A row: file, first line, last line, where its heading begins, where its text begins and ends.
        self._rows = rows
        self._content = content
        self._names = names

    @classmethod
    def of(cls, sources: Mapping[str, Source]) -> _Chunks:
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
        table = np.array(rows, dtype=np.int64).reshape(-1, 6)
        return cls(table, np.frombuffer(bytes(content), dtype=np.uint8), list(sources))

    def arrays(self) -> dict[str, Any]:
        return {"rows": self._rows, "content": self._content}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Chunk:
        file, first, last, start, middle, end = map(int, self._rows[position])
        heading = self._content[start:middle].tobytes().decode(errors="surrogatepass")
        text = self._content[middle:end].tobytes().decode(errors="surrogatepass")
        return Chunk(self._names[file], first, last, heading, text)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[position] for position in range(len(self)))


def _compared(corpus: Corpus, archive: _store.Archive) -> tuple[bool, Mapping[str, Source]]:
    """Return whether an index is up to date, and what of it is, by file."""
    header = archive.header
    if header["text_field"] != corpus.text_field:
        return False, {}
    stamps = {name: Stamp(*stamp) for name, stamp in header["files"].items()}
    files = corpus.files()
    changed = {
        name
        for name, status in files.items()
        if name not in stamps or corpus.is_changed(name, status, stamps[name], header["read_at"])
    }
    if not changed and list(files) == list(stamps):
        return True, {}
    by_file: dict[str, list[Chunk]] = {name: [] for name in stamps}
    for chunk in _Chunks(archive.array("rows"), archive.array("content"), list(stamps)):
        by_file[chunk.path].append(chunk)
    kept = {name: Source(stamps[name], by_file[name]) for name in files if name not in changed}
    return False, kept


def _arrays_of(bm25: Any) -> dict[str, Any]:
    import numpy as np

    # JSON, because a vocabulary is quicker to parse than to put together.
    vocabulary = json.dumps(bm25.vocab_dict).encode()
    return {
        "vocabulary": np.frombuffer(vocabulary, dtype=np.uint8),
        **{name: bm25.scores[name] for name in ("data", "indices", "indptr")},
    }


def _loaded(archive: _store.Archive) -> tuple[_Chunks, Any]:
    header = archive.header
    scores = {name: archive.array(name) for name in ("data", "indices", "indptr")}
    scores["num_docs"] = header["num_docs"]
    vocabulary = json.loads(archive.array("vocabulary").tobytes())
    chunks = _Chunks(archive.array("rows"), archive.array("content"), list(header["files"]))
    return chunks, _bm25.restored(scores, vocabulary)
