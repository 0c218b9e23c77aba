"""One reranking core: scoring, thresholding and batching behind one call.

Importing this package loads no SDK, no torch and no framework.
"""

from rerank_core.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    MissingExtraError,
    MissingKeyError,
    RateLimitError,
    RequestTooLargeError,
    RerankError,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)
from rerank_core.registry import load_scorer
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.search import SearchResult, atwo_stage_search, two_stage_search
from rerank_core.selection import Selection
from rerank_core.telemetry import CallReport, on_usage
from rerank_core.types import Attempt, Passage, RankedDocument, Ranking, Scored
from rerank_core.usage import Usage

__all__ = [
    "Attempt",
    "AuthenticationError",
    "CallReport",
    "ConfigurationError",
    "InvalidResponseError",
    "MissingExtraError",
    "MissingKeyError",
    "Passage",
    "RankedDocument",
    "Ranking",
    "RateLimitError",
    "RequestTooLargeError",
    "RerankError",
    "Reranker",
    "Scored",
    "Scorer",
    "ScorerError",
    "ScorerTimeoutError",
    "ScorerUnavailableError",
    "SearchResult",
    "Selection",
    "Usage",
    "atwo_stage_search",
    "load_scorer",
    "on_usage",
    "two_stage_search",
]
