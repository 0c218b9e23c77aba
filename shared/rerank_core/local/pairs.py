"""Pairs of a query and a text as token ids: the query is encoded once, and each text once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require
from rerank_core.local.tokens import encode_beginnings, pair_room, token_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Pair", "PairTokenizer"]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One tokenised pair; its length is its number of tokens.

    Attributes:
        ids: of all its tokens.
        types: of all its tokens, 0 in the query and 1 in the text; None where all are 0.
    """

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class PairTokenizer:
    """Makes the pairs that a tokenizer of the tokenizers library makes itself, only faster.

    The longer one of query and text is cut first, on the side that the tokenizer cuts; of a very long text only
    the beginning is encoded. Used by one thread at a time.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, used by nobody else from now on: its truncation and padding change.
        max_length: tokens of a pair that are read, at least 1.
        pad_id: fills up shorter pairs.
        token_types: whether the model takes the types of tokens; else all have type 0.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, pad_id: int, token_types: bool) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id
        self._token_types = token_types
        self._direction = (tokenizer.truncation or {}).get("direction", "right")
        self._special = tokenizer.num_special_tokens_to_add(is_pair=True)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if tokenizer.post_processor is None:  # without one, two encodings are joined, their types as they are
            processors = require("tokenizers.processors", extra="onnx", purpose="reading pairs")
            tokenizer.post_processor = processors.TemplateProcessing("$A", "$A $B:1", [])
        encode_batch = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
        self._encode_batch = partial(encode_batch, add_special_tokens=False)
        self._buffers = tuple(_Buffer() for _ in range(3))

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the query with each of the texts, in order."""
        (first,) = self._encode_batch([query])
        seconds = self._encode_texts(len(first), texts)
        self._tokenizer.enable_truncation(self._max_length, strategy="longest_first", direction=self._direction)
        try:
            return [self._pair(self._tokenizer.post_process(first, second)) for second in seconds]
        finally:
            self._tokenizer.no_truncation()

    def arrays(self, pairs: Sequence[Pair]) -> dict[str, npt.NDArray[np.int64]]:
        """Return ``input_ids``, ``attention_mask`` and ``token_type_ids``, of shape (pairs, longest pair).

        The next call overwrites them.
        """
        import numpy as np

        lengths = np.fromiter(map(len, pairs), np.int64, len(pairs))[:, None]
        columns = np.arange(lengths.max())
        ids, mask, types = (buffer.view(len(pairs), len(columns)) for buffer in self._buffers)
        np.less(columns, lengths, out=mask)
        ids.fill(self._pad_id)
        types.fill(0)
        for row, pair in enumerate(pairs):
            ids[row, : len(pair)] = pair.ids
            if pair.types is not None:
                types[row, : len(pair)] = pair.types
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def max_text_tokens(self, query: str) -> int:
        """Return how many tokens of a text are read beside a query."""
        alone = len(self._tokenizer.encode(query, add_special_tokens=False)) + self._special
        return pair_room(self._max_length, min(alone, self._max_length), self._special)

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return where the first tokens of texts end, in characters, as many as ``limit``."""
        return token_ends(self._tokenizer, texts, limit)

    def _encode_texts(self, query_tokens: int, texts: Sequence[str]) -> Sequence[Any]:
        if self._direction != "right":
            return self._encode_batch(list(texts))  # type: ignore[no-any-return]
        # A text of so many tokens, or more, always keeps the same ones: what a query that is kept whole leaves, or
        # half of the room beside a query that is no longer than itself.
        room = self._max_length - self._special
        return encode_beginnings(self._encode_batch, texts, max(room - query_tokens, query_tokens))

    def _pair(self, encoding: Any) -> Pair:
        import numpy as np

        ids = np.array(encoding.ids, dtype=np.int32)
        return Pair(ids, np.array(encoding.type_ids, dtype=np.int8) if self._token_types else None)


class _Buffer:
    """Memory for arrays, one after the other, that grows with the largest."""

    def __init__(self) -> None:
        self._memory: npt.NDArray[np.int64] | None = None

    def view(self, rows: int, columns: int) -> npt.NDArray[np.int64]:
        import numpy as np

        size = rows * columns
        if self._memory is None or len(self._memory) < size:
            self._memory = np.empty(size, dtype=np.int64)
        return self._memory[:size].reshape(rows, columns)
