"""From texts to token ids, and from those to the arrays that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rerank_core.scorers.reading import cut_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["encode", "padded", "pair_room", "token_ends"]

_CHARACTERS_PER_TOKEN = 20


def encode(
    tokenizer: Any, texts: Sequence[str], limit: int, *, query: str | None = None, special: bool = True
) -> list[Any]:
    """Return the tokenizer's encodings of texts, or of pairs of a query and a text, in order.

    A tokenizer reads all of a text before it truncates, so only the beginning of a very long one is given to it,
    up to a blank, where no token is torn; it is encoded again as a whole where that gives other tokens.
    """
    ends = limit * _CHARACTERS_PER_TOKEN
    beginnings = [_beginning(text, ends) for text in texts]
    inputs = [_input(query, beginning) for beginning in beginnings]
    encodings: list[Any] = tokenizer.encode_batch(inputs, add_special_tokens=special)
    for index, text in enumerate(texts):
        if len(beginnings[index]) < len(text) and _too_short(encodings[index], limit):
            (encodings[index],) = tokenizer.encode_batch([_input(query, text)], add_special_tokens=special)
    return encodings


def token_ends(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Return where the first tokens of texts end, in characters, as many as ``limit``."""
    usual = tokenizer.truncation
    tokenizer.enable_truncation(limit)
    try:
        return [cut_ends(encoding.offsets) for encoding in encode(tokenizer, texts, limit, special=False)]
    finally:
        tokenizer.enable_truncation(usual["max_length"], strategy=usual["strategy"])


def pair_room(limit: int, query: int, special: int) -> int:
    """Return how many tokens of a text are read beside a query, where the longer one of the two is cut first.

    Args:
        limit: tokens of a pair that are read.
        query: tokens of a pair whose text is empty.
        special: tokens of a pair that belong to neither.

    >>> pair_room(64, 20, 3), pair_room(64, 64, 3)
    (44, 30)
    """
    return max(limit - query, (limit - special) // 2)


def _beginning(text: str, ends: int) -> str:
    blank = text.rfind(" ", 0, ends) if len(text) > ends else 0
    return text[:blank] if blank > 0 else text


def _too_short(encoding: Any, limit: int) -> bool:
    """Tell whether the rest of a text would matter: room is left, or the query was cut as the longer one."""
    sequences = encoding.sequence_ids
    return len(sequences) < limit or 0 < sequences.count(1) < sequences.count(0)


def _input(query: str | None, text: str) -> str | tuple[str, str]:
    return text if query is None else (query, text)


def padded(sequences: Sequence[Sequence[int]], fill: int) -> npt.NDArray[np.int64]:
    """Return the sequences as an array of shape (sequences, longest), filled up on the right."""
    import numpy as np

    array = np.full((len(sequences), max(map(len, sequences))), fill, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        array[row, : len(sequence)] = sequence
    return array
