"""From texts to token ids, and from token ids to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rerank_core.reading import offsets_to_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CHARACTERS_PER_TOKEN", "encode", "encode_beginnings", "padded", "pair_room", "token_ends"]

CHARACTERS_PER_TOKEN = 20
"""More than nearly any text has."""
_USUAL_CHARACTERS_PER_TOKEN = 8
"""Prose has 4 to 6, so that this much of a text is nearly always enough, and little of it is not needed."""
_LAST_TOKENS = 8
"""Tokens at the end of a beginning that may differ from the whole text's, where blanks follow one another."""


def encode(tokenizer: Any, texts: Sequence[str], limit: int, *, special: bool = True) -> list[Any]:
    """Return the tokenizer's encodings of texts, in order, truncated as the tokenizer is set to.

    A tokenizer reads the whole text before it truncates, so it is given only the beginning of a very long one, up
    to a blank, where no token is split. Where that makes too few tokens, the whole text is encoded.
    """
    ends = limit * CHARACTERS_PER_TOKEN
    beginnings = [_beginning(text, ends) for text in texts]
    encodings: list[Any] = tokenizer.encode_batch(beginnings, add_special_tokens=special)
    for index, text in enumerate(texts):
        if len(beginnings[index]) < len(text) and len(encodings[index].ids) < limit:
            (encodings[index],) = tokenizer.encode_batch([text], add_special_tokens=special)
    return encodings


def encode_beginnings(
    encode_batch: Callable[[list[str]], Sequence[Any]], texts: Sequence[str], enough: int
) -> list[Any]:
    """Return encodings of texts, in order; of a long text, only its beginning is encoded.

    Args:
        encode_batch: encodes whole texts.
        texts: to encode.
        enough: tokens at the beginning of each text that must be those of the whole text; a text with fewer
            tokens is encoded to its end.
    """
    encodings: list[Any] = [None] * len(texts)
    left = list(range(len(texts)))
    characters = (enough + _LAST_TOKENS) * _USUAL_CHARACTERS_PER_TOKEN
    while left:
        parts = [_beginning(texts[index], characters) for index in left]
        for index, encoding in zip(left, encode_batch(parts), strict=True):
            encodings[index] = encoding
        left = [
            index
            for index, part in zip(left, parts, strict=True)
            if len(part) < len(texts[index]) and len(encodings[index]) < enough + _LAST_TOKENS
        ]
        characters *= 4
    return encodings


def token_ends(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Return where the first tokens of texts end, in characters, as many as ``limit``."""
    usual = tokenizer.truncation
    tokenizer.enable_truncation(limit)
    try:
        return [offsets_to_ends(encoding.offsets) for encoding in encode(tokenizer, texts, limit, special=False)]
    finally:
        if usual is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(usual["max_length"], strategy=usual["strategy"])


def pair_room(limit: int, query: int, special: int) -> int:
    """Return how many tokens of a text are read beside a query, where the longer of the two is truncated first.

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


def padded(sequences: Sequence[Sequence[int]], fill: int) -> npt.NDArray[np.int64]:
    """Return the sequences as an array of shape (sequences, longest), filled up on the right."""
    import numpy as np

    array = np.full((len(sequences), max(map(len, sequences))), fill, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        array[row, : len(sequence)] = sequence
    return array
