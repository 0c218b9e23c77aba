"""From a query and texts to what a ``CrossEncoder`` takes: read once, and padded in batches of our own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rerank_core.errors import ConfigurationError
from rerank_core.local.tokens import pair_room
from rerank_core.reading import estimate_token_ends, offsets_to_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Features", "Reader", "Row", "RowReader", "reader_of"]

Features = dict[str, Any]
"""What a model's ``forward`` takes: arrays or tensors of shape (pairs, tokens), and what is said once a batch."""

_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""
_PROBE_QUERY = "How do two ways of reading differ?"
_PROBE_TEXTS = ("", "Not at all, where both give the same tokens.", "word " * 64)
_MASK = "attention_mask"


class Reader(Protocol):
    """Knows a model's tokenizer and its templates; used by the engine's thread only."""

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[Any]:
        """Return the pairs, in order; their length is their number of tokens."""

    def features(self, items: Sequence[Any]) -> Features:
        """Return a batch of them, padded to the longest."""

    def max_text_tokens(self, query: str) -> int | None:
        """Return how many tokens of a text are read beside a query; None for no limit."""

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return where the first tokens of texts end, as many as ``limit``."""


def reader_of(model: Any, *, instruction: str | None, scorer: str) -> Reader:
    """Return what reads for a ``CrossEncoder``: the fastest way that gives the same tokens as the model's own.

    Which one that is, is tried out on a few pairs, because tokenizers and modules may do anything.

    Args:
        model: the ``CrossEncoder``.
        instruction: what the model is to prefer, instead of the prompt that it was saved with.
        scorer: its name, for errors.

    Raises:
        ConfigurationError: there is an instruction, and the model has no place for one.
    """
    from rerank_core.local.torch._pairs import FastReader

    prompt = model.prompts.get(model.default_prompt_name) if instruction is None else instruction
    own = OwnReader(model, prompt)
    if instruction is not None and not _follows(model, own):
        raise ConfigurationError(
            f"{scorer} follows no instruction: leave out instruction=, or take a model whose chat template or "
            "saved prompts have a place for one"
        )
    for reader in (FastReader, RowReader):
        found = _tried(reader, model, prompt, own)
        if found is not None:
            return found
    return own


def _tried(kind: Any, model: Any, prompt: str | None, own: OwnReader) -> Reader | None:
    """Return a reader of this kind if it reads as the model does."""
    theirs = [own.features(own.tokenize(_PROBE_QUERY, [text])) for text in _PROBE_TEXTS]
    try:
        reader: Reader = kind(model, prompt)
        ours = [reader.features(reader.tokenize(_PROBE_QUERY, [text])) for text in _PROBE_TEXTS]
    except Exception:  # whatever it is, the model's own way is the right one
        return None
    return reader if all(map(_same, ours, theirs)) else None


def _same(ours: Features, theirs: Features) -> bool:
    extra = {"position_ids"}  # which models make up, from the left edge of the batch, where none are given
    return ours.keys() - extra == theirs.keys() - extra and all(
        (ours[name] == value).all() if hasattr(value, "shape") else ours[name] == value
        for name, value in theirs.items()
        if name not in extra
    )


def _follows(model: Any, reader: OwnReader) -> bool:
    """Tell whether an instruction has a place of its own, in a chat template or in front of the query."""
    if not model.supports("message"):
        return any(model.prompts.values())
    with_it, without = (
        one.features(one.tokenize(_PROBE_QUERY, _PROBE_TEXTS[:1]))["input_ids"].tolist()
        for one in (reader, OwnReader(model, None))
    )
    return bool(with_it != without)


class _Text:
    """A query and a text, and how many tokens they make."""

    __slots__ = ("_length", "pair")

    def __init__(self, pair: tuple[str, str], length: int) -> None:
        self.pair = pair
        self._length = length

    def __len__(self) -> int:
        return self._length


class OwnReader:
    """Leaves batches to the model's own ``preprocess``, and only counts tokens before: works with any model."""

    def __init__(self, model: Any, prompt: str | None) -> None:
        self._model = model
        self._prompt = prompt

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[_Text]:
        encoded = self._model.tokenizer(
            [query] * len(texts), list(texts), truncation="longest_first", return_attention_mask=False
        )
        return [_Text((query, text), len(ids)) for text, ids in zip(texts, encoded["input_ids"], strict=True)]

    def features(self, items: Sequence[_Text]) -> Features:
        features: Features = self._model.preprocess([item.pair for item in items], prompt=self._prompt)
        return dict(features)

    def max_text_tokens(self, query: str) -> int | None:
        limit = self._model.max_seq_length
        if limit is None or limit > _NO_LIMIT:
            return None
        alone = self._model.preprocess([(query, "")], prompt=self._prompt)["input_ids"].shape[-1]
        return pair_room(limit, alone, self._model.tokenizer.num_special_tokens_to_add(pair=True))

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        tokenizer = self._model.tokenizer
        if not tokenizer.is_fast:  # it does not say where its tokens are
            return [estimate_token_ends(text, limit) for text in texts]
        encoded = tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=True,
            max_length=limit,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        return [offsets_to_ends(offsets) for offsets in encoded["offset_mapping"]]


