"""From a query and texts to what a ``CrossEncoder`` takes: each text is tokenised once, and we pad the batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rerank_core.errors import ConfigurationError
from rerank_core.local.tokens import Pair, PairTokenizer, padded, pair_room, token_ends
from rerank_core.reading import estimate_token_ends

Features = dict[str, Any]
"""What a model's ``forward`` takes: arrays or tensors of shape (pairs, tokens), and values for the whole batch."""

_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""
_PROBE_QUERY = "How do two ways of reading differ?"
_PROBE_TEXTS = ("", "Not at all, where both give the same tokens.", "word " * 64)
_MASK = "attention_mask"


def choose_reader(model: Any, *, instruction: str | None) -> Reader:
    """Return the fastest reader that gives a ``CrossEncoder`` the same tokens as its own ``preprocess``.

    They are compared on a few pairs, because tokenizers and modules may do anything.
    """
    prompt = model.prompts.get(model.default_prompt_name) if instruction is None else instruction
    if instruction is not None and not _has_place_for(instruction, model):
        raise ConfigurationError(
            "the model follows no instruction: leave out instruction=, or take a model whose chat template or "
            "saved prompts have a place for one"
        )
    try:
        expected = _preprocess(model, prompt)
    except ValueError as exc:
        raise ConfigurationError(f"the model's prompt has no places for a pair: give template= ({exc})") from exc
    for kind in (_PairReader, _RowReader):
        with suppress(Exception):  # whatever it is, the library's own way is the right one
            reader = kind(model, prompt)
            found = [reader.features(reader.tokenize(_PROBE_QUERY, [text])) for text in _PROBE_TEXTS]
            if all(map(_equal_features, found, expected)):
                return reader
    return _LibraryReader(model, prompt)


def _preprocess(model: Any, prompt: str | None) -> list[Features]:
    return [dict(model.preprocess([(_PROBE_QUERY, text)], prompt=prompt)) for text in _PROBE_TEXTS]


def _equal_features(ours: Features, theirs: Features) -> bool:
    extra = {"position_ids"}  # which models make up, from the left edge of the batch, where none are given
    return ours.keys() - extra == theirs.keys() - extra and all(
        (ours[name] == value).all() if hasattr(value, "shape") else ours[name] == value
        for name, value in theirs.items()
        if name not in extra
    )


def _has_place_for(instruction: str, model: Any) -> bool:
    """Tell whether an instruction has a place of its own, in a chat template or in front of the query."""
    if not model.supports("message"):
        return any(model.prompts.values())
    with_it, without = (_preprocess(model, prompt)[0]["input_ids"].tolist() for prompt in (instruction, None))
    return bool(with_it != without)


class _PairReader:
    """Plain pairs from ids: the query is tokenised once per call, and each text once.

    For models without a prompt, and with a fast tokenizer that pads on the right.
    """

    def __init__(self, model: Any, prompt: str | None) -> None:
        tokenizer = model.tokenizer
        if prompt or not tokenizer.is_fast or tokenizer.padding_side != "right":
            raise ValueError("pairs of this model are not made from ids alone")
        types = "token_type_ids" in tokenizer.model_input_names
        self._names = ("input_ids", _MASK, *(["token_type_ids"] if types else []))
        self._is_limited = tokenizer.model_max_length <= _NO_LIMIT
        limit = int(min(tokenizer.model_max_length, _NO_LIMIT))
        self._pairs = PairTokenizer(
            tokenizer.backend_tokenizer,
            max_length=limit,
            pad_id=tokenizer.pad_token_id or 0,
            token_types=types,
            side=tokenizer.truncation_side,
        )
        self.tokenize = self._pairs.pairs
        self.token_ends = self._pairs.token_ends

    def features(self, items: Sequence[Pair]) -> Features:
        import torch

        arrays = self._pairs.arrays(items)
        return {name: torch.from_numpy(arrays[name]) for name in self._names} | {"modality": "text"}

    def max_text_tokens(self, query: str) -> int | None:
        return self._pairs.max_text_tokens(query) if self._is_limited else None


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """What the model makes of a query and a text, before padding: lists of the same length, by name."""

    pair: tuple[str, str]
    columns: Mapping[str, Sequence[int]]

    def __len__(self) -> int:
        return len(self.columns["input_ids"])


