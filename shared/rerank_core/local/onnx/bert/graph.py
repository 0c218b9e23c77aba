"""The BERT family's network, written for a runtime straight from a checkpoint: no torch, no export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import ConfigurationError
from rerank_core.local.formats.safetensors import Weights
from rerank_core.local.onnx.bert.families import BertShape, read_shape
from rerank_core.local.onnx.bert.int8 import LARGEST_INT8, RowQuantizer, cached_quantizer, largest_int8
from rerank_core.local.onnx.bert.writers import OpenVinoGraph, OrtGraph
from rerank_core.local.runtimes import ModelSession, SessionOptions, choose_runtime

_WORDS = "embeddings.word_embeddings.weight"


def open_checkpoint(
    folder: Path, config: Mapping[str, Any], options: SessionOptions, projections: Sequence[Any] = ()
) -> ModelSession:
    """Load a checkpoint's ``model.safetensors``, or its shards, given its folder and its ``config.json``.

    The inputs are ``input_ids``, ``attention_mask`` and, where the model has more than one token type,
    ``token_type_ids``. The output is the logits, (pairs, labels); without a classifier each token's hidden state,
    multiplied with ``projections``, (out, in), in order: (texts, tokens, width).
    """
    openvino = choose_runtime(options.runtime, options.precision) == "openvino"
    weights, shape = Weights(folder), read_shape(config)
    if shape.prefix + _WORDS not in weights and _WORDS in weights:  # saved without a head
        shape = replace(shape, prefix="")

    def write(quantizer: RowQuantizer | None) -> tuple[OrtGraph | OpenVinoGraph, Any]:
        graph = OpenVinoGraph(quantizer) if openvino else OrtGraph(quantizer)
        output = BertWriter(graph, shape, weights).write()
        for projection in projections:
            output = graph.linear(output, projection, np.zeros(len(projection), np.float32), None, exact=True)
        return graph, output

    quantizer = None
    if options.precision == "int8":
        quantizer = cached_quantizer(weights.files, LARGEST_INT8 if openvino else largest_int8(), write)
    graph, logits = write(quantizer)
    session = graph.session(logits, options)
    weights.release_pages()
    return session


class BertWriter:
    """Writes a model's graph; with a classifier, only the first token goes through the last layer."""

    def __init__(
        self, graph: OrtGraph | OpenVinoGraph, shape: BertShape, weights: Weights | Mapping[str, Any]
    ) -> None:
        self._graph = graph
        self._shape = shape
        self._weights = weights

    def write(self) -> Any:
        """Return the logits, (batch, labels); without a classifier the hidden states, (batch, tokens, width)."""
        head, layers = self._shape.head, self._shape.layers
        hidden = self._embeddings()
        for layer in range(layers):
            hidden = self._layer(layer, hidden, first_only=bool(head) and layer == layers - 1)
        for name, activation in head:
            hidden = self._linear(hidden, name, activation, exact=True)
        return self._graph.drop_token_axis(hidden) if head else hidden

    def _embeddings(self) -> Any:
        graph, shape = self._graph, self._shape
        prefix = shape.prefix + "embeddings."
        types = prefix + "token_type_embeddings.weight"
        projection = shape.prefix + "embeddings_project"
        projected = projection + ".weight" in self._weights
        positions = self._tensor(prefix + "position_embeddings.weight", None, None if projected else shape.hidden)
        width = positions.shape[1]
        if not shape.token_types and types in self._weights:  # all tokens are of type 0
            positions = positions + self._tensor(types, None, width)[0]
        words = graph.look_up(self._tensor(prefix + "word_embeddings.weight", None, width), "input_ids")
        counted = graph.counted_rows(positions, shape.pad_id) if shape.counted else graph.first_rows(positions)
        rows = graph.add(words, counted)
        if shape.token_types:
            rows = graph.add(rows, graph.look_up(self._tensor(types, None, width), "token_type_ids"))
        rows = self._normalise(rows, prefix + "LayerNorm", width)
        return self._linear(rows, projection) if projected else rows

    def _layer(self, layer: int, hidden: Any, *, first_only: bool) -> Any:
        graph, names = self._graph, self._shape.names
        prefix = f"{self._shape.prefix}{names.layer}.{layer}."
        rows = graph.first_token(hidden) if first_only else hidden
        # For one token only, single precision costs nothing.
        first = partial(self._linear, exact=first_only)
        attention = graph.attention(
            first(rows, prefix + names.query),
            self._linear(hidden, prefix + names.key),
            self._linear(hidden, prefix + names.value),
            self._shape.heads,
        )
        rows = graph.add(first(attention, prefix + names.attention_output), rows)
        rows = self._normalise(rows, prefix + names.attention_norm, self._shape.hidden)
        inner = first(rows, prefix + names.up, "gelu")
        rows = graph.add(first(inner, prefix + names.down), rows)
        return self._normalise(rows, prefix + names.norm, self._shape.hidden)

    def _linear(self, rows: Any, name: str, activation: str | None = None, *, exact: bool = False) -> Any:
        weight = self._tensor(name + ".weight", None, None)
        bias = self._tensor(name + ".bias", weight.shape[0])
        return self._graph.linear(rows, weight, bias, activation, exact=exact)

    def _normalise(self, rows: Any, name: str, width: int) -> Any:
        # Checkpoints from before 2019 use TensorFlow's names.
        old = name + ".gamma" in self._weights
        scale = self._tensor(name + (".gamma" if old else ".weight"), width)
        shift = self._tensor(name + (".beta" if old else ".bias"), width)
        return self._graph.normalise(rows, scale, shift, self._shape.epsilon)

    def _tensor(self, name: str, *shape: int | None) -> Any:
        """Return a tensor of this shape; None stands for any size."""
        if name not in self._weights:
            raise ConfigurationError(f"the weights have no tensor {name!r}")
        tensor = self._weights[name]
        if len(shape) != len(tensor.shape) or any(
            size not in (None, given) for size, given in zip(shape, tensor.shape, strict=True)
        ):
            expected = " x ".join("any" if size is None else str(size) for size in shape)
            raise ConfigurationError(
                f"the tensor {name!r} is {' x '.join(map(str, tensor.shape))}, and config.json says {expected}"
            )
        return tensor
