"""From texts to token ids, and from those to the arrays that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["encode", "padded"]

_CHARACTERS_PER_TOKEN = 20


def encode(tokenizer: Any, texts: Sequence[str], limit: int, *, query: str | None = None) -> list[Any]:
    """Return the tokenizer's encodings of texts, or of pairs of a query and a text, in order.

    A tokenizer reads all of a text before it truncates, so only the beginning of a very long one is given to it; a
    text whose beginning does not fill ``limit`` tokens is encoded again as a whole.
    """
    ends = limit * _CHARACTERS_PER_TOKEN
    encodings: list[Any] = tokenizer.encode_batch([_input(query, text[:ends]) for text in texts])
    for index, text in enumerate(texts):
        if len(text) > ends and len(encodings[index].ids) < limit:
            (encodings[index],) = tokenizer.encode_batch([_input(query, text)])
    return encodings


def _input(query: str | None, text: str) -> str | tuple[str, str]:
    return text if query is None else (query, text)


def padded(sequences: Sequence[Sequence[int]], fill: int) -> npt.NDArray[np.int64]:
    """Return the sequences as an array of shape (sequences, longest), filled up on the right."""
    import numpy as np

    array = np.full((len(sequences), max(map(len, sequences))), fill, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        array[row, : len(sequence)] = sequence
    return array
