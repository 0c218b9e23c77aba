"""From texts, pairs of texts and prompts to token ids, and from token ids to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from string import Formatter
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.reading import offsets_to_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_USUAL_CHARACTERS_PER_TOKEN = 8
"""Prose has 4 to 6, so that this much of a text is nearly always enough, and little of it is not needed."""
_LAST_TOKENS = 8
"""Tokens at the end of a beginning that may differ from the whole text's, where blanks follow one another."""


def encode(tokenizer: Any, texts: Sequence[str], limit: int) -> list[Any]:
    """Return the tokenizer's encodings of texts, in order, truncated at ``limit`` tokens."""
    tokenizer.enable_truncation(limit)
    return _encode_beginnings(tokenizer.encode_batch, texts, limit - _LAST_TOKENS)


def token_ends(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Return where the first tokens of texts end, in characters, as many as ``limit``."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit + _LAST_TOKENS)
    encode_batch = partial(tokenizer.encode_batch, add_special_tokens=False)
    encodings = _encode_beginnings(encode_batch, texts, limit)
    return [offsets_to_ends(encoding.offsets[:limit]) for encoding in encodings]


def pair_room(limit: int, query: int, special: int) -> int:
    """Return how many tokens of a text are read beside a query, where the longer of the two is truncated first.

    The limit is a pair's; ``query`` are the tokens of a pair whose text is empty, ``special`` those of neither.

    >>> pair_room(64, 20, 3), pair_room(64, 64, 3)
    (44, 30)
    """
    return max(limit - query, (limit - special) // 2)


def padded(
    sequences: Sequence[Sequence[int] | npt.NDArray[Any]], fill: int, *, left: bool = False
) -> npt.NDArray[np.int64]:
    """Return the sequences as an array of shape (sequences, longest), filled up on the right or left."""
    import numpy as np

    array = np.full((len(sequences), max(map(len, sequences))), fill, dtype=np.int64)
    for row, sequence in zip(array, sequences, strict=True):
        start = len(row) - len(sequence) if left else 0
        row[start : start + len(sequence)] = sequence
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One tokenised pair; its length is its number of tokens."""

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int8] | None = None  # mostly 0 in the query and 1 in the text; None where all are 0

    def __len__(self) -> int:
        return len(self.ids)


class PairTokenizer:
    """Makes the pairs that a tokenizer of the tokenizers library makes itself, only faster.

    The longer one of query and text is cut first, on the ``side`` given; of a very long text only the beginning is
    encoded. Without ``token_types``, for a model that does not take them, all tokens have type 0.
    """

    def __init__(
        self, tokenizer: Any, *, max_length: int, pad_id: int, token_types: bool, side: str = "right"
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id
        self._token_types = token_types
        self._side = side
        self._special = tokenizer.num_special_tokens_to_add(is_pair=True)
        tokenizer.no_padding()
        if tokenizer.post_processor is None:  # without one, two encodings are joined, their types as they are
            processors = require("tokenizers.processors", extra="onnx", purpose="reading pairs")
            tokenizer.post_processor = processors.TemplateProcessing("$A", "$A $B:1", [])
        self._encode_batch = partial(tokenizer.encode_batch_fast, add_special_tokens=False)

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the query with each of the texts, in order."""
        self._tokenizer.no_truncation()
        (first,) = self._encode_batch([query])
        seconds = self._encode_texts(len(first), texts)
        self._tokenizer.enable_truncation(self._max_length, strategy="longest_first", direction=self._side)
        return [self._pair(self._tokenizer.post_process(first, second)) for second in seconds]

    def arrays(self, pairs: Sequence[Pair]) -> dict[str, npt.NDArray[np.int64]]:
        """Return ``input_ids``, ``attention_mask`` and ``token_type_ids``, of shape (pairs, longest pair)."""
        import numpy as np

        ids = padded([pair.ids for pair in pairs], self._pad_id)
        lengths = np.array([len(pair) for pair in pairs])
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        given = [pair.types for pair in pairs if pair.types is not None]
        types = padded(given, 0) if given else np.zeros_like(ids)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def max_text_tokens(self, query: str) -> int:
        """Return how many tokens of a text are read beside a query."""
        self._tokenizer.no_truncation()
        alone = len(self._tokenizer.encode(query, add_special_tokens=False)) + self._special
        return pair_room(self._max_length, min(alone, self._max_length), self._special)

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return where the first tokens of texts end, in characters, as many as ``limit``."""
        return token_ends(self._tokenizer, texts, limit)

    def _encode_texts(self, query_tokens: int, texts: Sequence[str]) -> Sequence[Any]:
        if self._side != "right":
            return self._encode_batch(list(texts))  # type: ignore[no-any-return]
        # A text of so many tokens, or more, always keeps the same ones: what a query that is kept whole leaves, or
        # half of the room beside a query that is no longer than itself.
        room = self._max_length - self._special
        return _encode_beginnings(self._encode_batch, texts, max(room - query_tokens, query_tokens))

    def _pair(self, encoding: Any) -> Pair:
        import numpy as np

        ids = np.array(encoding.ids, dtype=np.int32)
        return Pair(ids, np.array(encoding.type_ids, dtype=np.int8) if self._token_types else None)


def check_template(template: str) -> None:
    """Refuse a template that has not a place for query and document each, or others than the instruction's."""
    try:
        names = sorted(name for _, name, _, _ in Formatter().parse(template) if name is not None)
    except ValueError:
        names = []
    if names not in (["document", "query"], ["document", "instruction", "query"]):
        raise ConfigurationError(
            "template needs {query} and {document} once each, may have {instruction}, and its own braces doubled"
        )


class TemplateTokenizer(PairTokenizer):
    """Makes a prompt of each pair; a long text is cut so that the end of the prompt stays."""

    def __init__(self, tokenizer: Any, template: str, instruction: str, *, max_length: int, pad_id: int) -> None:
        super().__init__(tokenizer, max_length=max_length, pad_id=pad_id, token_types=False)
        self._parsed = list(Formatter().parse(template))
        self._instruction = instruction

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the prompts of a query with each of the texts, in order."""
        before, after = self._around(query)
        (short,) = self._encode([f"{before}x{after}"])
        tail = sum(start > len(before) for start, _ in short.offsets)

        def encode_prompts(parts: Sequence[str]) -> Sequence[Any]:
            return self._encode([before + part + after for part in parts])

        encodings = _encode_beginnings(encode_prompts, texts, self._max_length)
        return [Pair(self._fit(encoding.ids, tail)) for encoding in encodings]

    def max_text_tokens(self, query: str) -> int:
        """Return how many tokens of a text are read beside a query."""
        (alone,) = self._encode(["".join(self._around(query))])
        return max(0, self._max_length - len(alone))

    def _encode(self, prompts: Sequence[str]) -> Sequence[Any]:
        self._tokenizer.no_truncation()
        encodings: Sequence[Any] = self._tokenizer.encode_batch(prompts, add_special_tokens=False)
        return encodings

    def _fit(self, ids: Sequence[int], tail: int) -> npt.NDArray[np.int32]:
        """Return the ids of a prompt, of which what is too long is cut before its tail."""
        import numpy as np

        tail = min(tail, self._max_length)
        fitting = (
            ids if len(ids) <= self._max_length else [*ids[: self._max_length - tail], *ids[len(ids) - tail :]]
        )
        return np.array(fitting, dtype=np.int32)

    def _around(self, query: str) -> tuple[str, str]:
        """Return the prompt before and after the document."""
        filled = {"query": query, "instruction": self._instruction}
        parts = [literal + filled.get(name or "", "") for literal, name, _, _ in self._parsed]
        document = [name for _, name, _, _ in self._parsed].index("document") + 1
        return "".join(parts[:document]), "".join(parts[document:])


def _beginning(text: str, ends: int) -> str:
    blank = text.rfind(" ", 0, ends) if len(text) > ends else 0
    return text[:blank] if blank > 0 else text


def _encode_beginnings(
    encode_batch: Callable[[list[str]], Sequence[Any]], texts: Sequence[str], enough: int
) -> list[Any]:
    """Return encodings of texts, in order; of a long text, only its beginning is encoded.

    The first ``enough`` tokens of each are those of the whole text; a text with fewer is encoded to its end.
    """
    encodings: list[Any] = [None] * len(texts)
    left = list(range(len(texts)))
    characters = (enough + _LAST_TOKENS) * _USUAL_CHARACTERS_PER_TOKEN
    while left:
        parts = [_beginning(texts[index], characters) for index in left]
        for index, encoding in zip(left, encode_batch(parts), strict=True):
            encodings[index] = encoding
        cut = [index for index, part in zip(left, parts, strict=True) if len(part) < len(texts[index])]
        left = [index for index in cut if len(encodings[index]) < enough + _LAST_TOKENS]
        characters *= 4
    return encodings
