"""Cross-encoders on ONNX Runtime: no torch, any model with an ONNX file and a ``tokenizer.json``."""

from __future__ import annotations

from dataclasses import dataclass, field

from rerank_core._optional import check_installed
from rerank_core.batching import Scale
from rerank_core.errors import ConfigurationError
from rerank_core.scorers._checkpoint import Checkpoint, find_folder
from rerank_core.scorers._local import Activation, PairScorer, check_options, scale_of
from rerank_core.scorers._onnx_pairs import OnnxPairs
from rerank_core.scorers._ort import OrtSession as Session

__all__ = ["OnnxScorer"]

_FILES = ("model.onnx", "onnx/model.onnx")
_BESIDE = ("*.json", "*.onnx_data", "*.onnx.data", "onnx/*.onnx_data", "onnx/*.onnx.data")


@dataclass(frozen=True)
class OnnxScorer(PairScorer):
    """A cross-encoder run by ONNX Runtime on the CPU.

    Attributes:
        model: a local folder, or a hub id, with ``model.onnx`` or ``onnx/model.onnx``, ``tokenizer.json`` and
            ``config.json``; one output logit, or two (the second one for "relevant").
        file_name: the ONNX file within it, where it is called otherwise.
        max_length: tokens of query and text together that are read, at least 1; by default what the model's
            files say. Longer pairs lose tokens of whichever is longer, as sentence-transformers truncates.
        tokens_per_batch: padded tokens a batch, at least 1.
        threads: cores to use, at least 1; by default all that the process and its container may use.
        activation: see :data:`Activation`.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; use what its cache on this machine has.

    Raises:
        ConfigurationError: an option is out of its range; on first use, a file is missing.
        MissingExtraError: onnxruntime or tokenizers is not installed.
        ScorerUnavailableError: on first use, the hub cannot be reached.
    """

    model: str
    file_name: str | None = None
    max_length: int | None = None
    tokens_per_batch: int = 1024
    threads: int | None = None
    activation: Activation = "auto"
    revision: str | None = None
    local_files_only: bool = False
    name: str = field(init=False)
    scale: Scale = field(init=False)

    def __post_init__(self) -> None:
        check_installed("onnxruntime", "tokenizers", "numpy", extra="onnx", purpose="onnx:")
        check_options(self, counts=["tokens_per_batch"], optional=["max_length", "threads"])
        object.__setattr__(self, "name", f"onnx:{self.model}")
        object.__setattr__(self, "scale", scale_of(self.activation))

    def load(self) -> OnnxPairs:
        """Find the files, and load the model and its tokenizer."""
        names = _FILES if self.file_name is None else (self.file_name,)
        folder = find_folder(
            self.name, self.model, [*names, *_BESIDE], revision=self.revision, offline=self.local_files_only
        )
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise ConfigurationError(
                f"{self.name}: {folder} has no {' or '.join(names)}: give file_name=, or export the model "
                "to ONNX, or use 'cross-encoder:' which runs it with torch"
            )
        checkpoint = Checkpoint(self.name, folder)
        tokenizer = checkpoint.tokenizer(self.max_length or checkpoint.max_length())
        session = Session(found, threads=self.threads, scorer=self.name)
        return OnnxPairs(self.name, self.activation, session, tokenizer, checkpoint)
