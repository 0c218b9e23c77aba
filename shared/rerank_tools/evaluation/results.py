"""What an evaluation found: one result per system, all of them beside the first stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_core._support.files import write_atomically
from rerank_core._support.tables import Cell, Column, Table
from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage
from rerank_tools.evaluation.measures import TEST, make_decreasing

_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a system did with one query.

    Attributes:
        candidates: ids of the documents that it got, in the first stage's order.
        scores: one per candidate, also of those that did not survive; None where nothing was scored.
        ranked: ids of the documents that survived its selection, best first.
        ranked_scores: one per surviving document, in that order.
        seconds: wall-clock time of the call; None where nothing was called, or scores were kept from before.
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
        return dict(zip(self.ranked, make_decreasing(self.ranked_scores), strict=True))


@dataclass(frozen=True, slots=True)
class SystemResult:
    """How one system did: the first stage alone, or a reranker behind it.

    Attributes:
        name: the caller's name for it, or :attr:`EvaluationResult.first_stage`.
        measures: mean over the judged queries of each measure, by the measure's name, such as ``"nDCG@10"``.
        per_query: the values that were averaged: measure, then query id.
        intervals: 95 % bootstrap interval of each mean, over queries; None with fewer than two queries.
        p_values: for each measure, how likely a difference from the first stage at least this large is by
            chance, corrected for the number of rerankers; empty for the first stage, None with fewer than two
            queries.
        latency_p50: median of the calls' ``seconds``, one at a time, without the first stage; None without any.
        latency_p95: the 95th percentile of the same.
        usage: what all queries consumed; scores that an earlier evaluation kept count as ``cached``.
        queries: what it did with each query, by query id.
        listwise: True where a score depends on the other candidates.
        ordinal: True where scores only say the order.
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
    ordinal: bool = False

    @property
    def run(self) -> dict[str, dict[str, float]]:
        """The ranking of each query as it was measured: query id, document id, score.

        Scores fall strictly, also in single precision, so that a tool that orders by score finds our order.
        """
        return {query: result.run for query, result in self.queries.items()}

    @property
    def failures(self) -> dict[str, str]:
        """Queries that could not be scored and kept the first stage's order, and why."""
        return {query: result.error for query, result in self.queries.items() if result.error is not None}

    def list_scores(self) -> dict[str, list[tuple[str, float]]]:
        """Return ids and scores of each query's candidates in the first stage's order, without failed queries.

        Raises:
            ConfigurationError: there is none.
        """
        scored = {
            query: [
                (document, score)
                for document, score in zip(answer.candidates, answer.scores, strict=True)
                if score is not None
            ]
            for query, answer in self.queries.items()
            if answer.error is None
        }
        if not any(scored.values()):
            raise ConfigurationError(f"{self.name} scored no candidate of any query: evaluate it first")
        return scored


