"""Cross-encoders of sentence-transformers, on torch: classifiers of pairs, and language models that judge them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from rerank_core._support.checks import check_choice
from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError, RerankError, name_scorer
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.hub import ModelFiles, is_hub_id, unavailable
from rerank_core.local.scorer import PairOptions, PairScorer
from rerank_core.local.torch.loading import (
    check_trained,
    keep_class_unpatched,
    set_threads,
    to_chat_template,
    use_template,
)
from rerank_core.local.torch.model import ListwiseJob, ListwiseModel, TorchPairs
from rerank_core.local.torch.readers import choose_reader
from rerank_core.scorer import ScorerOptions
from rerank_core.types import Scored
from rerank_core.usage import Usage

__all__ = ["CrossEncoderOptions", "CrossEncoderScorer", "Dtype"]

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
        compile: run the model through ``torch.compile``; it needs a C++ compiler, and the first batches take a
            minute.
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
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("dtype", self.dtype, get_args(Dtype))
        if not isinstance(self.compile, bool):
            raise ConfigurationError(f"compile is {self.compile!r}: give True or False")
        if self.attention is not None and not (isinstance(self.attention, str) and self.attention.strip()):
            raise ConfigurationError("attention is no text: give 'sdpa', or leave it out")
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

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, on the scorer's scale."""
        if not self.listwise:
            return await super().score(query, texts)
        job = ListwiseJob(query, texts)
        await self.engine.run(job)
        return Scored(list(job.scores), Usage(requests=1, tokens=job.tokens))

    def load(self) -> Any:
        """Load a :class:`TorchPairs`, with the model once per device, or a :class:`ListwiseModel`."""
        if self.model_facts.unsupported is not None:
            raise ConfigurationError(f"cannot be run with sentence-transformers: {self.model_facts.unsupported}")
        if self.model_facts.caution is not None:
            _logger.warning("%s: %s", self.name, self.model_facts.caution)
        options = self.options
        set_threads(options.threads)
        if self.listwise:
            with self._explain_failure(options.devices[0]):
                return ListwiseModel(self.model, options)
        files = ModelFiles(self.model, revision=options.revision, offline=options.local_files_only)
        checkpoint = Checkpoint(files.fetch())
        template = checkpoint.find_template(options.template, self.model, self.model_facts)
        models = [self._load_on(device, template, offline=files.is_cached) for device in options.devices]
        check_trained(models[0], checkpoint)
        if template is not None:
            for model in models:
                use_template(model, self.model_facts.answers)
        return TorchPairs(
            models,
            choose_reader(models[0], instruction=options.instruction),
            activation=options.activation,
            tokens_per_batch=options.tokens_per_batch,
            compiled=options.compile,
        )

    def _load_on(self, device: str | None, template: str | None, *, offline: bool) -> Any:
        library = require("sentence_transformers", extra="local", purpose=_PURPOSE)
        options = self.options
        attention = {} if options.attention is None else {"attn_implementation": options.attention}
        prompt = (
            {} if template is None else {"chat_template": to_chat_template(template, self.model_facts.instruction)}
        )
        with self._explain_failure(device), keep_class_unpatched():
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
        return model.eval()

    @contextmanager
    def _explain_failure(self, device: str | None) -> Iterator[None]:
        """Say what to do about a model that cannot be loaded."""
        try:
            yield
        except RerankError:
            raise
        except Exception as exc:
            if is_hub_id(self.model) and isinstance(exc, OSError):
                raise unavailable(self.model) from exc
            chosen = {"device": device, "attention": self.options.attention}
            given = "".join(f", {name}={value!r}" for name, value in chosen.items() if value is not None)
            raise ConfigurationError(
                f"cannot be loaded as a cross-encoder ({type(exc).__name__}, see the cause{given}): "
                "give a hub id, or a folder that CrossEncoder.save_pretrained wrote"
            ) from exc
