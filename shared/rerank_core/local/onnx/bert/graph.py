"""The graph of a BERT-like classifier, in terms that each runtime's writer puts into its own operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rerank_core.local.formats.safetensors import Weights

__all__ = ["Activation", "BertShape", "BertWriter", "GraphWriter", "Names"]

Activation = Literal["gelu", "relu", "tanh"]
Array = npt.NDArray[np.float32]


class GraphWriter(Protocol):
    """Writes operators; values are (batch, tokens, width), named or held as the runtime likes."""

    def look_up(self, table: Array, input_name: str) -> Any:
        """Return the rows of a table that an input's ids choose."""

    def first_rows(self, table: Array) -> Any:
        """Return as many rows of a table as there are tokens."""

    def counted_rows(self, table: Array, pad_id: int) -> Any:
        """Return the rows of a table after ``pad_id``, counted over the tokens that are not ``pad_id``."""

    def add(self, left: Any, right: Any) -> Any:
        """Return the sum."""

    def linear(
        self, rows: Any, weight: Array, bias: Array, activation: Activation | None = None, *, exact: bool = False
    ) -> Any:
        """Return the activation of rows x transposed weight + bias; never in int8 where it is to be exact."""

    def normalise(self, rows: Any, weight: Array, bias: Array, epsilon: float) -> Any:
        """Return each row normalised, scaled and shifted."""

    def attention(self, query: Any, key: Any, value: Any, heads: int) -> Any:
        """Return the attention of the query's tokens to those that the attention mask leaves."""

    def first_token(self, rows: Any) -> Any:
        """Return the rows of the first token alone."""


@dataclass(frozen=True)
class Names:
    """What a family calls its weights, after the prefix: without ``.weight`` and ``.bias``."""

    prefix: str
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    norm: str


@dataclass(frozen=True)
class BertShape:
    """What a configuration says about the arithmetic.

    Attributes:
        names: of the weights.
        layers, heads: how many.
        hidden: width of a token.
        epsilon: of the normalisations.
        head: the classifier's layers and their activations, in order.
        counted: positions are counted over what is not padding, after ``pad_id``.
        token_types: there is an input of token types to look up.
        pad_id: the padding's token.
    """

    names: Names
    layers: int
    heads: int
    hidden: int
    epsilon: float
    head: tuple[tuple[str, Activation | None], ...]
    counted: bool
    token_types: bool
    pad_id: int


class BertWriter:
    """Writes a checkpoint's graph with a runtime's writer; the last layer for the first token alone."""

    def __init__(self, graph: GraphWriter, shape: BertShape, weights: Weights) -> None:
        self._graph = graph
        self._shape = shape
        self._weights = weights

    def logits(self) -> Any:
        """Return the logits, (batch, 1, labels).

        Raises:
            ConfigurationError: a weight is missing, or not of the configuration's shape.
        """
        hidden = self._embeddings()
        for layer in range(self._shape.layers):
            hidden = self._layer(layer, hidden, last=layer == self._shape.layers - 1)
        for name, activation in self._shape.head:
            hidden = self._linear(hidden, name, activation, exact=True)
        return hidden

    def _embeddings(self) -> Any:
        graph, shape = self._graph, self._shape
        prefix = shape.names.prefix + "embeddings."
        types = prefix + "token_type_embeddings.weight"
        projection = shape.names.prefix + "embeddings_project"
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

    def _layer(self, layer: int, hidden: Any, *, last: bool) -> Any:
        graph, names = self._graph, self._shape.names
        prefix = f"{names.prefix}{names.layer}.{layer}."
        rows = graph.first_token(hidden) if last else hidden
        # What one token of many needs takes no time to speak of, in single precision neither.
        first = partial(self._linear, exact=last)
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

    def _linear(self, rows: Any, name: str, activation: Activation | None = None, *, exact: bool = False) -> Any:
        weight = self._tensor(name + ".weight", None, None)
        bias = self._tensor(name + ".bias", weight.shape[0])
        return self._graph.linear(rows, weight, bias, activation, exact=exact)

    def _normalise(self, rows: Any, name: str, width: int) -> Any:
        # Checkpoints of before 2019 call them as TensorFlow does.
        scale = self._tensor((name + ".weight", name + ".gamma"), width)
        shift = self._tensor((name + ".bias", name + ".beta"), width)
        return self._graph.normalise(rows, scale, shift, self._shape.epsilon)

    def _tensor(self, names: str | Sequence[str], *shape: int | None) -> Array:
        return self._weights.tensor(names, shape)
