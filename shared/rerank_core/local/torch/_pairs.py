"""Plain pairs, without a template, by a tokenizer of the tokenizers library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core.local.pairs import Pair, PairTokenizer
from rerank_core.local.torch.readers import Features

__all__ = ["FastReader"]

_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""


class FastReader:
    """Puts pairs together from ids: the query is read once a call, and each text once.

    Args:
        model: a ``CrossEncoder`` whose tokenizer is a fast one that pads on the right.
        prompt: what is written before the query; the model must not have a place of its own for it.

    Raises:
        ValueError: the model is no such one.
    """

    def __init__(self, model: Any, prompt: str | None) -> None:
        tokenizer = model.tokenizer
        if prompt or not tokenizer.is_fast or tokenizer.padding_side != "right":
            raise ValueError("pairs of this model are not made from ids alone")
        self._limit = tokenizer.model_max_length
        types = "token_type_ids" in tokenizer.model_input_names
        self._names = ("input_ids", "attention_mask", *(["token_type_ids"] if types else []))
        backend = tokenizer.backend_tokenizer
        most = int(min(self._limit, _NO_LIMIT))
        backend.no_padding()
        backend.enable_truncation(most, strategy="longest_first", direction=tokenizer.truncation_side)
        self._pairs = PairTokenizer(
            backend,
            max_length=most,
            pad_id=tokenizer.pad_token_id or 0,
            token_types=types,
        )

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[Pair]:
        return self._pairs.pairs(query, texts)

    def features(self, items: Sequence[Pair]) -> Features:
        import torch

        arrays = self._pairs.arrays(items)
        # Copies: the next batch is written over these arrays, while another device may still read this one.
        return {name: torch.tensor(arrays[name]) for name in self._names} | {"modality": "text"}

    def max_text_tokens(self, query: str) -> int | None:
        return None if self._limit > _NO_LIMIT else self._pairs.max_text_tokens(query)

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        return self._pairs.token_ends(texts, limit)
