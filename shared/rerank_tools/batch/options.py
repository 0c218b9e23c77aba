"""The options of a batch, and which of them decide its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rerank_core._support.checks import check_amount, check_choice, check_count, check_seconds
from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.registry import as_scorer, load_scorer
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection, check_selection
from rerank_tools.batch.rows import Columns

BatchEngine = Literal["auto", "process", "ray"]
"""Where a batch runs: ``"auto"`` is Ray where more than one worker is asked for."""


@dataclass(frozen=True)
class BatchOptions:
    """How the rows of a file are reranked.

    To resume, pass the same options; only ``max_cost``, ``timeout`` and the options after it may change.

    Attributes:
        model: a scorer, or a name for :func:`rerank_core.load_scorer`.
        model_options: further options of a scorer that is given by name.
        query_column: the column of the queries: strings.
        documents_column: the column of the candidates: lists of strings, in the first stage's order.
        selection: which candidates are in the result.
        prefix: put before ``indices``, ``scores`` and ``usage``, the names of the columns that are added.
        rows_per_part: rows of an output file, at least 1. Each worker holds up to twice as many in memory.
        max_cost: US dollars that the service may bill for all runs of the job together, at least 0; None for no
            limit. A row is only sent if the most that it can cost is left: with every request repeated
            ``max_retries`` times, both requests of a hedge, and a token per byte of text.
        timeout: seconds that a row may take, above 0; None for no limit.
        rows_at_once: rows under way in each worker, at least 1.
        engine: ``"process"`` for this process, ``"ray"``, or ``"auto"``.
        workers: processes on Ray, at least 1, each with a model of its own.
        cpus_per_worker: cores of each, at least 1; also the threads of a local model without a number of its own.
        gpus_per_worker: GPUs of each, at least 0; workers share a GPU where it is a fraction.

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
    engine: BatchEngine = "auto"
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rows_per_part", "rows_at_once", "workers", "cpus_per_worker"):
            check_count(name, getattr(self, name))
        check_amount("gpus_per_worker", self.gpus_per_worker, unit="a number of GPUs")
        if self.max_cost is not None:
            check_amount("max_cost", self.max_cost, unit="US dollars")
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
        check_choice("engine", self.engine, get_args(BatchEngine))
        check_selection(self.selection)
        if self.model_options and not isinstance(self.model, str):
            raise ConfigurationError("model is a scorer, which has its options: leave out model_options=")
        self.make_scorer()

    def make_scorer(self) -> Scorer:
        """Return a scorer with these options; its first call loads weights and opens connections."""
        if isinstance(self.model, str):
            return load_scorer(self.model, **self.model_options)
        return as_scorer(self.model)

    @property
    def columns(self) -> Columns:
        """Names of the columns that are read and added."""
        added = (f"{self.prefix}indices", f"{self.prefix}scores", f"{self.prefix}usage")
        return Columns(self.query_column, self.documents_column, added)

    def choose_engine(self) -> Literal["process", "ray"]:
        """Return where the job runs, which is refused where that is Ray without the package."""
        if self.engine == "process" or (self.engine == "auto" and self.workers == 1):
            return "process"
        check_installed("ray", "pyarrow", extra="ray", purpose=f"engine={self.engine!r}, workers={self.workers}")
        return "ray"

    def fingerprint_options(self) -> dict[str, Any]:
        """Return the options that decide the result, as JSON takes them; no key is among them."""
        scorer = self.make_scorer()
        try:
            fingerprint = scorer.cache_key()
        except ConfigurationError as exc:
            raise ConfigurationError(f"a later run could not tell whether it has the same scorer: {exc}") from None
        names = ("query_column", "documents_column", "prefix", "rows_per_part")
        return {
            "model": scorer.name,
            "fingerprint of the model": fingerprint,
            "selection": asdict(self.selection),
            **{name: getattr(self, name) for name in names},
        }
