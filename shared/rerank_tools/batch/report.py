"""What a file job says: before it runs, while it runs, and when it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rerank_core.usage import Usage

__all__ = ["BatchPlan", "BatchReport", "Progress"]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What is left to do, and what it may cost.

    Attributes:
        rows: rows of the input.
        finished: rows that an earlier run finished.
        bad: rows left that cannot be reranked, because a column is missing or holds something else.
        documents: candidates that are left to score, without blank and repeated ones.
        spent: US dollars that earlier runs cost, None where unknown.
        cost: US dollars that the rest will cost by our estimate of tokens, None where no price is known.
        cost_at_most: an upper bound of ``cost``: every byte of text counted as a token, up to what the model
            reads. Requests that have to be repeated are not in it.
    """

    rows: int
    finished: int
    bad: int
    documents: int
    spent: float | None
    cost: float | None
    cost_at_most: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: rows of the input.
        done: rows that are finished or failed, those of earlier runs too.
        failed: rows of these that failed.
        seconds: since this run began.
        rows_per_second: of this run, 0.0 before its first row.
        cost: US dollars so far, of all runs, None where unknown.
    """

    rows: int
    done: int
    failed: int
    seconds: float
    rows_per_second: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a run ended.

    Attributes:
        rows: rows of the input.
        finished: rows with a result, those of earlier runs too.
        failed: rows in ``errors/``.
        resumed: rows of ``finished`` that an earlier run had finished.
        usage: what this run consumed.
        cost: US dollars of all runs, None where unknown.
        seconds: of this run.
        stopped: why it ended before its last row, None where it did not.
        engine: ``"process"`` or ``"ray"``.
        output: the folder: results in ``rows/``, failures in ``errors/``.
    """

    rows: int
    finished: int
    failed: int
    resumed: int
    usage: Usage = field(repr=False)
    cost: float | None
    seconds: float
    stopped: str | None
    engine: str
    output: Path

    @property
    def ok(self) -> bool:
        """Whether every row has a result."""
        return self.finished == self.rows
