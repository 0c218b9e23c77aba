"""ColBERT checkpoints as scorers: colbertv2, answerai-colbert-small, GTE-ModernColBERT, mxbai-edge-colbert, …

The score of a text is the mean, over the query's tokens, of the cosine to the text's most similar token, as
(1 + mean) / 2. These scores lie close together and differ from model to model: for thresholds, calibrate them
(:class:`rerank_core.policies.Calibrated`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.late.scorer import LateOptions, LateScorer
from rerank_core.local.runtimes.session import Precision, Runtime, choose_runtime
from rerank_core.scorer import Scale, ScorerOptions

if TYPE_CHECKING:
    from rerank_core.local.late.colbert_encoder import ColbertEncoder

__all__ = ["ColbertOptions", "ColbertScorer"]


@dataclass(frozen=True, kw_only=True)
class ColbertOptions(LateOptions):
    """The options of :class:`ColbertScorer`, besides those of every late-interaction scorer.

    Attributes:
        max_length: tokens of a document that are read, with what the model adds to it; by default the model's own
            limit. How much of a query is read, the model says.
        runtime: without torch: ``"onnxruntime"``, ``"openvino"``, or ``"auto"``: OpenVINO on x86 CPUs where it is
            installed.
        precision: ``"fp32"``; ``"bf16"``, on torch, or on OpenVINO and CPUs that have it; ``"int8"``, without
            torch; or ``"auto"``: fp32 if there is any, on torch what the model was saved in.
        device: has torch run the model, on ``"cpu"``, ``"cuda"``, ``"mps"``, …
        file_name: the file within the model's folder with the weights: an ONNX file, or ``model.safetensors`` to
            have the checkpoint used where there is an ONNX file too.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; use what its cache on this machine has.
        trust_remote_code: run Python code that comes with the model, on torch.

    Raises:
        ConfigurationError: an option is out of its range, or does not go with another.
        MissingExtraError: a package is not installed that the options need.
    """

    runtime: Runtime = "auto"
    precision: Precision = "auto"
    device: str | None = None
    file_name: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_installed("onnxruntime", "tokenizers", "numpy", extra="onnx", purpose="this scorer")
        if self.device is None:
            choose_runtime(self.runtime, self.precision)
        elif self.runtime != "auto" or self.precision == "int8" or self.file_name is not None:
            raise ConfigurationError(
                f"device={self.device!r} is torch's: leave out runtime=, precision='int8' and file_name="
            )


class ColbertScorer(LateScorer):
    """A ColBERT checkpoint, whose queries and documents are encoded apart and compared token by token.

    Markers, lengths, query expansion, skiplist and projection are those of the checkpoint's own files, in the
    layout of ColBERT's authors, of PyLate or of sentence-transformers. Where no ``device`` is given, the first of
    these runs the model:

    1. an ONNX file that includes the projection: ``model.onnx``, ``onnx/model.onnx``, ``vespa_colbert.onnx``, or
       for int8 those that :class:`rerank_core.local.onnx.scorer.OnnxScorer` lists;
    2. a checkpoint of the BERT family with ``model.safetensors``, without conversion;
    3. sentence-transformers' ``MultiVectorEncoder``, on torch (extra ``local``).

    Args:
        model: a local folder or a hub id, such as ``"answerdotai/answerai-colbert-small-v1"``, with
            ``tokenizer.json`` and ``config.json``.
        options: the fields of :class:`ColbertOptions`.

    Raises:
        ConfigurationError: an option is out of its range; on first use, the model is no ColBERT checkpoint.
        MissingExtraError: a package is not installed that the options need; on first use, that the model needs.
        ScorerUnavailableError: on first use, the hub cannot be reached.
    """

    provider = "late"
    Options: ClassVar[type[ScorerOptions]] = ColbertOptions
    options: ColbertOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {*LateScorer.options_without_effect_on_scores, "local_files_only"}
    )
    scale: Scale = "cosine"

    def load(self) -> ColbertEncoder:
        """Find the files, and load the model and its tokenizer."""
        # Imported here because it needs numpy, which importing this module must not.
        from rerank_core.local.late.colbert_encoder import load_encoder

        return load_encoder(self.model, self.options)

    def combine(self, cosine: Any, best: Any) -> Any:  # noqa: ARG002 - the means are not compared
        """Return the mean of the best matches."""
        return best
