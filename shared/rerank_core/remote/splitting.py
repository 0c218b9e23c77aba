"""Splitting a call into requests that a service takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Limits", "split"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service takes in one request; None where there is no limit, or none known.

    Attributes:
        documents: documents in a request, at least 1.
        multiple: a request that is not the last holds a multiple of this many documents, where it can.
        tokens: tokens in a request, the query counted once a document.
        pair: tokens of the query and one document together that the model reads.
        document: tokens of one document that the model reads.
    """

    documents: int = 1000
    multiple: int = 1
    tokens: int | None = None
    pair: int | None = None
    document: int | None = None

    def read(self, query: int, document: int) -> int:
        """Return how many tokens of a query and a document, of these lengths, the model reads."""
        if self.document is not None:
            document = min(document, self.document)
        return query + document if self.pair is None else min(query + document, self.pair)


def split(query: int, documents: Sequence[int], limits: Limits) -> list[range]:
    """Return which documents go into which request, in order, each within the limits.

    As few requests as the limits allow, of about equal size. A document that exceeds the limit of tokens by
    itself gets a request of its own, because the service may cut it.

    Args:
        query: tokens of the query.
        documents: tokens of each document.
        limits: of one request.

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
