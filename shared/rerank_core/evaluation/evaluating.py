"""Measure rerankers behind a first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rerank_core.evaluation.dataset import Dataset
from rerank_core.evaluation.first_stage import Search
from rerank_core.evaluation.results import EvaluationResult
from rerank_core.reranker import Reranker
from rerank_core.scorers.base import Scorer

__all__ = ["evaluate"]


def evaluate(
    rerankers: Mapping[str, Reranker | Scorer | str] | Sequence[Scorer | str],
    dataset: Dataset | str | Path,
    *,
    first_stage: str | Path | Mapping[str, Mapping[str, float]] | Search = "bm25",
    k: int = 10,
    top_k: int = 100,
    measures: Sequence[str] | None = None,
    save_to: str | Path | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Measure rerankers behind a first stage."""
    raise NotImplementedError
