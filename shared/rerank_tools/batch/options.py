"""The options of a file job, and which of them decide its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rerank_core._support.checks import checked_count, checked_seconds
from rerank_core.errors import ConfigurationError
from rerank_core.registry import as_scorer, load_scorer
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection, check_selection

__all__ = ["BatchOptions", "Engine"]

Engine = Literal["auto", "process", "ray"]
"""Where a job runs; ``"auto"`` is Ray where more than one worker is asked for and Ray is installed."""


@dataclass(frozen=True)
class BatchOptions:
    """How a file is reranked.

    A job that was interrupted goes on with the same options, but for ``max_cost`` and those from ``timeout`` on.

    Attributes:
        model: a scorer, or a name for :func:`rerank_core.load_scorer`.
        model_options: further options of a scorer that is given by name.
        query_column: column of the queries: strings.
        documents_column: column of the candidates: lists of strings, in the first stage's order.
        selection: which candidates are named in the result.
        prefix: written before ``indices``, ``scores`` and ``usage``, the columns that are added.
        rows_per_part: rows of an output file, at least 1; as many are in memory, twice at most in each worker.
        max_cost: US dollars that the job may cost, of all its runs together, at least 0; None for no limit.
        timeout: seconds that a row may take, above 0; None for no limit.
        rows_at_once: rows under way in each worker, at least 1.
        engine: ``"process"`` for this process, ``"ray"``, or ``"auto"``.
        workers: processes on Ray, at least 1, each with a model of its own.
        cpus_per_worker: cores of each, at least 1; also the threads of a local model that was given none.
        gpus_per_worker: GPUs of each, at least 0; a fraction shares one.

    Raises:
        ConfigurationError: an option is out of its range, or the scorer's name is unknown.
        MissingExtraError: the scorer needs a package that is not installed.
    """

    model: str | Scorer = "embedded"
    model_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    query_column: str = "query"
    documents_column: str = "documents"
    selection: Selection = field(default_factory=Selection)
    prefix: str = ""
    rows_per_part: int = 1000
    max_cost: float | None = None
    timeout: float | None = None
    rows_at_once: int = 64
    engine: Engine = "auto"
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rows_per_part", "rows_at_once", "workers", "cpus_per_worker"):
            checked_count(name, getattr(self, name), least=1)
        for name, wanted in (("max_cost", "US dollars"), ("gpus_per_worker", "a number of GPUs")):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0
            ):
                raise ConfigurationError(f"{name} is {value!r}: give {wanted}, at least 0")
        if self.timeout is not None:
            checked_seconds("timeout", self.timeout)
        if self.engine not in get_args(Engine):
            raise ConfigurationError(f"engine is {self.engine!r}: give one of {', '.join(get_args(Engine))}")
        check_selection(self.selection)
        if self.model_options and not isinstance(self.model, str):
            raise ConfigurationError("model is a scorer, which has its options: leave out model_options=")
        self.scorer()

    def scorer(self) -> Scorer:
        """Return a scorer with these options; weights and connections wait for its first call."""
        if isinstance(self.model, str):
            return load_scorer(self.model, **self.model_options)
        return as_scorer(self.model)

    @property
    def columns(self) -> tuple[str, str, str]:
        """Names of the columns that are added."""
        return f"{self.prefix}indices", f"{self.prefix}scores", f"{self.prefix}usage"

    def deciding(self) -> dict[str, Any]:
        """Return what decides the result, as JSON holds it; no key is in it.

        Raises:
            ConfigurationError: the scorer has an option that means nothing in another process.
        """
        scorer = self.scorer()
        try:
            fingerprint = scorer.cache_key()
        except ConfigurationError as exc:
            raise ConfigurationError(f"no later run could tell whether it has the same scorer: {exc}") from None
        return {
            "model": scorer.name,
            "fingerprint of the model": fingerprint,
            "query_column": self.query_column,
            "documents_column": self.documents_column,
            "selection": asdict(self.selection),
            "prefix": self.prefix,
            "rows_per_part": self.rows_per_part,
        }
