"""Choosing by numbers: rerankers measured behind a first stage, on one's own data.

Needs the extra ``eval``.
"""

from rerank_tools.evaluation.calibrate import acalibrate, calibrate
from rerank_tools.evaluation.dataset import Dataset, load_dataset
from rerank_tools.evaluation.evaluate import evaluate
from rerank_tools.evaluation.first_stage import FirstStage, Search
from rerank_tools.evaluation.results import EvaluationResult, QueryResult, SystemResult
from rerank_tools.evaluation.suggest import (
    CandidatesPoint,
    CandidatesSuggestion,
    Suggestion,
    ThresholdPoint,
    ThresholdSuggestion,
    WeightPoint,
    WeightSuggestion,
    suggest_candidates,
    suggest_retrieval_weight,
    suggest_threshold,
)

__all__ = [
    "CandidatesPoint",
    "CandidatesSuggestion",
    "Dataset",
    "EvaluationResult",
    "FirstStage",
    "QueryResult",
    "Search",
    "Suggestion",
    "SystemResult",
    "ThresholdPoint",
    "ThresholdSuggestion",
    "WeightPoint",
    "WeightSuggestion",
    "acalibrate",
    "calibrate",
    "evaluate",
    "load_dataset",
    "suggest_candidates",
    "suggest_retrieval_weight",
    "suggest_threshold",
]
