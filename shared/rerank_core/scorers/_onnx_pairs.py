"""Pairs of a query and a text, tokenised and run through a cross-encoder's ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core.scorers._checkpoint import Checkpoint
from rerank_core.scorers._local import Activation, one_number_each
from rerank_core.scorers._session import Session
from rerank_core.scorers._tokens import encode, padded, pair_room, token_ends

__all__ = ["OnnxPairs"]


class _Pair:
    """One tokenised pair."""

    __slots__ = ("ids", "type_ids")

    def __init__(self, ids: Sequence[int], type_ids: Sequence[int]) -> None:
        self.ids = ids
        self.type_ids = type_ids

    def __len__(self) -> int:
        return len(self.ids)


class OnnxPairs:
    """An ONNX model, its tokenizer, and what makes one number of its outputs; in the engine's thread only."""

    def __init__(
        self,
        scorer: str,
        activation: Activation,
        session: Session,
        tokenizer: Any,
        checkpoint: Checkpoint,
        *,
        one_at_a_time: bool = False,
    ) -> None:
        self._one_at_a_time = one_at_a_time
        self._scorer = scorer
        self._activation = activation
        self._session = session
        self._inputs = session.inputs
        self._tokenizer = tokenizer
        self._pad_id = checkpoint.pad_id(tokenizer)
        self._has_token_types = checkpoint.has_token_types()

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[_Pair]:
        limit = self._tokenizer.truncation["max_length"]
        encodings = encode(self._tokenizer, texts, limit, query=query)
        if self._has_token_types:
            return [_Pair(encoding.ids, encoding.type_ids) for encoding in encodings]
        return [_Pair(encoding.ids, [0] * len(encoding.ids)) for encoding in encodings]

    def room(self, query: str) -> int:
        limit = self._tokenizer.truncation["max_length"]
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        return pair_room(limit, len(self._tokenizer.encode(query, "")), special)

    def ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        return token_ends(self._tokenizer, texts, limit)

    def forward(self, items: Sequence[_Pair], /) -> Sequence[float]:
        if self._one_at_a_time:
            return [number for item in items for number in self._run([item])]
        return self._run(items)

    def _run(self, items: Sequence[_Pair]) -> Sequence[float]:
        feed = {
            "input_ids": padded([item.ids for item in items], self._pad_id),
            "attention_mask": padded([[1] * len(item) for item in items], 0),
            "token_type_ids": padded([item.type_ids for item in items], 0),
        }
        (logits, *_) = self._session.run({name: feed[name] for name in feed.keys() & self._inputs})
        return one_number_each(logits.reshape(len(items), -1), self._activation, self._scorer)

    def arm(self) -> None:
        self._session.arm()

    def interrupt(self) -> None:
        self._session.interrupt()
