"""A ColBERT checkpoint as an encoder of queries and documents, on whatever runs its files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rerank_core._support.files import digest, digest_file
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.formats.safetensors import Weights, has_weights
from rerank_core.local.hub import ModelFiles
from rerank_core.local.late.encoding import TokenEncoder, TokenIds, TokenVectors, normalise
from rerank_core.local.late.forms import TextForm, read_forms
from rerank_core.local.onnx.bert.graph import open_checkpoint
from rerank_core.local.onnx.bert.int8 import largest_int8
from rerank_core.local.onnx.model_files import GraphFile, can_write_graph, find_graph, quantize
from rerank_core.local.runtimes.session import ModelSession, SessionOptions, open_session
from rerank_core.local.tokens import encode

if TYPE_CHECKING:
    from rerank_core.local.torch.multi_vector import MultiVectorSession

_PROBE = "How is THIS read (again)? Über 3 words, at least."
_TOLERANCE = 0.02


class ColbertEncoder(TokenEncoder):
    """A ColBERT model and its cache; used in the engine's thread only.

    Args:
        session: runs the model.
        checkpoint: its files.
        options: of the scorer.
        graph: the ONNX file that the session runs; None for the checkpoint's own weights.
    """

    tokens_per_batch: int

    def __init__(
        self,
        session: ModelSession | MultiVectorSession,
        checkpoint: Checkpoint,
        options: Any,
        graph: GraphFile | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._options = options
        self._graph = graph
        tokenizer = checkpoint.tokenizer(1)
        self._query, self._document = read_forms(checkpoint, tokenizer, options.max_length)
        self._skipped = np.array(self._document.skipped, np.int64)
        super().__init__(
            session,
            tokenizer,
            threads=options.threads,
            cache_bytes=options.cache_bytes,
            pad_id=checkpoint.pad_id(tokenizer),
        )
        if not self.max_text_tokens(""):
            raise ConfigurationError(
                f"max_length={self._document.limit} leaves no token of a document beside what the model adds: "
                "give a larger one, or leave it out"
            )

    @cached_property
    def name(self) -> str:
        """Names the weights, wherever they lie, and how texts are read."""
        folder = self._checkpoint.folder
        weights = sorted(path for kind in ("*.safetensors", "*.bin") for path in folder.rglob(kind))
        files = weights if self._graph is None else [self._graph.path, *self._graph.beside]
        digests = [digest_file(path) for path in (*files, folder / "tokenizer.json")]
        return f"ColBERT, {digest(*digests)}, {self._options.precision}, {largest_int8()}, {self._document}"

    def tokenize(self, texts: Sequence[str], *, queries: bool = False) -> Sequence[TokenIds]:
        """Return the tokens of queries or documents with their marker; queries are filled up with masks."""
        form = self._query if queries else self._document
        self._tokenizer.enable_truncation(form.limit)
        encodings = encode(self._tokenizer, [form.prompt + text for text in texts], form.limit)
        return [self._item(encoding.ids, form) for encoding in encodings]

    def _item(self, ids: list[int], form: TextForm) -> TokenIds:
        filled = ids + [form.fill_id] * (form.filled - len(ids))
        kept = np.isin(filled, self._skipped, invert=True) if form.skipped else slice(None)
        return TokenIds(filled, len(filled) if form.attends else len(ids), kept)

    def forward(self, items: Sequence[TokenIds], /) -> Sequence[TokenVectors]:
        """Return the vectors of texts."""
        if self._graph is None or self._graph.precision != "int8":
            return super().forward(items)
        # Graphs in int8 have one scale of activations per run, whatever runs them.
        return [output for item in items for output in super(ColbertEncoder, self).forward([item])]

    def finish(self, item: TokenIds, vectors: npt.NDArray[np.float32]) -> TokenVectors:
        """Return the vectors of the tokens that are compared, which all count the same."""
        tokens = normalise(vectors[item.kept])
        weights = np.full(len(tokens), 1 / max(1, len(tokens)), np.float32)
        return TokenVectors(tokens, normalise(tokens.sum(axis=0)), weights)

    def max_text_tokens(self, query: str) -> int:  # noqa: ARG002 - it is encoded apart
        """Return how many tokens of a text are read beside a query."""
        return max(0, self._document.limit - len(self.tokenize([""])[0]))


def load_encoder(model: str, options: Any) -> ColbertEncoder:
    """Return the encoder of a folder or a hub id.

    Raises:
        ConfigurationError: the model is no ColBERT checkpoint, or cannot be run with these options.
        MissingExtraError: a package is not installed that the model needs.
        ScorerUnavailableError: the hub cannot be reached.
    """
    files = ModelFiles(model, revision=options.revision, offline=options.local_files_only, owner=None)
    checkpoint = Checkpoint(files.fetch("*_Dense/model.safetensors"))
    if options.device is None:
        encoder = _load_without_torch(files, checkpoint, options)
        if encoder is not None:
            return encoder
        if options.runtime != "auto" or options.precision == "int8" or options.file_name is not None:
            raise ConfigurationError(
                "the model has neither an ONNX file with its projection nor weights of the BERT family: leave out "
                "runtime=, precision= and file_name= to have torch run it"
            )
    from rerank_core.local.torch.multi_vector import MultiVectorSession

    if not (
        checkpoint.is_stanford() or checkpoint.late_settings().get("model_type") or _dense_folders(checkpoint)
    ):
        raise ConfigurationError(f"{checkpoint.folder} has no projection, so that scores would be random")
    session = MultiVectorSession(model, options, offline=files.is_cached)
    encoder = ColbertEncoder(session, checkpoint, options, None)
    encoder.tokens_per_batch = options.tokens_per_batch or session.tokens_per_batch
    for queries in (True, False):
        (ours,) = encoder.forward(encoder.tokenize([_PROBE], queries=queries))
        theirs = session.encode(_PROBE, queries=queries)
        if theirs.shape != ours.tokens.shape or not np.allclose(theirs, ours.tokens, atol=_TOLERANCE):
            raise ConfigurationError(
                "sentence-transformers reads texts with this model in another way than its files say: use another "
                "model"
            )
    return encoder


def _load_without_torch(files: ModelFiles, checkpoint: Checkpoint, options: Any) -> ColbertEncoder | None:
    """Return the encoder on ONNX Runtime or OpenVINO; None where the files need torch."""
    graph = find_graph(files, checkpoint, options.file_name, options.precision)
    runtime = SessionOptions(options.runtime, options.precision, options.threads)
    if graph is not None:
        if options.precision == "int8" and graph.precision != "int8":
            graph = quantize(graph)
        session = open_session(graph.path, runtime)
        return ColbertEncoder(session, checkpoint, options, graph) if _projects(session, checkpoint) else None
    projections = _read_projections(checkpoint) if can_write_graph(checkpoint) else None
    if projections is None:
        return None
    session = open_checkpoint(checkpoint.folder, checkpoint.config, runtime, projections)
    return ColbertEncoder(session, checkpoint, options, None)


def _width(session: ModelSession) -> int:
    """Return how many numbers a token's vector has."""
    ones = np.ones((1, 2), np.int64)
    feed = {"input_ids": ones, "attention_mask": ones, "token_type_ids": np.zeros_like(ones)}
    (output, *_) = session.run({name: feed[name] for name in feed.keys() & session.inputs})
    if output.ndim != feed["input_ids"].ndim + 1:
        raise ConfigurationError(f"the ONNX model returns {output.ndim} dimensions, not a vector per token")
    return int(output.shape[-1])


