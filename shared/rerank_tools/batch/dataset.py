"""Three more columns for a Ray dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rerank_core._support.checks import checked_count, checked_seconds
from rerank_core._support.extras import require
from rerank_core.errors import AuthenticationError, ConfigurationError
from rerank_core.registry import as_scorer, load_scorer
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection, check_selection
from rerank_tools.batch._arrow import check_columns, with_columns
from rerank_tools.batch._rows import Outcome, Row, checked_row
from rerank_tools.batch._source import clash
from rerank_tools.batch._workers import begun_limiters, prepared

if TYPE_CHECKING:
    import pyarrow
    import ray.data

__all__ = ["Actor", "OnRowError", "Settings", "rerank_dataset"]

OnRowError = Literal["raise", "column"]
"""What becomes of a row that fails."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an actor of :func:`rerank_dataset` needs to know; the fields are its arguments."""

    query_column: str
    documents_column: str
    prefix: str
    selection: Selection
    timeout: float | None
    on_error: OnRowError
    cores: int

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns that are added, but for ``error``."""
        return [f"{self.prefix}{name}" for name in ("indices", "scores", "usage")]


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
    concurrency: int | tuple[int, int] = (1, 8),
    num_cpus: int = 1,
    num_gpus: float = 0.0,
) -> ray.data.Dataset:
    """Return a dataset with the columns ``indices``, ``scores`` and ``usage`` added, to be run by Ray Data.

    ``indices`` holds the positions of the surviving candidates, best first, ``scores`` their relevance scores in
    the same order. Each actor of the pool loads the model once; a local one fills its batches with texts of all
    rows that the actor has. Requests to a service wait for one limiter of the whole cluster, so that
    ``max_concurrency`` and the limits by the minute hold for all actors together. Services' keys are looked for in
    the actors' environment; no key travels.

    Args:
        dataset: a row a query with its candidates.
        model: a scorer, or a name for :func:`rerank_core.load_scorer`.
        model_options: further options of a scorer that is given by name.
        query_column: column of the queries: strings.
        documents_column: column of the candidates: lists of strings, in the first stage's order.
        prefix: written before the names of the columns that are added.
        selection: which candidates are named.
        timeout: seconds that a row may take, above 0; None for no limit.
        on_error: ``"raise"`` ends the run with the first row that fails; ``"column"`` leaves nulls in the columns
            and the reason in a fourth one, ``error``. A key that is refused always ends it.
        batch_size: rows that an actor has at a time, at least 1.
        concurrency: actors, or the fewest and the most of a pool that grows with the work.
        num_cpus: cores of an actor, at least 1; also the threads of a local model that was given none.
        num_gpus: GPUs of an actor; a fraction shares one.

    Raises:
        ConfigurationError: an option is out of its range, or the scorer's name is unknown.
        MissingExtraError: Ray, or a package that the scorer needs, is not installed.
    """
    data = require("ray.data", extra="ray", purpose="rerank_dataset")
    fewest, most = _pool(concurrency)
    if on_error not in get_args(OnRowError):
        raise ConfigurationError(f"on_error is {on_error!r}: give 'raise' or 'column'")
    if model_options and not isinstance(model, str):
        raise ConfigurationError("model is a scorer, which has its options: leave out model_options=")
    scorer = load_scorer(model, **(model_options or {})) if isinstance(model, str) else as_scorer(model)
    settings = Settings(
        query_column,
        documents_column,
        prefix,
        check_selection(selection),
        None if timeout is None else checked_seconds("timeout", timeout),
        on_error,
        checked_count("num_cpus", num_cpus, least=1),
    )
    checked_count("batch_size", batch_size, least=1)
    return dataset.map_batches(
        Actor,
        fn_constructor_args=(scorer, settings, begun_limiters(scorer)),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )


def _pool(concurrency: object) -> tuple[int, int]:
    sizes = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    if len(sizes) == 2 and all(isinstance(size, int) for size in sizes) and 1 <= sizes[0] <= sizes[1]:
        return sizes[0], sizes[1]
    raise ConfigurationError(
        f"concurrency is {concurrency!r}: give a number of actors of at least 1, or the fewest and the most"
    )


class Actor:
    """A model in an actor of the pool."""

    def __init__(self, scorer: Scorer, settings: Settings, limiters: Sequence[Any] = ()) -> None:
        self._limiters = limiters  # they end with their last handle
        self._settings = settings
        self._reranker = Reranker(
            prepared(scorer, cores=settings.cores),
            selection=settings.selection,
            timeout=settings.timeout,
            on_error="raise" if settings.on_error == "raise" else "passthrough",
        )
        self._reranker.warm_up()

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Return a batch with the columns added."""
        settings = self._settings
        rows = self._rows(table)
        good = [row for row in rows if row.error is None]
        rankings = self._reranker.rerank_many([row.query for row in good], [row.documents for row in good])
        outcomes = {row.number: Outcome(row.number, error="", reason=row.error) for row in rows}
        for row, ranking in zip(good, rankings, strict=True):
            if isinstance(ranking.error, AuthenticationError):
                raise ranking.error
            outcomes[row.number] = (
                Outcome.of(row.number, ranking)
                if ranking.error is None
                else Outcome.failed(row.number, ranking.error)
            )
        table = with_columns(table, settings.columns, [outcomes[row.number] for row in rows])
        if settings.on_error == "raise":
            return table
        arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
        reasons = [outcomes[row.number].reason for row in rows]
        return table.append_column(f"{settings.prefix}error", arrow.array(reasons, arrow.string()))

    def _rows(self, table: pyarrow.Table) -> list[Row]:
        settings = self._settings
        check_columns(table.schema, settings.query_column, settings.documents_column)
        taken = clash(table.schema.names, settings.columns)
        if taken is not None:
            raise ConfigurationError(taken)
        queries = table.column(settings.query_column).to_pylist()
        lists = table.column(settings.documents_column).to_pylist()
        rows = [
            checked_row(number, query, documents, f"row {number} of its batch")
            for number, (query, documents) in enumerate(zip(queries, lists, strict=True))
        ]
        bad = next((row.error for row in rows if row.error is not None), None)
        if bad is not None and settings.on_error == "raise":
            raise ConfigurationError(bad)
        return rows
