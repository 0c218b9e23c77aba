"""What an evaluation says about two options: where to cut, and how many candidates to rerank."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_core.evaluation.results import EvaluationResult

__all__ = [
    "ThresholdPoint",
    "ThresholdSuggestion",
    "TopKPoint",
    "TopKSuggestion",
    "suggest_threshold",
    "suggest_top_k",
]


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """What a threshold would keep, over all queries.

    Attributes:
        threshold: keep score ≥ this.
        precision: share of the kept documents that are relevant.
        recall: share of the relevant candidates that are kept.
        kept: documents kept a query, on average.
    """

    threshold: float
    precision: float
    recall: float
    kept: float


@dataclass(frozen=True, slots=True)
class ThresholdSuggestion:
    """The lowest threshold that reaches a precision, and the whole curve.

    Attributes:
        system: whose scores these are.
        target_precision: what was asked for.
        threshold: for ``Selection(score_threshold=…)``; None where no threshold reaches the target.
        precision: at the threshold, on these queries; None without one.
        precision_interval: 95 % bootstrap interval over queries; None without a threshold.
        recall: at the threshold, of the relevant candidates; None without one.
        kept: documents kept a query, on average; None without a threshold.
        curve: by falling threshold; precision, recall and documents kept.
        queries: how many queries this rests on.
        enough: False where the data cannot carry the suggestion; ``note`` says why.
        note: what to know before using it.
    """

    system: str
    target_precision: float
    threshold: float | None
    precision: float | None
    precision_interval: tuple[float, float] | None
    recall: float | None
    kept: float | None
    curve: tuple[ThresholdPoint, ...]
    queries: int
    enough: bool
    note: str


@dataclass(frozen=True, slots=True)
class TopKPoint:
    """What reranking only the first stage's best ``top_k`` would give.

    Attributes:
        top_k: candidates reranked.
        mean: the measure's mean over queries.
        remaining: how much reranking all candidates would add to it.
        remaining_interval: 95 % bootstrap interval of that, paired by query; None with fewer than two queries.
    """

    top_k: int
    mean: float
    remaining: float
    remaining_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class TopKSuggestion:
    """The depth beyond which more candidates stop helping, and the whole curve.

    Attributes:
        system: whose scores these are.
        measure: what "helping" is measured by.
        tolerance: gains up to this count as none.
        top_k: for the first stage.
        mean: the measure's mean at that depth.
        curve: by rising depth.
        queries: how many queries this rests on.
        enough: False where the data cannot carry the suggestion; ``note`` says why.
        note: what to know before using it.
    """

    system: str
    measure: str
    tolerance: float
    top_k: int
    mean: float
    curve: tuple[TopKPoint, ...]
    queries: int
    enough: bool
    note: str


def suggest_threshold(
    results: EvaluationResult, *, target_precision: float = 0.8, system: str | None = None
) -> ThresholdSuggestion:
    """Suggest the lowest threshold at which enough of what is kept is relevant."""
    raise NotImplementedError


def suggest_top_k(
    results: EvaluationResult,
    *,
    measure: str | None = None,
    tolerance: float = 0.005,
    system: str | None = None,
) -> TopKSuggestion:
    """Suggest how many candidates to rerank: the depth beyond which more of them stop helping."""
    raise NotImplementedError
