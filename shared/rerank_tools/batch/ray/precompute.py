"""A vector file of a Ray dataset's texts."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core._support.checks import check_count
from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.late.scorer import LateScorer
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.usage import Usage
from rerank_core.vectors import VectorFile
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.ray.worker import Worker, map_arguments

if TYPE_CHECKING:
    import ray.data

__all__ = ["precompute_dataset"]

_PART_SUFFIX = ".part"


def precompute_dataset(
    dataset: ray.data.Dataset,
    vectors: str | os.PathLike[str],
    model: str | Scorer = "embedded",
    *,
    model_options: Mapping[str, Any] | None = None,
    text_column: str = "text",
    batch_size: int = 128,
    workers: int = 1,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
) -> Usage:
    """Encode the texts of a Ray dataset into a vector file.

    Each worker writes a file of its own beside it (``.part``), so that workers on other machines may share the
    folder; they are merged at the end. What is stored already is not encoded again: to go on after an
    interruption, repeat the call, which first merges what the interrupted one has left.

    Args:
        dataset: one text per row.
        vectors: the vector file, made if it is missing; its folder has the same path for all workers.
        model: a scorer that stores vectors, or its name.
        model_options: further options of a scorer that is given by name.
        text_column: the column of the texts.
        batch_size: rows that a worker gets at a time, at least 1; a worker that is killed loses one batch at most.
        workers: processes, at least 1.
        cpus_per_worker: cores of each, at least 1; also the model's threads, unless it has a number of its own.
        gpus_per_worker: GPUs of each, at least 0.

    Returns:
        How many texts were encoded (``documents``) and how many were stored before (``stored``).

    Raises:
        ConfigurationError: an option is out of its range, or the model stores no vectors.
        MissingExtraError: Ray, or a package that the model needs, is not installed.
    """
    check_installed("ray", "pyarrow", extra="ray", purpose="precompute_dataset")
    check_count("batch_size", batch_size)
    options = BatchOptions(
        model,
        model_options or {},
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )
    if not isinstance(options.make_scorer(), LateScorer):
        raise ConfigurationError(f"{options.make_scorer().name} stores no vectors: use 'embedded'")
    whole = VectorFile(vectors)
    _merge_parts(whole)
    arguments = map_arguments(options, whole.path, text_column, min_workers=1)
    rows = dataset.select_columns([text_column]).map_batches(_PrecomputeWorker, batch_size=batch_size, **arguments)
    total = sum((Usage(**row) for row in rows.iter_rows()), Usage())
    _merge_parts(whole)
    return total


def _merge_parts(whole: VectorFile) -> None:
    for path in sorted(whole.path.parent.glob(f"{whole.path.name}.*{_PART_SUFFIX}")):
        whole.merge(path)
        path.unlink()
    whole.close()


class _PrecomputeWorker(Worker):
    """Encodes one batch of texts after the other into a file of its own."""

    def __init__(self, options: BatchOptions, whole: Path, text_column: str) -> None:
        super().__init__(options)
        part = _PartFile(whole.with_name(f"{whole.name}.{uuid.uuid4().hex}{_PART_SUFFIX}"), whole)
        scorer: Any = self.reranker.scorer
        self.reranker = Reranker(scorer.with_options(vectors=part))
        self._text_column = text_column

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """Return how many texts were encoded, and how many were there."""
        with self.reranker:  # closed after each batch, so that all of it is in the file and nothing beside it
            usage = self.reranker.precompute(list(map(str, batch[self._text_column])))
        return {"documents": [usage.documents], "stored": [usage.stored], "tokens": [usage.tokens or 0]}


class _PartFile(VectorFile):
    """A file beside another one, in which it also looks."""

    def __init__(self, path: Path, whole: Path) -> None:
        super().__init__(path)
        self._whole = VectorFile(whole)

    def read(self, keys: Sequence[bytes]) -> dict[bytes, memoryview]:
        """Return what either has."""
        return {**self._whole.read(keys), **super().read(keys)}

    def close(self) -> None:
        """Close both."""
        self._whole.close()
        super().close()
