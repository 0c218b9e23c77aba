"""Batching: what goes into one pass of a model, and whether what came out can be trusted. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from rerank_core.errors import InvalidResponseError

__all__ = [
    "Limits",
    "Scale",
    "batch_end",
    "checked_probabilities",
    "estimate_tokens",
    "least_tokens",
    "scores_by_index",
    "sigmoid",
    "split",
]

Scale = Literal["probability", "logit"]

_BATCH_COST = 64
"""A batch of so many tokens at most costs about one token for each of these, whatever is in it: 16 of 1,024."""

_ROUNDING = 1e-6
"""How far a probability may leave [0, 1]: single-precision sums of a softmax do, by a few ulp."""


def batch_end(
    lengths: Sequence[int],
    start: int,
    budget: int,
    *,
    longest: int | None = None,
    count: int = 0,
    padding: int = 0,
) -> int:
    """Return where what goes into a batch from ``start`` on ends, in sequences sorted longest first.

    All sequences of a batch are padded to its longest, so a batch of ``n`` costs ``n × longest`` tokens. Sequences
    are taken while the budget of padded tokens allows it and while padding them costs less than beginning another
    batch does: a 64th of the budget, measured. The first sequence of a batch is always taken.

    Args:
        lengths: tokens of each sequence.
        start: the first one that may be taken, at most ``longest`` tokens long.
        budget: padded tokens of a batch, at least 1.
        longest: tokens of the batch's longest sequence; by default the one at ``start``.
        count: sequences that the batch has already.
        padding: tokens that those are padded with.

    >>> batch_end([300, 200, 128, 128, 100], 0, budget=512), batch_end([100, 99, 98, 20], 0, budget=512)
    (1, 3)
    """
    if longest is None:
        longest = lengths[start]
    longest = max(1, longest)
    most = min(len(lengths), start + max(0 if count else 1, budget // longest - count))
    for end in range(start, most):
        padding += longest - max(1, lengths[end])
        if padding > budget // _BATCH_COST:
            return end
    return most


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


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text makes: one for every three bytes of UTF-8, at least 1.

    English makes about a quarter fewer, Chinese and Japanese about as many: an estimate on the safe side for a
    limit, of the right size for a budget.
    """
    return max(1, -(-(len(text) if text.isascii() else len(text.encode(errors="replace"))) // 3))


def least_tokens(text: str) -> int:
    """Return how many tokens a text certainly makes: no tokenizer merges words across white space."""
    return len(text.split())


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


def scores_by_index(rows: Iterable[tuple[object, object]], *, expected: int, scorer: str) -> list[object]:
    """Return the scores of an answer in the order of the request, matched by index, not yet checked themselves.

    Raises:
        InvalidResponseError: an index that is no whole number, out of range, or there twice; or one missing.
    """
    scores: dict[int, object] = {}
    for index, score in rows:
        if isinstance(index, bool) or not isinstance(index, int):
            raise InvalidResponseError(
                f"{scorer} returned an index that is a {type(index).__name__}: nothing can be ranked from that"
            )
        if not 0 <= index < expected:
            raise InvalidResponseError(f"{scorer} returned index {index} for {expected} texts: it does not exist")
        if index in scores:
            raise InvalidResponseError(f"{scorer} returned index {index} twice: one of the two must be wrong")
        scores[index] = score
    if len(scores) != expected:
        raise InvalidResponseError(
            f"{scorer} returned {len(scores)} scores for {expected} texts: nothing can be ranked from that"
        )
    return [scores[index] for index in range(expected)]


def sigmoid(logit: float) -> float:
    """Return the logistic function of a logit, in [0, 1], without overflow at either end."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    exp = math.exp(logit)
    return exp / (1.0 + exp)


def checked_probabilities(scores: Sequence[object], *, expected: int, scale: Scale, scorer: str) -> list[float]:
    """Return a scorer's answer as Python floats in [0, 1], in the same order.

    Raises:
        InvalidResponseError: too few or too many scores, one that is no number, NaN or infinite, or a
            probability outside [0, 1] by more than 1e-6.
    """
    if not isinstance(scores, Sized):
        raise InvalidResponseError(f"{scorer} returned a {type(scores).__name__}: a list of scores was expected")
    if len(scores) != expected:
        raise InvalidResponseError(
            f"{scorer} returned {len(scores)} scores for {expected} texts: nothing can be ranked from that"
        )
    numbers = [_finite(score, index, scorer) for index, score in enumerate(scores)]
    if scale == "logit":
        return [sigmoid(number) for number in numbers]
    for index, number in enumerate(numbers):
        if not 0.0 <= number <= 1.0:
            if not -_ROUNDING <= number <= 1.0 + _ROUNDING:
                raise InvalidResponseError(
                    f"{scorer} returned {number!r} for text {index}, outside [0, 1]: "
                    "if it returns logits, its scale must be 'logit'"
                )
            numbers[index] = min(1.0, max(0.0, number))
    return numbers


def _finite(score: object, index: int, scorer: str) -> float:
    if type(score) is not float and (isinstance(score, bool) or not isinstance(score, Real)):
        raise InvalidResponseError(
            f"{scorer} returned a {type(score).__name__} for text {index}: a number was expected"
        )
    try:
        number = float(score)
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not math.isfinite(number):
        raise InvalidResponseError(f"{scorer} returned {number!r} for text {index}: a finite number was expected")
    return number
