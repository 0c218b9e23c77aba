"""Input files: rows of a part, and the same rows with their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_tools.batch._rows import Outcome, Row
from rerank_tools.batch.options import BatchOptions

__all__ = ["Source", "open_source"]


class Source(ABC):
    """An input file, read part by part; it can be pickled, and opens the file where it is read.

    Attributes:
        path: the file.
        suffix: of the output's files.
        rows: how many there are.
        sha256: of the whole file.
    """

    path: Path
    suffix: str
    rows: int
    sha256: str

    @abstractmethod
    def read(self, part: range) -> tuple[list[Row], Any]:
        """Return the rows of a part, and those as the file holds them, for :meth:`rendered`."""

    @abstractmethod
    def rendered(self, held: Any, part: range, outcomes: Mapping[int, Outcome]) -> bytes:
        """Return an output file: the rows of a part that have a result, with the three columns."""


def open_source(path: Path, options: BatchOptions) -> Source:
    """Open an input file.

    Raises:
        ConfigurationError: it cannot be read, or is neither Parquet nor JSONL; or a column is missing.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".ndjson"):
            from rerank_tools.batch._jsonl import JsonlSource

            return JsonlSource(path, options)
        if suffix == ".parquet":
            check_installed("pyarrow", extra="ray", purpose=f"reading {path.name}")
            from rerank_tools.batch._parquet import ParquetSource

            return ParquetSource(path, options)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read ({exc.strerror or exc}): give a file of rows") from None
    raise ConfigurationError(f"{path} is neither .parquet nor .jsonl: convert it to one of them")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    hashed = sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            hashed.update(block)
    return hashed.hexdigest()


def clash(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return what is wrong where the input has a column of ours already."""
    taken = [name for name in columns if name in names]
    return f"there is a column {taken[0]!r} already: give prefix=" if taken else None
