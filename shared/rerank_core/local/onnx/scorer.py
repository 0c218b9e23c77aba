"""Cross-encoders without torch: ONNX files, or checkpoints as they lie, on ONNX Runtime or OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.onnx.bert.families import bert_session
from rerank_core.local.onnx.model_files import Graph, find_model, looks_written, read_graph
from rerank_core.local.onnx.pairs import OnnxPairs
from rerank_core.local.runtimes.session import (
    Precision,
    Runtime,
    Session,
    SessionOptions,
    chosen_runtime,
    open_session,
)
from rerank_core.local.scorer import PairOptions, PairScorer
from rerank_core.scorer import ScorerOptions

__all__ = ["OnnxOptions", "OnnxScorer"]


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
        chosen_runtime(self.runtime, self.precision, scorer="onnx:")


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

    def load(self) -> OnnxPairs:
        """Find the files, make what is missing, and load the model and its tokenizer."""
        checkpoint, graph = find_model(
            self.name,
            self.model,
            file_name=self.options.file_name,
            precision=self.options.precision,
            revision=self.options.revision,
            offline=self.options.local_files_only,
        )
        length = self.options.max_length or checkpoint.max_length()
        tokenizer = checkpoint.tokenizer(length)
        options = SessionOptions(self.options.runtime, self.options.precision, self.options.threads)
        session, alone = self._opened(checkpoint, graph, options, length)
        return OnnxPairs(self.name, self.options.activation, session, tokenizer, checkpoint, one_at_a_time=alone)

    def _opened(
        self, checkpoint: Checkpoint, graph: Graph | None, options: SessionOptions, length: int
    ) -> tuple[Session, bool]:
        """Return what runs the model, and whether each pair must run alone."""
        if graph is None and looks_written(checkpoint):
            session = bert_session(checkpoint.folder, checkpoint.config, options, scorer=self.name)
            return session, session.one_at_a_time
        if graph is None:
            graph = self._exported(checkpoint, length)
        path: Path = graph.path
        if self.options.precision == "int8" and graph.holds == "fp32":
            from rerank_core.local.onnx.quantize import quantized

            path = quantized(graph.path, graph.beside, scorer=self.name)
        session = open_session(path, options, scorer=self.name)
        # The graph scales activations by the run, whatever runs it.
        return session, session.one_at_a_time or self.options.precision == "int8" or graph.holds == "int8"

    def _exported(self, checkpoint: Checkpoint, length: int) -> Graph:
        from rerank_core.local.onnx.export import exported

        if self.options.file_name is not None:
            raise ConfigurationError(
                f"{self.options.file_name} is of {checkpoint.config.get('architectures')}, which is not used as "
                "it lies: leave file_name out to have it exported with torch"
            )
        return read_graph(exported(checkpoint, scorer=self.name, length=length), self.name)