class _LibraryReader:
    """Leaves batches to the model's own ``preprocess``, and only counts tokens before: works with any model."""

    def __init__(self, model: Any, prompt: str | None) -> None:
        self._model = model
        self._prompt = prompt

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[Any]:
        encoded = self._model.tokenizer(
            [query] * len(texts), list(texts), truncation="longest_first", return_attention_mask=False
        )
        rows = zip(texts, encoded["input_ids"], strict=True)
        return [_Row((query, text), {"input_ids": ids}) for text, ids in rows]

    def features(self, items: Sequence[Any]) -> Features:
        return dict(self._model.preprocess([item.pair for item in items], prompt=self._prompt))

    def max_text_tokens(self, query: str) -> int | None:
        limit: int | None = self._model.max_seq_length
        if limit is None or limit > _NO_LIMIT:
            return None
        alone = self._model.preprocess([(query, "")], prompt=self._prompt)["input_ids"].shape[-1]
        return pair_room(limit, alone, self._model.tokenizer.num_special_tokens_to_add(pair=True))

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        tokenizer = self._model.tokenizer
        if not tokenizer.is_fast:  # it does not say where its tokens are
            return [estimate_token_ends(text, limit) for text in texts]
        return token_ends(tokenizer.backend_tokenizer, texts, limit)


class _RowReader(_LibraryReader):
    """Has the model's own ``preprocess`` fill templates, truncate and tokenise, once, and pads what it returns.

    For CausalLM rerankers, whose chat template ends in the tokens that they answer to, so that the text before
    them is cut; for prompts, and for tokenizers that are not of the tokenizers library.
    """

    def __init__(self, model: Any, prompt: str | None) -> None:
        super().__init__(model, prompt)
        tokenizer = model.tokenizer
        self._pads_left = tokenizer.padding_side == "left"
        self._fills = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        # So that a score does not depend on the padding before it; encoders number positions in ways of their own.
        takes = inspect.signature(model.transformers_model.forward).parameters
        causal = getattr(model[0], "transformer_task", None) == "text-generation"
        self._positions = causal and self._pads_left and "position_ids" in takes
        self._batch_values: Features = {}

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[Any]:
        pairs = [(query, text) for text in texts]
        made = self._model.preprocess(
            pairs,
            prompt=self._prompt,
            processing_kwargs={"text": {"padding": False}, "common": {"return_tensors": None}},
        )
        columns = {name: value for name, value in made.items() if isinstance(value, list)}
        self._batch_values = {name: value for name, value in made.items() if name not in columns}
        columns.pop(_MASK)
        rows = zip(pairs, *columns.values(), strict=True)
        return [_Row(pair, dict(zip(columns, values, strict=True))) for pair, *values in rows]

    def max_text_tokens(self, query: str) -> int | None:
        (row,) = self.tokenize(query, [""])
        if self._batch_values.get("modality") != "message":
            return super().max_text_tokens(query)
        limit = self._model.max_seq_length  # of the filled template, from whose text alone is cut
        return None if limit is None or limit > _NO_LIMIT else max(0, limit - len(row))

    def features(self, items: Sequence[Any]) -> Features:
        import torch

        columns = {name: [item.columns[name] for item in items] for name in items[0].columns}
        columns[_MASK] = [[1] * len(item) for item in items]
        if self._positions:
            columns["position_ids"] = [range(len(item)) for item in items]
        arrays = {
            name: padded(values, self._fills.get(name, 0), left=self._pads_left)
            for name, values in columns.items()
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | self._batch_values


Reader = _PairReader | _LibraryReader
"""Knows a model's tokenizer and its templates; used by the engine's thread only."""
