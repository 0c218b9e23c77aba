"""Input files of a batch: Parquet and JSON lines."""

from pathlib import Path

from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.sources.base import Source
from rerank_tools.batch.sources.jsonl import JsonLinesSource
from rerank_tools.batch.sources.parquet import ParquetSource

__all__ = ["open_source"]


def open_source(path: Path, options: BatchOptions) -> Source:
    """Open an input file by its extension.

    Raises:
        ConfigurationError: the file cannot be read, is neither Parquet nor JSON lines, or lacks a column.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".ndjson"):
            return JsonLinesSource(path, options)
        if suffix == ".parquet":
            check_installed("pyarrow", extra="ray", purpose=f"reading {path.name}")
            return ParquetSource(path, options)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read ({exc.strerror or exc}): give a file of rows") from None
    raise ConfigurationError(f"{path} is neither .parquet nor .jsonl: convert it to one of them")
