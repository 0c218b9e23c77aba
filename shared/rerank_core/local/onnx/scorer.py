"""Cross-encoders without torch: ONNX files, or checkpoints of the BERT family, on ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.hub import ModelFiles
from rerank_core.local.onnx.model_files import can_write_graph, export, find_graph, quantize
from rerank_core.local.runtimes import (
    ModelSession,
    Precision,
    Runtime,
    SessionOptions,
    choose_runtime,
    open_session,
)
from rerank_core.local.scorer import PairOptions, PairScorer, logits_to_scores
from rerank_core.local.tokens import Pair, PairTokenizer, TemplateTokenizer
from rerank_core.scorer import Scale, ScorerOptions

__all__ = ["OnnxModel", "OnnxOptions", "OnnxScorer"]


@dataclass(frozen=True, kw_only=True)
class OnnxOptions(PairOptions):
    """The options of :class:`OnnxScorer`, besides those of every local cross-encoder.

    Attributes:
        file_name: the file within the model's folder with the weights: an ONNX file, or ``model.safetensors`` to
            have the checkpoint used where there is an ONNX file too.
        runtime: ``"onnxruntime"``, ``"openvino"``, or ``"auto"``: OpenVINO on x86 CPUs where it is installed.
        precision: ``"fp32"``, the scores as trained; ``"bf16"``, on OpenVINO and CPUs that have it; ``"int8"``;
            or ``"auto"``: fp32, if there is any.
    """

    file_name: str | None = None
    runtime: Runtime = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_installed("onnxruntime", "tokenizers", "numpy", extra="onnx", purpose="this scorer")
        choose_runtime(self.runtime, self.precision)


class OnnxScorer(PairScorer):
    """A cross-encoder run on the CPU by ONNX Runtime or OpenVINO.

    The weights are the first of these that the folder or the repository has; nothing else is fetched:

    1. the file that ``file_name`` names;
    2. an ONNX file of the precision, in the folder itself or in ``onnx/``: ``model.onnx``; for int8 the one for
       this CPU, as in ``model_qint8_avx512_vnni.onnx``, then ``model_int8.onnx`` or ``model_quantized.onnx``. The
       weights in the file are checked: another precision is refused, or with ``auto`` used and logged;
    3. a checkpoint of the BERT family (BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA, DistilBERT) with
       ``model.safetensors``, without conversion;
    4. any other sequence classifier that transformers knows, exported with torch (extras ``local`` and ``export``)
       and compared with torch;
    5. for int8 the weights of 2 (in fp32) or 4, quantised by ONNX Runtime (extra ``export``); for ``auto`` a file
       of lower precision.

    Files are exported and quantised once, and kept in :func:`rerank_core.local.model_cache.cache_folder`, which
    the environment variable ``RERANK_BRIDGE_CACHE`` may name.

    Args:
        model: a local folder, or a hub id, with weights as above, ``tokenizer.json`` and ``config.json``; one
            output logit, or two (the second one for "relevant").
        options: the fields of :class:`OnnxOptions`.

    Raises:
        ConfigurationError: an option is out of its range; on first use, a file is missing or of another precision.
        MissingExtraError: a package is not installed that the options need; on first use, that the model needs.
        ScorerUnavailableError: on first use, the hub cannot be reached.
    """

    provider = "onnx"
    Options: ClassVar[type[ScorerOptions]] = OnnxOptions
    options: OnnxOptions

    def load(self) -> OnnxModel:
        """Find the files, make what is missing, and load the model and its tokenizer."""
        files = ModelFiles(self.model, revision=self.options.revision, offline=self.options.local_files_only)
        checkpoint = Checkpoint(files.fetch())
        checkpoint.check_length(self.options.max_length)
        graph = find_graph(files, checkpoint, self.options.file_name, self.options.precision)
        if graph is None or checkpoint.is_late():
            checkpoint.check_classifier()
        length = self.options.max_length or checkpoint.max_length()
        pairs = self._choose_tokenizer(checkpoint, length)
        options = SessionOptions(self.options.runtime, self.options.precision, self.options.threads)
        if graph is None and can_write_graph(checkpoint):
            # Imported here because it needs numpy, which importing the scorer must not.
            from rerank_core.local.onnx.bert.graph import open_checkpoint

            session = open_checkpoint(checkpoint.folder, checkpoint.config, options)
            return OnnxModel(session, pairs, self.scale)
        if graph is None and self.options.file_name is not None:
            raise ConfigurationError(
                f"{self.options.file_name} is of {checkpoint.config.get('architectures')}, which cannot be used "
                "directly: leave file_name out to have it exported with torch"
            )
        graph = graph or export(checkpoint, length=length)
        if self.options.precision == "int8" and graph.precision != "int8":
            graph = quantize(graph)
        # Graphs in int8 have one scale of activations per run, whatever runs them.
        alone = graph.precision == "int8"
        return OnnxModel(open_session(graph.path, options), pairs, self.scale, one_at_a_time=alone)

    def _choose_tokenizer(self, checkpoint: Checkpoint, length: int) -> PairTokenizer:
        """Return what reads pairs, by a prompt where the model needs one."""
        tokenizer = checkpoint.tokenizer()
        facts, instruction = self.model_facts, self.options.instruction
        template = checkpoint.find_template(self.options.template, self.model, facts)
        if instruction is not None and "{instruction}" not in (template or ""):
            raise ConfigurationError("the model follows no instruction here: leave out instruction=")
        pad_id = checkpoint.pad_id(tokenizer)
        if template is not None:
            return TemplateTokenizer(
                tokenizer, template, instruction or facts.instruction, max_length=length, pad_id=pad_id
            )
        if checkpoint.is_decoder and checkpoint.chat_template:
            raise ConfigurationError(
                "the prompt in the model's chat template is not read here: give template=, or use 'cross-encoder:'"
            )
        return PairTokenizer(tokenizer, max_length=length, pad_id=pad_id, token_types=checkpoint.has_token_types())


class OnnxModel:
    """A model's session, its tokenizer, and what makes one number of its outputs; in the engine's thread only.

    With ``one_at_a_time`` each pair runs alone, for a model whose scores depend on the rest of the batch.
    """

    def __init__(
        self, session: ModelSession, pairs: PairTokenizer, scale: Scale, *, one_at_a_time: bool = False
    ) -> None:
        self._session = session
        self._inputs = session.inputs
        self._pairs = pairs
        self._scale = scale
        self._one_at_a_time = one_at_a_time
        self.tokenize = pairs.pairs
        self.max_text_tokens = pairs.max_text_tokens
        self.token_ends = pairs.token_ends
        self.arm = session.arm
        self.interrupt = session.interrupt

    def forward(self, items: Sequence[Pair], /) -> Sequence[float]:
        """Return one number per pair."""
        if not self._one_at_a_time:
            return self._run(items)
        return [number for item in items for number in self._run([item])]

    def _run(self, items: Sequence[Pair]) -> list[float]:
        arrays = self._pairs.arrays(items)
        (logits, *_) = self._session.run({name: arrays[name] for name in arrays.keys() & self._inputs})
        if logits.ndim > 2:  # (pairs, labels)
            raise ConfigurationError(
                f"the ONNX model returns {logits.ndim} dimensions, not a number per pair, as embedding models do: "
                "use it as a first stage"
            )
        return logits_to_scores(logits.reshape(len(items), -1), self._scale)
