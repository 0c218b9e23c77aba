"""What an evaluation found: one result a system, all of them beside the first stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_tools.evaluation._runs import decreasing, save_run

from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["EvaluationResult", "QueryResult", "SystemResult"]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a system did with one query.

    Attributes:
        candidates: ids of the documents that it got, in the first stage's order.
        scores: one a candidate, of those that did not survive too; None where nothing was scored.
        ranked: ids of the documents that survived its selection, best first.
        ranked_scores: one a surviving document, in that order.
        seconds: wall-clock time of the call; None where nothing was called.
        usage: what the call consumed.
        model: who answered.
        error: why nothing was scored (``on_error="passthrough"``), else None.
    """

    candidates: tuple[str, ...]
    scores: tuple[float | None, ...]
    ranked: tuple[str, ...]
    ranked_scores: tuple[float | None, ...]
    seconds: float | None
    usage: Usage
    model: str
    error: str | None = None

    @property
    def run(self) -> dict[str, float]:
        """Score of each surviving document as it was measured, falling strictly."""
        return dict(zip(self.ranked, decreasing(self.ranked_scores), strict=True))


@dataclass(frozen=True, slots=True)
class SystemResult:
    """How one system did: the first stage alone, or a reranker behind it.

    Attributes:
        name: as the caller named it; the first stage's is that of :attr:`EvaluationResult.first_stage`.
        measures: mean over the judged queries of each measure, by the measure's name, such as ``"nDCG@10"``.
        per_query: the values that were averaged: measure, then query id.
        intervals: 95 % bootstrap interval of each mean, over queries; None with fewer than two queries.
        p_values: for each measure, how likely a difference from the first stage at least this large is by
            chance, corrected for the number of rerankers; empty for the first stage, None with fewer than two
            queries.
        latency_p50: median seconds of the calls, one at a time, the first stage's time apart; None where
            nothing was called.
        latency_p95: the 95th percentile of the same.
        usage: what all queries consumed, those answered by an earlier, interrupted evaluation too.
        queries: what it did with each query, by query id.
        listwise: True where a score depends on the other candidates.
    """

    name: str
    measures: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, tuple[float, float] | None]
    p_values: Mapping[str, float | None]
    latency_p50: float | None
    latency_p95: float | None
    usage: Usage
    queries: Mapping[str, QueryResult]
    listwise: bool = False

    @property
    def run(self) -> dict[str, dict[str, float]]:
        """The ranking of each query as it was measured: query id, document id, score.

        Scores fall strictly, in single precision too, so that a tool that orders by score finds our order.
        """
        return {query: result.run for query, result in self.queries.items()}

    @property
    def failures(self) -> dict[str, str]:
        """Queries that could not be scored and kept the first stage's order, and why."""
        return {query: result.error for query, result in self.queries.items() if result.error is not None}


@dataclass(frozen=True, slots=True, repr=False)
class EvaluationResult:
    """The first stage and every reranker behind it, measured on the same queries.

    Attributes:
        dataset: the data set's name.
        first_stage: name of the first system, which the others are compared with.
        measures: names of the measures, in the order asked for.
        top_k: how many candidates the first stage gave at most.
        qrels: the judgements: query id, document id, grade; above 0 is relevant.
        systems: the first stage, then the rerankers in the caller's order.
        test: how p-values were computed.
        resumed: calls that an earlier evaluation had made already, and that were not repeated.
    """

    dataset: str
    first_stage: str
    measures: tuple[str, ...]
    top_k: int
    qrels: Mapping[str, Mapping[str, int]]
    systems: tuple[SystemResult, ...]
    test: str
    resumed: int = 0

    @property
    def baseline(self) -> SystemResult:
        """The first stage alone."""
        return self.systems[0]

    @property
    def rerankers(self) -> tuple[SystemResult, ...]:
        """The systems behind the first stage."""
        return self.systems[1:]

    def __repr__(self) -> str:
        names = ", ".join(system.name for system in self.systems)
        return (
            f"<EvaluationResult of {self.dataset}: {names}; {len(self.qrels)} queries, {', '.join(self.measures)}>"
        )

    def __getitem__(self, name: str) -> SystemResult:
        for system in self.systems:
            if system.name == name:
                return system
        known = ", ".join(repr(system.name) for system in self.systems)
        raise ConfigurationError(f"no system is called {name!r}: there are {known}")

    def to_table(self) -> Table:
        """Return a table for a terminal: print it with rich.

        Raises:
            MissingExtraError: rich is not installed.
        """
        from rerank_tools.evaluation import _report

        return _report.table(self)

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        from rerank_tools.evaluation import _report

        return _report.markdown(self)

    def to_html(self) -> str:
        """Return an HTML table, names escaped."""
        from rerank_tools.evaluation import _report

        return _report.html(self)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rankings as plain values; no document's text is in it."""
        from rerank_tools.evaluation import _report

        return _report.as_dict(self)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        from rerank_tools.evaluation import _report

        return _report.json_text(self)

    def save_runs(self, folder: str | Path) -> dict[str, Path]:
        """Write each system's ranking as a TREC run file, which evaluation tools read.

        Args:
            folder: made where it is missing; files of the same name are replaced.

        Returns:
            The path of each system's file, by the system's name.
        """
        return save_run({system.name: system.run for system in self.systems}, Path(folder))
