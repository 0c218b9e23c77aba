"""A ColBERT checkpoint as an encoder of queries and documents, on whatever runs its files.

Its files say how texts are read: markers, lengths, expansion, skiplist. Stanford's layout has a file
``artifact.metadata``, PyLate's has settings of the whole model, and that of sentence-transformers has settings of
each module. What they do not say is ColBERT's default.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rerank_core._support.extras import require
from rerank_core._support.files import digest, digest_file
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.formats.safetensors import Weights, has_weights
from rerank_core.local.hub import ModelFiles
from rerank_core.local.late.encoding import TextForm, TokenEncoder, TokenIds, TokenVectors, normalise
from rerank_core.local.onnx.bert.graph import open_checkpoint
from rerank_core.local.onnx.bert.int8 import largest_int8
from rerank_core.local.onnx.model_files import GraphFile, can_write_graph, find_graph, quantize
from rerank_core.local.runtimes import ModelSession, SessionOptions, open_session

if TYPE_CHECKING:
    from rerank_core.local.torch.multi_vector import MultiVectorSession

_MODULES = ("Transformer", "Dense", "MultiVectorMask", "Normalize")
"""Those of the library that ColBERT checkpoints have; the last one makes vectors of length 1."""
_FILLED = 32
"""Tokens that ColBERT fills queries up to."""
_PROBE = "How is THIS read (again)? Über 3 words, at least."
_TOLERANCE = 0.02


class ColbertEncoder(TokenEncoder):
    """A ColBERT model and its cache. Without an ONNX file it is run from the checkpoint's weights."""

    tokens_per_batch: int

    def __init__(
        self,
        session: ModelSession | MultiVectorSession,
        checkpoint: Checkpoint,
        options: Any,
        graph: GraphFile | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._graph = graph
        # Without torch, fp32 is what "auto" means, and records are known by that.
        is_auto = options.precision == "fp32" and isinstance(session, ModelSession)
        self._precision = "auto" if is_auto else options.precision
        tokenizer = checkpoint.tokenizer()
        query, document = _read_forms(checkpoint, tokenizer, options.max_length)
        super().__init__(session, tokenizer, query, document, options, pad_id=checkpoint.pad_id(tokenizer))
        if not self.max_text_tokens(""):
            raise ConfigurationError(
                f"max_length={document.limit} leaves no token of a document beside what the model adds: "
                "give a larger one, or leave it out"
            )

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """Digests of the weights, wherever they lie, and how texts are read."""
        folder = self._checkpoint.folder
        weights = sorted(path for kind in ("*.safetensors", "*.bin") for path in folder.rglob(kind))
        files = weights if self._graph is None else [self._graph.path, *self._graph.beside]
        digests = [digest_file(path) for path in (*files, folder / "tokenizer.json")]
        return f"ColBERT, {digest(*digests)}, {self._precision}, {largest_int8()}, {self._document}"

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


def load_encoder(model: str, options: Any) -> ColbertEncoder:
    """Return the encoder of a folder or a hub id."""
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


def _projects(session: ModelSession, checkpoint: Checkpoint) -> bool:
    """Tell whether an ONNX file includes the projection, by the width of what it returns."""
    folders = _dense_folders(checkpoint)
    if not folders and not checkpoint.is_stanford():
        return True
    ones = np.ones((1, 2), np.int64)
    feed = {"input_ids": ones, "attention_mask": ones, "token_type_ids": np.zeros_like(ones)}
    (output, *_) = session.run({name: feed[name] for name in feed.keys() & session.inputs})
    if output.ndim != ones.ndim + 1:
        raise ConfigurationError(f"the ONNX model returns {output.ndim} dimensions, not a vector per token")
    width = output.shape[-1]
    wanted = checkpoint.read_json(f"{folders[-1]}/config.json" if folders else "artifact.metadata")
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


def _read_forms(checkpoint: Checkpoint, tokenizer: Any, max_length: int | None) -> tuple[TextForm, TextForm]:
    """Return how a checkpoint reads queries, and how documents; its tokenizer is told the markers here."""
    if not checkpoint.is_late():
        raise ConfigurationError(f"the model is not for late interaction: it looks like {checkpoint.describe()}")
    checkpoint.check_length(max_length)
    modules = dict(checkpoint.modules())
    whole = _read_stanford(checkpoint) if checkpoint.is_stanford() else checkpoint.late_settings()
    is_native = whole.get("model_type") == "MultiVectorEncoder"  # saved by sentence-transformers, without PyLate
    if modules.keys() - set(_MODULES) or (is_native and "Normalize" not in modules):
        raise ConfigurationError(f"the model's modules are {', '.join(modules)}: known are {', '.join(_MODULES)}")
    folder = PurePosixPath(next(iter(modules.values()), ""))
    first = checkpoint.read_json(str(folder / "sentence_bert_config.json"))
    if first.get("do_lower_case") or whole.get("do_lower_case"):
        normalizers: Any = require("tokenizers.normalizers", extra="onnx", purpose="reading texts")
        known = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *known])
    longest = first.get("max_seq_length") or checkpoint.max_length()
    query, document = (
        TextForm(_prompt(whole, kind, tokenizer), int(first.get(length) or whole.get(length) or longest))
        for kind, length in (("query", "query_length"), ("document", "document_length"))
    )
    if "query_expansion" in first or "query_expansion" in whole:
        expansion = {**whole, **first}["query_expansion"]
    elif is_native or whole.get("do_query_expansion") is False:
        expansion = None
    else:
        attend = whole.get("attend_to_expansion_tokens", whole.get("attend_to_mask_tokens"))
        expansion = {"strategy": "fixed", "attend": attend, "length": whole.get("query_length") or _FILLED}
    if expansion is not None:
        token, filled = expansion.get("token"), int(expansion["length"])
        if token is not None:
            fill_id = tokenizer.token_to_id(token)
        else:  # an ONNX export of PyLate's has the number, and no file with the token's name
            fill_id = checkpoint.special_id(tokenizer, "mask_token", "eos_token") or whole.get("mask_token_id")
        if fill_id is None:
            raise ConfigurationError("queries are filled up with a token that tokenizer.json does not have")
        limit = filled if expansion["strategy"] == "fixed" else max(filled, query.limit)
        query = replace(query, limit=limit, filled=filled, fill_id=fill_id, attends=bool(expansion.get("attend")))
    words = whole.get("skiplist_words")
    if is_native:
        mask = checkpoint.read_json(f"{modules.get('MultiVectorMask')}/config.json")
        words = mask.get("skiplist_words") or ()
        if mask.get("keep_only_token_ids") or mask.get("skiplist_tasks", ["document"]) != ["document"]:
            raise ConfigurationError("the model leaves out other tokens than those of its skiplist in documents")
    words = string.punctuation if words is None else words
    skipped = {tokenizer.token_to_id(word) for word in words} - {None}
    return query, replace(document, limit=max_length or document.limit, skipped=tuple(sorted(skipped)))