@dataclass(frozen=True, slots=True, repr=False)
class EvaluationResult:
    """The first stage and every reranker behind it, measured on the same queries.

    Attributes:
        dataset: the data set's name.
        first_stage: name of the first system, with which the others are compared.
        measures: names of the measures, in the order asked for.
        candidates: how many candidates the first stage returned at most.
        qrels: the judgements: query id, document id, grade; above 0 is relevant.
        systems: the first stage, then the rerankers in the caller's order.
    """

    dataset: str
    first_stage: str
    measures: tuple[str, ...]
    candidates: int
    qrels: Mapping[str, Mapping[str, int]]
    systems: tuple[SystemResult, ...]

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

    def choose_reranker(self, name: str | None) -> SystemResult:
        """Return the reranker of a name, or without one the only one.

        Raises:
            ConfigurationError: there is none of that name, or several.
        """
        if name == self.first_stage:
            raise ConfigurationError(f"system is {name!r}, the first stage: give a reranker's name")
        if name is not None:
            return self[name]
        if len(self.rerankers) != 1:
            names = ", ".join(repr(one.name) for one in self.rerankers) or "none"
            raise ConfigurationError(f"the results are of {len(self.rerankers)} rerankers ({names}): give system=")
        return self.rerankers[0]

    def to_table(self) -> Table:
        """Return a table to print with rich; ``to_html``, ``to_markdown`` and ``to_pandas`` make others of it."""
        failed = sum(len(system.failures) for system in self.systems)
        notes = (
            "Ranges: 95 % bootstrap intervals of the means." if len(self.qrels) > 1 else "",
            f"* differs from {self.first_stage}, p < {_LEVEL} ({TEST})." if self.rerankers else "",
            "p50, p95: time per query, reranking alone.",
            f"{failed} calls failed and kept the first stage's order." if failed else "",
        )
        return Table(
            title=f"{self.dataset}: {len(self.qrels)} queries, {self.first_stage}'s top {self.candidates}",
            columns=(
                Column("system"),
                *(Column(measure, align="right") for measure in self.measures),
                Column("p50", "p95", align="right"),
                Column("cost", align="right"),
            ),
            rows=[_make_row(system, self.measures) for system in self.systems],
            note=" ".join(filter(None, notes)),
        )

    def __rich__(self) -> Any:
        return self.to_table().__rich__()

    def _repr_html_(self) -> str:
        return self.to_table().to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rankings as JSON takes it; no document's text is in it."""
        numbers = ("measures", "intervals", "p_values", "latency_p50", "latency_p95", "failures", "per_query")
        return {
            "dataset": self.dataset,
            "first_stage": self.first_stage,
            "candidates": self.candidates,
            "test": TEST,
            "queries": len(self.qrels),
            "measures": list(self.measures),
            "systems": [
                {
                    "name": system.name,
                    **{name: getattr(system, name) for name in numbers},
                    "models": sorted({answer.model for answer in system.queries.values()}),
                    "usage": system.usage.to_dict(),
                }
                for system in self.systems
            ],
        }

    def save_runs(self, folder: str | Path) -> dict[str, Path]:
        """Write each system's ranking as a TREC run file, which evaluation tools read.

        Args:
            folder: made where it is missing; files of the same name are replaced.

        Returns:
            The path of each system's file, by the system's name.

        Raises:
            ConfigurationError: two systems' names give the same file.
            OSError: a file cannot be written.
        """
        paths = {system.name: Path(folder) / f"{make_file_name(system.name)}.run" for system in self.systems}
        if len(set(paths.values())) < len(paths):
            raise ConfigurationError(f"systems {', '.join(map(repr, paths))} would share a file: name them apart")
        for system in self.systems:
            with write_atomically(paths[system.name]) as file:
                for query, scores in system.run.items():
                    for rank, (document, score) in enumerate(scores.items(), start=1):
                        line = f"{query} Q0 {document} {rank} {score!r} {make_file_name(system.name)}\n"
                        file.write(line.encode())
        return paths


def make_file_name(name: str) -> str:
    """Return a name that any file system takes.

    >>> make_file_name("cohere:rerank-v3.5")
    'cohere-rerank-v3.5'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:100] or "system"


def _make_row(system: SystemResult, measures: tuple[str, ...]) -> list[Any]:
    row: list[Any] = [system.name]
    for measure in measures:
        mean, p_value, interval = system.measures[measure], system.p_values.get(measure), system.intervals[measure]
        star = "*" if p_value is not None and p_value < _LEVEL else ""
        detail = "" if interval is None else "–".join(map(_format_bound, interval))
        row.append(Cell(mean, f"{mean:.3f}{star}", detail))
    row.append(Cell(system.latency_p50, _format_seconds(system.latency_p50), _format_seconds(system.latency_p95)))
    cost = system.usage.cost
    return [*row, Cell(cost, "unknown" if cost is None else f"${cost:.4f}" if cost else "$0")]


def _format_bound(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if 0.0 <= value < 1.0 else f"{value:.2f}"


def _format_seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1.0:
        return f"{value:.2f} s"
    return f"{value * 1000.0:.0f} ms" if value >= 0.01 else f"{value * 1000.0:.1f} ms"
