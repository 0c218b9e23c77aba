"""Splitting a call into requests that a service takes, and counting what Cohere bills them by. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rerank_core.model_facts import Limits

_UNIT_DOCUMENTS = 100
_UNIT_DOCUMENT_TOKENS = 500


def count_search_units(pair_tokens: Iterable[int]) -> int:
    """Return the search units of one request: Cohere bills a query with up to 100 documents as one.

    A document counts once for each 500 tokens that it has together with the query: ``pair_tokens``.

    >>> count_search_units([60] * 100), count_search_units([60] * 99 + [501])
    (1, 2)
    """
    return math.ceil(sum(math.ceil(tokens / _UNIT_DOCUMENT_TOKENS) for tokens in pair_tokens) / _UNIT_DOCUMENTS)


def split(query: int, documents: Sequence[int], limits: Limits) -> list[range]:
    """Return which documents go into which request, in order, each within the limits.

    As few requests as the limits allow, of about equal size. A document that exceeds the limit of tokens by
    itself gets a request of its own, because the service may cut it.

    >>> split(10, [100] * 5, Limits(documents=2))
    [range(0, 2), range(2, 4), range(4, 5)]
    >>> split(10, [100] * 5, Limits(tokens=330))
    [range(0, 3), range(3, 5)]
    """
    if not documents:
        return []
    size = _even_size(len(documents), limits)
    if limits.tokens is None or (query + max(documents)) * size <= limits.tokens:
        return [range(start, min(start + size, len(documents))) for start in range(0, len(documents), size)]
    ranges: list[range] = []
    start, tokens = 0, 0
    for position, document in enumerate(documents):
        more = query + document  # whole: services count before they cut
        if position > start and (tokens + more > limits.tokens or position - start == size):
            ranges.append(range(start, position))
            start, tokens = position, 0
        tokens += more
    return [*ranges, range(start, len(documents))]


def _even_size(documents: int, limits: Limits) -> int:
    requests = -(-documents // limits.documents)
    size = -(-documents // requests)
    rounded = -(-size // limits.multiple) * limits.multiple
    return rounded if rounded <= limits.documents else limits.documents
