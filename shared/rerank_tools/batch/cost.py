"""What a row costs, before it is sent, and a cap on what a job spends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rerank_core._call.request import separate_distinct
from rerank_core.local.scorer import LocalScorer
from rerank_core.policies.base import Policy
from rerank_core.policies.cached import Cached
from rerank_core.policies.calibrated import Calibrated
from rerank_core.policies.cascade import Cascade
from rerank_core.policies.fallback import Fallback
from rerank_core.policies.hedged import Hedged
from rerank_core.policies.windowed import Windowed
from rerank_core.reading import estimate_reading, estimate_tokens
from rerank_core.remote.splitting import count_search_units, split
from rerank_core.scorer import Scorer

if TYPE_CHECKING:
    from rerank_core.remote.scorer import RemoteScorer

_KNOWN_POLICIES = (Cached, Calibrated, Cascade, Fallback, Hedged, Windowed)
"""Policies of which it is known what they send: each text, or each window, once to each scorer (Hedged: twice)."""

_ROUNDING = 1e-9


def row_cost(
    scorer: Scorer,
    query: str,
    documents: Sequence[str],
    count_tokens: Callable[[str], int] = estimate_tokens,
    *,
    with_repeats: bool = False,
) -> float | None:
    """Return what scoring a row costs in US dollars; None where no price is known.

    A policy costs what all of its scorers cost together. With repeats, each request counts as often as it may be
    sent, and so do both requests of a hedge: with :func:`max_tokens`, that is the most that can be billed.
    """
    return _texts_cost(scorer, query, separate_distinct(documents)[0], count_tokens, with_repeats=with_repeats)


def _texts_cost(
    scorer: Scorer, query: str, texts: list[str], count_tokens: Callable[[str], int], *, with_repeats: bool
) -> float | None:
    from rerank_core.remote.scorer import RemoteScorer  # brings pydantic

    if isinstance(scorer, LocalScorer) or not texts:
        return 0.0
    if isinstance(scorer, RemoteScorer):
        attempts = 1 + scorer.options.max_retries if with_repeats else 1
        cost = _service_cost(scorer, query, texts, count_tokens)
        return None if cost is None else cost * attempts
    if not isinstance(scorer, Policy):
        return None
    if isinstance(scorer, Windowed):
        texts = _cut_windows(scorer, query, texts)
    costs = [_texts_cost(inner, query, texts, count_tokens, with_repeats=with_repeats) for inner in scorer.scorers]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs) or (any(known) and not isinstance(scorer, _KNOWN_POLICIES)):
        return None
    return math.fsum(known) * (2 if with_repeats and isinstance(scorer, Hedged) else 1)


def _cut_windows(scorer: Windowed, query: str, texts: list[str]) -> list[str]:
    """Return the windows that a service is sent; a local scorer's need not be known, because they cost nothing."""
    from rerank_core.remote.scorer import RemoteScorer

    reader = scorer.reader
    if isinstance(reader, LocalScorer):
        return texts
    limit = reader.max_text_tokens(query) if isinstance(reader, RemoteScorer) else None
    return scorer.plan(texts, estimate_reading(texts, scorer.window_request, limit)).parts


def _service_cost(
    scorer: RemoteScorer, query: str, texts: list[str], count_tokens: Callable[[str], int]
) -> float | None:
    price, limits = scorer.price, scorer.model_facts.limits
    if price is None:
        return None
    full_query = scorer.full_query(query)
    query_tokens = count_tokens(full_query)
    read = [limits.tokens_read(query_tokens, count_tokens(text)) for text in texts]
    units = 0.0
    if price.per_1k_search_units is not None:
        sent = [0 if limits.tokens is None else estimate_tokens(text) for text in [full_query, *texts]]
        requests = split(sent[0], sent[1:], limits)
        units = sum(count_search_units(read[position] for position in request) for request in requests)
    return price.cost(search_units=units, tokens=sum(read))


class SpendingCap:
    """Limits what the rows of a job cost together; belongs to one event loop.

    The most that a row may cost is reserved before the row is sent, and replaced by its actual cost afterwards. So
    the cap holds however many rows are under way, as long as no row costs more than was reserved for it. A row
    that does not fit waits while reservations for other rows are open, because those rows may turn out cheaper.
    What each part has cost already counts, too; an infinite cap is none.
    """

    def __init__(self, max_cost: float, spent: Mapping[int, float]) -> None:
        self._max_cost = max_cost
        self._spent = dict(spent)
        self._reserved: dict[int, float] = {}
        self._total = sum(self._spent.values())
        self._exhausted = False
        self._changed = asyncio.Condition()

    async def begin(self, part: int, spent: float) -> None:
        """Report what a part has cost so far; reservations of a killed worker for it are released."""
        async with self._changed:
            self._reserved.pop(part, None)
            self._total += spent - self._spent.get(part, 0.0)
            self._spent[part] = spent
            self._changed.notify_all()

    async def reserve(self, part: int, amount: float) -> bool:
        """Reserve the most that a row may cost; False where the cap has no room for it, or for any later row."""
        async with self._changed:
            while not self._exhausted and not self._fits(amount) and self._total_reserved() > _ROUNDING:
                await self._changed.wait()
            if self._exhausted or not self._fits(amount):
                self._exhausted = True
                self._changed.notify_all()
                return False
            self._reserved[part] = self._reserved.get(part, 0.0) + amount
            return True

    async def settle(self, part: int, reserved: float, cost: float) -> None:
        """Replace a reservation by what the row did cost."""
        async with self._changed:
            self._reserved[part] = max(0.0, self._reserved.get(part, 0.0) - reserved)
            self._spent[part] = self._spent.get(part, 0.0) + cost
            self._total += cost
            self._changed.notify_all()

    def _fits(self, amount: float) -> bool:
        return self._total + self._total_reserved() + amount <= self._max_cost + _ROUNDING

    def _total_reserved(self) -> float:
        return sum(self._reserved.values())
