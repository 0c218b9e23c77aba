"""Pairs of a query and a text as token ids: the query is encoded once, and the ids are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rerank_core.local._template import PairTemplate, kept
from rerank_core.local.tokens import encode_beginnings, pair_room, token_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]

__all__ = ["Pair", "PairTokenizer"]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One tokenised pair; its length is its number of tokens.

    Attributes:
        ids: of all its tokens.
        first: how many tokens there are, from the first one on, of type 0; the others are of type 1.
        types: of all its tokens, where they are in another order than that.
    """

    ids: Ids
    first: int
    types: Ids | None = None

    def __len__(self) -> int:
        return len(self.ids)


class PairTokenizer:
    """Makes pairs as a tokenizer of the tokenizers library does, only faster; used by one thread at a time.

    The longer one of query and text is cut first, on the side that the tokenizer cuts; of a very long text only
    the beginning is encoded. A tokenizer whose pairs are not just two sequences between the same special tokens
    makes its pairs itself.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, from now on used by nobody else: its truncation and padding change.
        max_length: tokens of a pair that are read, at least 1.
        pad_id: fills up shorter pairs.
        token_types: whether the tokens of the text have type 1; else all have type 0.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, pad_id: int, token_types: bool) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id
        self._token_types = token_types
        self._direction = (tokenizer.truncation or {}).get("direction", "right")
        self._special = tokenizer.num_special_tokens_to_add(is_pair=True)
        template = PairTemplate.of(tokenizer, token_types=token_types)
        self._template = template if template is not None and template.special <= max_length else None
        self._encode_batch = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
        self._buffers = tuple(_Buffer() for _ in range(3))

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the query with each of the texts, in order."""
        if self._template is None:
            return self._own_pairs(query, texts)
        return self._assembled(self._template, query, texts)

    def arrays(self, pairs: Sequence[Pair]) -> dict[str, npt.NDArray[np.int64]]:
        """Return ``input_ids``, ``attention_mask`` and ``token_type_ids``, of shape (pairs, longest pair).

        They are written over by the next call.
        """
        import numpy as np

        lengths = np.fromiter(map(len, pairs), np.int64, len(pairs))[:, None]
        firsts = np.fromiter((pair.first for pair in pairs), np.int64, len(pairs))[:, None]
        columns = np.arange(lengths.max())
        ids, mask, types = (buffer.view(len(pairs), len(columns)) for buffer in self._buffers)
        np.less(columns, lengths, out=mask)
        np.greater_equal(columns, firsts, out=types)
        types *= mask
        ids.fill(self._pad_id)
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

    def _assembled(self, template: PairTemplate, query: str, texts: Sequence[str]) -> list[Pair]:
        import numpy as np

        (query_ids,) = self._ids([query])
        count, room = len(query_ids), self._max_length - template.special
        # A text of so many tokens, or more, always keeps the same ones: what a query that is kept whole leaves, or
        # half of the room beside a query that is no longer than itself.
        enough = max(room - count, count) if template.right else None
        head, after = template.head(query_ids, count), template.after
        pairs = []
        for ids in self._ids(texts, enough):
            first, second = kept(count, len(ids), room)
            start = head if first == count else template.head(query_ids, first)
            joined = np.concatenate((start, template.cut(ids, second), after))
            pairs.append(Pair(joined, template.first(len(start), len(joined))))
        return pairs

    def _ids(self, texts: Sequence[str], enough: int | None = None) -> list[Ids]:
        """Return the ids of texts without special tokens, of a longer one those that are enough, or more."""
        import numpy as np

        if enough is None:
            encodings = self._encode_batch(list(texts), add_special_tokens=False)
        else:
            encodings = encode_beginnings(partial(self._encode_batch, add_special_tokens=False), texts, enough)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def _own_pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        import numpy as np

        self._tokenizer.enable_truncation(self._max_length, strategy="longest_first", direction=self._direction)
        try:
            encodings = self._tokenizer.encode_batch([(query, text) for text in texts])
        finally:
            self._tokenizer.no_truncation()
        pairs = []
        for encoding in encodings:
            ids = np.array(encoding.ids, dtype=np.int32)
            types = np.array(encoding.type_ids, dtype=np.int32) if self._token_types else None
            pairs.append(Pair(ids, len(ids), types))
        return pairs


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
