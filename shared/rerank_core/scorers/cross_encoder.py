"""Cross-encoders of sentence-transformers, on torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rerank_core._optional import check_installed, require
from rerank_core.batching import Scale
from rerank_core.errors import ConfigurationError
from rerank_core.scorers._checkpoint import is_hub_id, is_hub_out_of_reach, unavailable
from rerank_core.scorers._local import Activation, PairScorer, check_options, one_number_each, scale_of
from rerank_core.scorers._tokens import pair_room
from rerank_core.scorers.reading import cut_ends, estimated_ends

__all__ = ["CrossEncoderScorer", "Dtype"]

Dtype = Literal["auto", "float32", "float16", "bfloat16"]

_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says about 1e30 tokens."""


@dataclass(frozen=True)
class CrossEncoderScorer(PairScorer):
    """A ``sentence_transformers.CrossEncoder`` in token-budget batches, its raw outputs turned into one scale.

    Whatever activation the model was saved with (ms-marco models have none, BGE a sigmoid), scores are the
    sigmoid of its logits, so that a threshold means the same kind of number.

    Attributes:
        model: a local folder or a hub id, such as ``"BAAI/bge-reranker-v2-m3"``.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, …; by default what sentence-transformers chooses.
        dtype: of the weights; ``"auto"`` is what the checkpoint was saved in.
        max_length: tokens of query and text together that are read, at least 1; by default the model's own.
        tokens_per_batch: padded tokens a batch, at least 1.
        threads: cores for torch, at least 1; torch keeps one such number for the whole process.
        activation: see :data:`Activation`.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; use what its cache on this machine has.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ConfigurationError: an option is out of its range; on first use, the folder holds no such model.
        MissingExtraError: sentence-transformers is not installed.
        ScorerUnavailableError: on first use, the hub cannot be reached.
    """

    model: str
    device: str | None = None
    dtype: Dtype = "auto"
    max_length: int | None = None
    tokens_per_batch: int = 1024
    threads: int | None = None
    activation: Activation = "auto"
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    name: str = field(init=False)
    scale: Scale = field(init=False)

    def __post_init__(self) -> None:
        check_installed("sentence_transformers", extra="local", purpose="cross-encoder:")
        check_options(self, counts=["tokens_per_batch"], optional=["max_length", "threads"])
        if self.dtype not in get_args(Dtype):
            raise ConfigurationError(f"dtype is {self.dtype!r}: give one of {', '.join(get_args(Dtype))}")
        object.__setattr__(self, "name", f"cross-encoder:{self.model}")
        object.__setattr__(self, "scale", scale_of(self.activation))

    def load(self) -> _TorchPairs:
        """Load the model with sentence-transformers."""
        if not self.model:
            raise ConfigurationError(
                "cross-encoder: names no model: give 'cross-encoder:<local folder or hub id>'"
            )
        torch = require("torch", extra="local", purpose=self.name)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        library = require("sentence_transformers", extra="local", purpose=self.name)
        offline = self.local_files_only or (
            is_hub_id(self.model) and is_hub_out_of_reach(self.model, revision=self.revision)
        )
        try:
            model = library.CrossEncoder(
                self.model,
                device=self.device,
                max_length=self.max_length,
                revision=self.revision,
                local_files_only=offline,
                trust_remote_code=self.trust_remote_code,
                model_kwargs={"dtype": self.dtype},
            )
        except Exception as exc:
            if is_hub_id(self.model) and isinstance(exc, OSError):
                raise unavailable(self.name, self.model) from exc
            raise ConfigurationError(
                f"{self.name} cannot be loaded as a cross-encoder ({type(exc).__name__}, see the cause): "
                "give a hub id, or a folder that CrossEncoder.save_pretrained wrote"
            ) from exc
        model.eval()
        return _TorchPairs(self, model, torch)


class _Pair:
    """A query and a text, and how many tokens they make."""

    __slots__ = ("_length", "pair")

    def __init__(self, pair: tuple[str, str], length: int) -> None:
        self.pair = pair
        self._length = length

    def __len__(self) -> int:
        return self._length


class _TorchPairs:
    def __init__(self, scorer: CrossEncoderScorer, model: Any, torch: Any) -> None:
        self._scorer = scorer.name
        self._activation = scorer.activation
        self._model = model
        self._torch = torch
        self._prompt = model.prompts.get(model.default_prompt_name)
        self._ends_in_sigmoid = isinstance(getattr(model[-1], "activation_function", None), torch.nn.Sigmoid)

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[_Pair]:
        # Lengths only: the batch itself is made by the model's own preprocess, which knows its templates.
        tokenizer = self._model.tokenizer
        pairs = [(query, text) for text in texts]
        encoded = tokenizer(
            [query] * len(texts), list(texts), truncation="longest_first", return_attention_mask=False
        )
        return [_Pair(pair, len(ids)) for pair, ids in zip(pairs, encoded["input_ids"], strict=True)]

    def room(self, query: str) -> int | None:
        limit = self._model.max_seq_length
        if limit is None or limit > _NO_LIMIT:
            return None
        alone = self._model.preprocess([(query, "")], prompt=self._prompt)["input_ids"].shape[-1]
        return pair_room(limit, alone, self._model.tokenizer.num_special_tokens_to_add(pair=True))

    def ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        tokenizer = self._model.tokenizer
        if not tokenizer.is_fast:  # it does not say where its tokens are
            return [estimated_ends(text, limit) for text in texts]
        encoded = tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=True,
            max_length=limit,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        return [cut_ends(offsets) for offsets in encoded["offset_mapping"]]

    def forward(self, items: Sequence[_Pair], /) -> Sequence[float]:
        model = self._model
        with self._torch.inference_mode():
            features = model.preprocess([item.pair for item in items], prompt=self._prompt)
            features = {
                key: value.to(model.device) if hasattr(value, "to") else value for key, value in features.items()
            }
            outputs = model(features)["scores"].double()
            if self._ends_in_sigmoid and self._activation != "identity":
                outputs = self._torch.logit(outputs, eps=1e-12)
            return one_number_each(outputs.reshape(len(items), -1).cpu().numpy(), self._activation, self._scorer)
