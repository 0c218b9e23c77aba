"""Ray datasets: three more columns for each row, or a vector file of all texts."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rerank_core._call import event_loop
from rerank_core._call.fan_out import fan_out
from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_core.local.late.scorer import LateScorer
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection
from rerank_core.usage import Usage
from rerank_core.vectors import VectorFile
from rerank_tools.batch.folder import hold_lock
from rerank_tools.batch.options import BatchOptions
from rerank_tools.batch.ray.job import Worker, map_arguments
from rerank_tools.batch.rows import add_columns, check_columns, read_table
from rerank_tools.batch.runner import score_row

if TYPE_CHECKING:
    import pyarrow
    import ray.data

_PART_SUFFIX = ".part"

OnRowError = Literal["raise", "column"]
"""What happens when a row fails: the run ends, or a column says why."""


def rerank_dataset(
    dataset: ray.data.Dataset,
    model: str | Scorer = "embedded",
    *,
    model_options: Mapping[str, Any] | None = None,
    query_column: str = "query",
    documents_column: str = "documents",
    prefix: str = "",
    selection: Selection = Selection(),  # noqa: B008 - frozen
    timeout: float | None = None,
    on_error: OnRowError = "raise",
    batch_size: int = 128,
    workers: int | tuple[int, int] = (1, 8),
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
) -> ray.data.Dataset:
    """Return a dataset with the columns ``indices``, ``scores`` and ``usage`` added; Ray Data runs it when asked.

    ``indices`` holds the positions of the surviving candidates, best first, ``scores`` their relevance scores in
    the same order. Each worker loads the model once; a local model fills its batches with texts of several rows.
    Each has an equal share of a service's ``max_concurrency`` and limits per minute, so that they hold for all
    workers together: for a service, give a number of workers instead of a pool that grows. Workers look for
    services' keys in their environment; no key travels.

    The options are those of :class:`BatchOptions`, except for these. ``on_error="raise"`` ends the run with the
    first row that fails; ``"column"`` leaves nulls in the columns and adds the reason in a fourth one, ``error``.
    Errors that every row would raise always end the run. A worker gets ``batch_size`` rows at a time, at least 1.
    ``workers`` is a number of processes, or the least and the most of a pool that grows with the work.

    Raises:
        ConfigurationError: an option is out of its range, or the scorer's name is unknown.
        MissingExtraError: Ray, or a package that the scorer needs, is not installed.
    """
    check_installed("ray", extra="ray", purpose="rerank_dataset")
    min_workers, max_workers = _check_workers(workers)
    check_choice("on_error", on_error, get_args(OnRowError))
    check_count("batch_size", batch_size)
    options = BatchOptions(
        model,
        model_options or {},
        query_column,
        documents_column,
        selection,
        prefix,
        timeout=timeout,
        workers=max_workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )
    arguments = map_arguments(options, on_error, min_workers=min_workers)
    return dataset.map_batches(DatasetWorker, batch_size=batch_size, batch_format="pyarrow", **arguments)


def _check_workers(workers: object) -> tuple[int, int]:
    sizes = workers if isinstance(workers, tuple) else (workers, workers)
    if len(sizes) == 2 and all(isinstance(size, int) for size in sizes) and 1 <= sizes[0] <= sizes[1]:
        return sizes[0], sizes[1]
    raise ConfigurationError(
        f"workers is {workers!r}: give a number of processes of at least 1, or the least and the most"
    )


class DatasetWorker(Worker):
    """A worker of :func:`rerank_dataset`, which gets one batch of rows after the other."""

    def __init__(self, options: BatchOptions, on_error: OnRowError) -> None:
        super().__init__(options)
        self._on_error = on_error
        self.reranker.warm_up()

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Return a batch with the columns added."""
        raises = self._on_error == "raise"
        check_columns(table.schema, self.options.columns)
        rows = read_table(table, self.options.columns, "row {} of its batch".format)
        bad = next((row.error for row in rows if row.error is not None), None)
        if raises and bad is not None:
            raise ConfigurationError(bad)
        score = partial(score_row, self.reranker, keep_errors=not raises)
        outcomes = event_loop.run(fan_out(score, rows, progress=False))
        table = add_columns(table, self.options.columns, outcomes)
        if raises:
            return table
        arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
        reasons = arrow.array([outcome.reason for outcome in outcomes], arrow.string())
        return table.append_column(f"{self.options.prefix}error", reasons)


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

    The options are those of :class:`BatchOptions`; the model has to store vectors, and the vector file's folder to
    have the same path for all workers. A worker gets ``batch_size`` rows at a time, at least 1, and loses no more
    when it is killed.

    Returns:
        How many texts were encoded (``documents``) and how many were stored before (``stored``).

    Raises:
        ConfigurationError: an option is out of its range, the model stores no vectors, or another run is writing
            the vector file.
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
    with ExitStack() as held:
        hold_lock(held, whole.path.with_name(f"{whole.path.name}.lock"), str(whole.path))
        _merge_parts(whole)
        arguments = map_arguments(options, whole.path, text_column, min_workers=1)
        texts = dataset.select_columns([text_column])
        rows = texts.map_batches(_PrecomputeWorker, batch_size=batch_size, **arguments)
        total = sum((Usage(**row) for row in rows.iter_rows()), Usage())
        _merge_parts(whole)
        return total


def _merge_parts(whole: VectorFile) -> None:
    beside = f"{escape(whole.path.name)}.*{_PART_SUFFIX}"
    for path in sorted(whole.path.parent.glob(beside)):
        whole.merge(path)
        for file in path.parent.glob(f"{escape(path.name)}*"):  # with SQLite's files beside it
            file.unlink(missing_ok=True)
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
            texts = [text if text is None else str(text) for text in batch[self._text_column]]  # numpy's strings
            usage = self.reranker.precompute(texts)
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
