"""What a row costs at most, and about, before it is sent. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rerank_core._call.request import separate_distinct
from rerank_core.local.scorer import LocalScorer
from rerank_core.policies.base import Policy
from rerank_core.policies.cached import Cached
from rerank_core.policies.calibrated import Calibrated
from rerank_core.policies.cascade import Cascade
from rerank_core.policies.fallback import Fallback
from rerank_core.policies.hedged import Hedged
from rerank_core.reading import estimate_tokens
from rerank_core.remote.splitting import count_search_units, split
from rerank_core.scorer import Scorer

if TYPE_CHECKING:
    from rerank_core.remote.scorer import RemoteScorer

__all__ = ["most_tokens", "row_cost"]

Count = Callable[[str], int]

_ONCE = (Cached, Calibrated, Cascade, Fallback, Hedged)
"""Policies that give each of their scorers a text once at most, and as it is."""

_SPECIAL_TOKENS = 4


def most_tokens(text: str) -> int:
    """Return a number of tokens that no text exceeds: one a byte of UTF-8, and those that stand around a text."""
    return (len(text) if text.isascii() else len(text.encode(errors="replace"))) + _SPECIAL_TOKENS


def row_cost(scorer: Scorer, query: str, documents: Sequence[str], count: Count = estimate_tokens) -> float | None:
    """Return what scoring a row costs, in US dollars; None where no price is known.

    A policy that may ask several scorers costs what all of them do.

    Args:
        scorer: who is asked.
        query: the query.
        documents: the candidates; blank and repeated ones cost nothing.
        count: returns the tokens of a text.
    """
    return _cost(scorer, query, separate_distinct(documents)[0], count)


def _cost(scorer: Scorer, query: str, texts: list[str], count: Count) -> float | None:
    if isinstance(scorer, LocalScorer) or not texts:
        return 0.0
    if isinstance(scorer, Policy):
        costs = [_cost(inner, query, texts, count) for inner in scorer.scorers]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs) or (any(known) and not isinstance(scorer, _ONCE)):
            return None
        return math.fsum(known)
    from rerank_core.remote.scorer import RemoteScorer  # brings pydantic

    return _service_cost(scorer, query, texts, count) if isinstance(scorer, RemoteScorer) else None


def _service_cost(scorer: RemoteScorer, query: str, texts: list[str], count: Count) -> float | None:
    price, limits = scorer.price, scorer.model_facts.limits
    if price is None:
        return None
    query_tokens = count(scorer.full_query(query))
    read = [limits.tokens_read(query_tokens, count(text)) for text in texts]
    by_units = price.per_1k_search_units is not None
    batches = split(0, [0] * len(texts), limits) if by_units else []
    units = sum(count_search_units(read[position] for position in batch) for batch in batches)
    return price.cost(search_units=units, tokens=sum(read))
