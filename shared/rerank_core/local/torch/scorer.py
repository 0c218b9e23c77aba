"""Cross-encoders of sentence-transformers, on torch: classifiers of pairs, and language models that judge them."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal, get_args

from rerank_core._support.checks import check_choice, check_text
from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.hub import ModelFiles, is_hub_id, unavailable
from rerank_core.local.scorer import PairOptions, PairScorer, logits_to_scores
from rerank_core.local.torch.loading import (
    check_trained,
    choose_tokens_per_batch,
    keep_class_unpatched,
    set_threads,
    to_chat_template,
    use_template,
)
from rerank_core.local.torch.readers import Features, Reader, choose_reader
from rerank_core.scorer import Scale, ScorerOptions

__all__ = ["CrossEncoderOptions", "CrossEncoderScorer", "Dtype", "TorchPairs"]

_PURPOSE = "a cross-encoder on torch"
_logger = logging.getLogger("rerank_core")

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class CrossEncoderOptions(PairOptions):
    """The options of :class:`CrossEncoderScorer`, besides those of every local cross-encoder.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, …; by default what sentence-transformers chooses. Several, such
            as ``("cuda:0", "cuda:1")``, hold a copy of the model each and share every batch.
        dtype: of the weights; ``"auto"`` is what the checkpoint was saved in.
        attention: one of transformers' implementations, ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, …; by
            default what transformers chooses.
        tokens_per_batch: padded tokens per batch on each device, at least 1; by default 1,024 on a CPU, up to
            65,536 on CUDA as its memory allows, 8,192 elsewhere.
        threads: cores for torch, at least 1, never more than the container's quota; torch keeps one such number
            for the whole process.
        trust_remote_code: run Python code that comes with the model.
    """

    device: str | Sequence[str] | None = None
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    attention: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("dtype", self.dtype, get_args(Dtype))
        if self.attention is not None:
            check_text("attention", self.attention)
        if self.device is not None and not all(isinstance(name, str) and name for name in self.devices):
            raise ConfigurationError(f"device is {self.device!r}: give 'cpu', 'cuda', …, or a list of such names")

    @property
    def devices(self) -> Sequence[str | None]:
        """The devices to load the model on, None for the library's choice."""
        return (self.device,) if self.device is None or isinstance(self.device, str) else self.device or ("",)


class CrossEncoderScorer(PairScorer):
    """A ``sentence_transformers.CrossEncoder`` in token-budget batches, its raw outputs turned into one scale.

    Whatever activation the model was saved with (ms-marco models have none, BGE a sigmoid), scores are the
    sigmoid of its logits, so that a threshold means the same kind of number. The logit of a CausalLM reranker
    (Qwen3-Reranker) is that of its yes minus that of its no, as the model was saved.

    Args:
        model: a local folder or a hub id, such as ``"BAAI/bge-reranker-v2-m3"``.
        options: the fields of :class:`CrossEncoderOptions`.

    Raises:
        ConfigurationError: an option is out of its range; on first use, the folder holds no such model, or it
            cannot be run with these options.
        MissingExtraError: sentence-transformers is not installed.
        ScorerUnavailableError: on first use, the hub cannot be reached.
    """

    provider = "cross-encoder"
    Options: ClassVar[type[ScorerOptions]] = CrossEncoderOptions
    options: CrossEncoderOptions

    def __init__(self, model: str = "", **options: Any) -> None:
        if isinstance(options.get("device"), list):
            options["device"] = tuple(options["device"])  # options are hashable: engines are kept by them
        super().__init__(model, **options)
        with name_scorer(self.name):
            check_installed("sentence_transformers", extra="local", purpose=_PURPOSE)

    def load(self) -> TorchPairs:
        """Load the model, once per device."""
        if self.model_facts.unsupported is not None:
            raise ConfigurationError(f"cannot be run with sentence-transformers: {self.model_facts.unsupported}")
        if self.model_facts.caution is not None:
            _logger.warning("%s: %s", self.name, self.model_facts.caution)
        options = self.options
        set_threads(options.threads)
        files = ModelFiles(self.model, revision=options.revision, offline=options.local_files_only)
        checkpoint = Checkpoint(files.fetch())
        checkpoint.check_length(options.max_length)
        template = checkpoint.find_template(options.template, self.model, self.model_facts)
        models = [self._load_on(device, template, offline=files.is_cached) for device in options.devices]
        check_trained(models[0], checkpoint)
        if template is not None:
            for model in models:
                use_template(model, self.model_facts.answers)
        reader = choose_reader(models[0], instruction=options.instruction)
        return TorchPairs(models, reader, self.scale, options.tokens_per_batch)

    def _load_on(self, device: str | None, template: str | None, *, offline: bool) -> Any:
        library = require("sentence_transformers", extra="local", purpose=_PURPOSE)
        options = self.options
        attention = {} if options.attention is None else {"attn_implementation": options.attention}
        prompt = (
            {} if template is None else {"chat_template": to_chat_template(template, self.model_facts.instruction)}
        )
        try:
            with keep_class_unpatched():
                model = library.CrossEncoder(
                    self.model,
                    device=device,
                    max_length=options.max_length,
                    revision=options.revision,
                    local_files_only=offline,
                    trust_remote_code=options.trust_remote_code,
                    model_kwargs={"dtype": options.dtype, **attention},
                    processor_kwargs=prompt,
                )
        except ConfigurationError:
            raise
        except Exception as exc:
            if is_hub_id(self.model) and isinstance(exc, OSError):
                raise unavailable(self.model) from exc
            chosen = {"device": device, "attention": options.attention}
            given = "".join(f", {name}={value!r}" for name, value in chosen.items() if value is not None)
            raise ConfigurationError(
                f"cannot be loaded as a cross-encoder ({type(exc).__name__}, see the cause{given}): "
                "give a hub id, or a folder that CrossEncoder.save_pretrained wrote"
            ) from exc
        return model.eval()