def _read_stanford(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what Stanford's file says, by PyLate's names."""
    metadata = checkpoint.read_json("artifact.metadata")
    return {
        "query_prefix": (metadata.get("query_token_id") or "[unused0]") + " ",
        "document_prefix": (metadata.get("doc_token_id") or "[unused1]") + " ",
        "query_length": metadata.get("query_maxlen"),
        "document_length": metadata.get("doc_maxlen"),
        "attend_to_expansion_tokens": metadata.get("attend_to_mask_tokens"),
        "skiplist_words": string.punctuation if metadata.get("mask_punctuation", True) else "",
    }


def _prompt(whole: Mapping[str, Any], kind: str, tokenizer: Any) -> str:
    """Return what is written before texts; a marker in it becomes one token, as it was in training."""
    prefix = whole.get(f"{kind}_prefix") or ""
    for marker in (prefix, *prefix.split()[:1]):
        if prefix.strip() and tokenizer.token_to_id(marker) is not None:
            if tokenizer.encode(marker, add_special_tokens=False).tokens != [marker]:
                tokens: Any = require("tokenizers", extra="onnx", purpose="reading texts")
                tokenizer.add_special_tokens([tokens.AddedToken(marker, normalized=False, special=True)])
            break
    prompt = (whole.get("prompts") or {}).get(kind) or ""
    return prefix + str(prompt).removeprefix(prefix)