class Row:
    """What the model's ``preprocess`` makes of one pair, before padding.

    Attributes:
        columns: lists of the same length, by name: token ids, their types, …
    """

    __slots__ = ("columns",)

    def __init__(self, columns: Mapping[str, Sequence[int]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["input_ids"])


class RowReader(OwnReader):
    """Has the model's own ``preprocess`` fill templates, cut and tokenise, once, and pads what it returns.

    For CausalLM rerankers, whose chat template ends in what they answer to, so that the text before it is cut;
    for prompts, and for tokenizers that are not of the tokenizers library.
    """

    def __init__(self, model: Any, prompt: str | None) -> None:
        super().__init__(model, prompt)
        tokenizer = model.tokenizer
        self._left = tokenizer.padding_side == "left"
        self._fills = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        # So that a score does not depend on the padding before it; encoders number positions in ways of their own.
        takes = inspect.signature(model.transformers_model.forward).parameters
        causal = getattr(model[0], "transformer_task", None) == "text-generation"
        self._positions = causal and self._left and "position_ids" in takes
        self._once: Features = {}

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[Any]:
        made = self._model.preprocess(
            [(query, text) for text in texts],
            prompt=self._prompt,
            processing_kwargs={"text": {"padding": False}, "common": {"return_tensors": None}},
        )
        columns = {name: value for name, value in made.items() if isinstance(value, list)}
        self._once = {name: value for name, value in made.items() if name not in columns}
        columns.pop(_MASK)
        return [Row(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]

    def max_text_tokens(self, query: str) -> int | None:
        (row,) = self.tokenize(query, [""])
        if self._once.get("modality") != "message":
            return super().max_text_tokens(query)
        limit = self._model.max_seq_length  # of the filled template, from whose text alone is cut
        return None if limit is None or limit > _NO_LIMIT else max(0, limit - len(row))

    def features(self, items: Sequence[Any]) -> Features:
        import numpy as np
        import torch

        width = max(map(len, items))
        places = np.arange(width)
        lengths = np.fromiter(map(len, items), np.int64, len(items))[:, None]
        starts = width - lengths if self._left else np.zeros_like(lengths)
        mask = (places >= starts) & (places < starts + lengths)
        arrays: dict[str, npt.NDArray[np.int64]] = {_MASK: mask.astype(np.int64)}
        for name in items[0].columns:
            array = arrays[name] = np.full(mask.shape, self._fills.get(name, 0), dtype=np.int64)
            array[mask] = np.concatenate([item.columns[name] for item in items])
        if self._positions:
            arrays["position_ids"] = np.maximum(places - starts, 0)
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | self._once