def _projects(session: ModelSession, checkpoint: Checkpoint) -> bool:
    """Tell whether an ONNX file includes the projection, by the width of what it returns."""
    folders = _dense_folders(checkpoint)
    if not folders and not checkpoint.is_stanford():
        return True
    wanted = checkpoint.read_json(f"{folders[-1]}/config.json" if folders else "artifact.metadata")
    width = _width(session)
    projected = wanted.get("out_features", wanted.get("dim", width))
    return bool(width == projected != checkpoint.config.get("hidden_size"))


def _dense_folders(checkpoint: Checkpoint) -> list[str]:
    return [folder for kind, folder in checkpoint.modules() if kind == "Dense"]


def _read_projections(checkpoint: Checkpoint) -> list[npt.NDArray[np.float32]] | None:
    """Return the matrices that a token's hidden state is multiplied with; None where there is more to it."""
    if checkpoint.is_stanford():
        return [Weights(checkpoint.folder)["linear.weight"]]
    matrices = []
    for folder in _dense_folders(checkpoint):
        settings = checkpoint.read_json(f"{folder}/config.json")
        plain = str(settings.get("activation_function")).endswith(".Identity") and not settings.get("use_residual")
        if settings.get("bias") or not plain or not has_weights(checkpoint.folder / folder):
            return None
        matrices.append(Weights(checkpoint.folder / folder)["linear.weight"])
    return matrices or None
