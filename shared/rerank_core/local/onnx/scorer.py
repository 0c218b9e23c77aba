"""Cross-encoders without torch: ONNX files, or checkpoints as they lie, on ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.onnx.bert import open_checkpoint
from rerank_core.local.onnx.model_files import GraphFile, can_write_graph, find_model, read_graph
from rerank_core.local.pairs import Pair, PairTokenizer
from rerank_core.local.runtimes.session import (
    ModelSession,
    Precision,
    Runtime,
    SessionOptions,
    choose_runtime,
    open_session,
)
from rerank_core.local.scorer import Activation, PairOptions, PairScorer, logits_to_scores
from rerank_core.scorer import ScorerOptions

__all__ = ["OnnxModel", "OnnxOptions", "OnnxScorer"]


@dataclass(frozen=True, kw_only=True)
class OnnxOptions(PairOptions):
    """The options of :class:`OnnxScorer`.

    Attributes:
        file_name: the file within the model's folder with the weights: an ONNX file, or ``model.safetensors`` to
            have the checkpoint used where there is an ONNX file too.
        max_length: tokens of query and text together that are read, at least 1; by default what the model's
            files say. Longer pairs lose tokens of whichever is longer, as sentence-transformers truncates.
        tokens_per_batch: padded tokens per batch, at least 1; by default 1,024.
        threads: cores to use, at least 1; by default all physical ones; never more than the container's quota.
        activation: see :data:`rerank_core.local.scorer.Activation`.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; use what its cache on this machine has.
        runtime: ``"onnxruntime"``, ``"openvino"``, or ``"auto"``: OpenVINO on x86 CPUs where it is installed.
        precision: ``"fp32"``, the scores as trained; ``"bf16"``, on OpenVINO and CPUs that have it; ``"int8"``;
            or ``"auto"``: fp32, if there is any.

    Raises:
        ConfigurationError: an option is out of its range.
        MissingExtraError: a package is not installed that the options need.
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

    The weights are the first of these that is there, in the folder or in the repository, of which nothing else is
    fetched:

    1. the file that ``file_name`` names;
    2. an ONNX file of the precision: ``model.onnx``, for int8 ``model_qint8_avx512_vnni.onnx`` and the like by
       what this CPU has, ``model_int8.onnx``, ``model_quantized.onnx``; each of them in the folder itself or in
       ``onnx/``. Its weights are looked at: another precision is refused, by ``auto`` taken and logged;
    3. a checkpoint of the BERT family (BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA, DistilBERT) with
       ``model.safetensors``, as it lies;
    4. any other sequence classifier that transformers knows, exported once with torch (extras ``local`` and
       ``export``), where its logits are compared with torch's;
    5. for int8 the weights of 2 (in fp32) or 4, quantised once by ONNX Runtime (extra ``export``); for ``auto``
       a file of lower precision.

    What is made once is kept in :func:`rerank_core.local.model_cache.cache_folder`, which the
    environment variable ``RERANK_BRIDGE_CACHE`` may name.

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
        checkpoint, graph = find_model(
            self.model,
            file_name=self.options.file_name,
            precision=self.options.precision,
            revision=self.options.revision,
            offline=self.options.local_files_only,
        )
        length = self.options.max_length or checkpoint.max_length()
        tokenizer = checkpoint.tokenizer(length)
        options = SessionOptions(self.options.runtime, self.options.precision, self.options.threads)
        int8_graph = False
        if graph is None and can_write_graph(checkpoint):
            session = open_checkpoint(checkpoint.folder, checkpoint.config, options)
        else:
            graph = self._make_graph(graph or self._export(checkpoint, length))
            int8_graph = graph.precision == "int8"
            session = open_session(graph.path, options)
        pairs = PairTokenizer(
            tokenizer,
            max_length=length,
            pad_id=checkpoint.pad_id(tokenizer),
            token_types=checkpoint.has_token_types(),
        )
        # Such graphs have one activation scale per run, whatever runs them.
        return OnnxModel(session, pairs, self.options.activation, one_at_a_time=int8_graph)

    def _make_graph(self, graph: GraphFile) -> GraphFile:
        """Return the graph in the precision that was asked for."""
        if self.options.precision != "int8" or graph.precision == "int8":
            return graph
        from rerank_core.local.onnx.convert import quantize

        return GraphFile(quantize(graph), (), "int8")

    def _export(self, checkpoint: Checkpoint, length: int) -> GraphFile:
        from rerank_core.local.onnx.convert import export

        if self.options.file_name is not None:
            raise ConfigurationError(
                f"{self.options.file_name} is of {checkpoint.config.get('architectures')}, which cannot be used "
                "directly: leave file_name out to have it exported with torch"
            )
        return read_graph(export(checkpoint, length=length))


class OnnxModel:
    """A model's session, its tokenizer, and what makes one number of its outputs; in the engine's thread only.

    Args:
        session: runs the model.
        pairs: the tokenizer.
        activation: see :data:`rerank_core.local.scorer.Activation`.
        one_at_a_time: run each pair alone, for a model whose scores depend on the rest of the batch.
    """

    def __init__(
        self, session: ModelSession, pairs: PairTokenizer, activation: Activation, *, one_at_a_time: bool = False
    ) -> None:
        self._session = session
        self._inputs = session.inputs
        self._pairs = pairs
        self._activation = activation
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
        return logits_to_scores(logits.reshape(len(items), -1), self._activation)