class TorchPairs:
    """A ``CrossEncoder`` on its devices, each of several in a thread of its own; for the engine's thread only.

    Without ``tokens_per_batch``, padded tokens per batch on each device, it is what suits the devices.
    """

    def __init__(self, models: Sequence[Any], reader: Reader, scale: Scale, tokens_per_batch: int | None) -> None:
        import torch

        self.tokens_per_batch = (tokens_per_batch or min(map(choose_tokens_per_batch, models))) * len(models)
        self._models = models
        self._scale = scale
        self._features = reader.features
        self._pool = ThreadPoolExecutor(len(models), "rerank-core-device") if len(models) > 1 else None
        # Then the outputs are probabilities, of which the logits are wanted.
        self._ends_in_sigmoid = isinstance(getattr(models[0][-1], "activation_function", None), torch.nn.Sigmoid)
        self.tokenize = reader.tokenize
        self.max_text_tokens = reader.max_text_tokens
        self.token_ends = reader.token_ends

    def forward(self, items: Sequence[Any], /) -> Sequence[float]:
        """Return one number per pair; raises what the first device raised that failed, when all have ended."""
        import torch

        if self._pool is None:
            outputs = _run(self._models[0], self._features(items))
        else:
            parts = _split_evenly(list(map(len, items)), len(self._models))
            batches = [self._features(items[part]) for part in parts]
            running = [
                self._pool.submit(_run, model, batch) for model, batch in zip(self._models, batches, strict=False)
            ]
            wait(running)
            outputs = torch.cat([future.result() for future in running])
        if self._ends_in_sigmoid and self._scale == "logit":
            outputs = torch.logit(outputs, eps=1e-12)
        return logits_to_scores(outputs.numpy(), self._scale)


def _run(model: Any, features: Features) -> Any:
    """Return a batch's raw outputs, of shape (pairs, labels), in double precision on the CPU."""
    import torch

    device = model.device
    cuda = device.type == "cuda"

    def moved(value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return (value.pin_memory() if cuda else value).to(device, non_blocking=cuda)

    with torch.inference_mode(), torch.cuda.device(device) if cuda else nullcontext():
        scores = model({name: moved(value) for name, value in features.items()})["scores"]
        return scores.reshape(len(scores), -1).cpu().double()  # there, as not every device has doubles


def _split_evenly(lengths: Sequence[int], count: int) -> list[slice]:
    """Return at most ``count`` slices of about the same number of tokens each, none of them empty.

    >>> _split_evenly([60, 30, 20, 10, 10, 10], 2), _split_evenly([9], 2)
    ([slice(0, 2, None), slice(2, 6, None)], [slice(0, 1, None)])
    """
    tokens = list(accumulate(lengths))
    ends = {bisect_left(tokens, tokens[-1] * part / count) + 1 for part in range(1, count + 1)}
    return [slice(start, end) for start, end in pairwise(sorted({0, *ends}))]
