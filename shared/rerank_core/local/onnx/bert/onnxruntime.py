"""Writes BERT graphs in ONNX Runtime's fused operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core.local.formats.onnx import FLOAT, INT32, INT64, GraphBuilder
from rerank_core.local.onnx.bert.int8 import Array, QuantizedRows, RowQuantizer
from rerank_core.local.runtimes.onnxruntime import OrtSession
from rerank_core.local.runtimes.session import ModelSession, SessionOptions

_FUSED = "com.microsoft"
# A quantised row is unsigned bytes around 128, in steps of 1 / 127 of the row's largest magnitude.
_STEP = np.array(1 / 127, np.float32)
_MIDDLE = np.array(128, np.uint8)
_LEAST = np.array(1e-30, np.float32)
"""What a row of zeros is divided by."""

_SMALL = 1024
"""Constants of fewer values are written into the model; larger ones stay where they are in memory."""

_OPERATORS: dict[str, tuple[str, str]] = {
    "gelu": ("Gelu", _FUSED),
    "relu": ("Relu", ""),
    "tanh": ("Tanh", ""),
}


class OrtGraph:
    """Writes the operators of a graph; values, (batch, tokens, width), are names in the model.

    The quantizer makes matrices int8; None for single precision.
    """

    def __init__(self, quantizer: RowQuantizer | None) -> None:
        self._quantizer = quantizer
        self._dimensions: tuple[str, ...] = ("batch", "tokens", "width")
        self._quantized_rows: dict[str, tuple[str, str]] = {}
        self._graph = GraphBuilder(opset=18)
        self._inputs = ["input_ids", "attention_mask"]
        self._mask = self._graph.node("Cast", ["attention_mask"], {"to": INT32})

    def session(self, output: str, options: SessionOptions) -> ModelSession:
        """Return the session with one output."""
        inputs = dict.fromkeys(self._inputs, (INT64, ("batch", "tokens")))
        model = self._graph.model(inputs, output, self._dimensions)
        return OrtSession(model, threads=options.threads, weights=self._graph.externals)

    def look_up(self, table: Array | QuantizedRows, input_name: str) -> str:
        """Return the rows of a table that an input's ids choose."""
        if input_name not in self._inputs:
            self._inputs.append(input_name)
        if isinstance(table, QuantizedRows):
            parts = (table.values, table.scales[:, None])
            values, scales = (self._graph.node("Gather", [self._constant(part), input_name]) for part in parts)
            return self._graph.node("Mul", [self._graph.node("Cast", [values], {"to": FLOAT}), scales])
        return self._graph.node("Gather", [self._constant(table), input_name])

    def first_rows(self, table: Array) -> str:
        """Return as many rows of a table as there are tokens."""
        length = self._graph.node("Shape", ["input_ids"], {"start": 1, "end": 2})
        return self._graph.node("Slice", [self._constant(table[None]), self._numbers(0), length, self._numbers(1)])

    def counted_rows(self, table: Array, pad_id: int) -> str:
        """Return the rows of a table after ``pad_id``, counted over the tokens that are not ``pad_id``."""
        graph, pad = self._graph, self._numbers(pad_id)
        is_pad = graph.node("Equal", ["input_ids", pad])
        counts = graph.node("Cast", [graph.node("Not", [is_pad])], {"to": INT64})
        counted = graph.node("Mul", [graph.node("CumSum", [counts, self._numbers(1)]), counts])
        return graph.node("Gather", [self._constant(table), graph.node("Add", [counted, pad])])

    def add(self, left: str, right: str) -> str:
        """Return the sum."""
        return self._graph.node("Add", [left, right])

    def linear(self, rows: str, weight: Array, bias: Array, activation: str | None, *, exact: bool) -> str:
        """Return the activation of rows x transposed weight + bias; never in int8 where it is to be exact."""
        graph = self._graph
        if self._quantizer is not None and not exact:
            out = self._int8_product(rows, self._quantizer(weight))
        else:
            # The matrices of a checkpoint lie transposed, and are packed from there: no copy in between.
            out = graph.node("FusedMatMul", [rows, self._constant(weight)], {"transB": 1}, _FUSED)
        if activation == "gelu":
            return graph.node("BiasGelu", [out, self._constant(bias)], domain=_FUSED)
        out = self.add(out, self._constant(bias))
        if activation is None:
            return out
        operator, domain = _OPERATORS[activation]
        return graph.node(operator, [out], domain=domain)

    def normalise(self, rows: str, weight: Array, bias: Array, epsilon: float) -> str:
        """Return each row normalised, scaled and shifted."""
        # Apart from the sum before it on purpose: SkipLayerNormalization, which does both, takes longer.
        parameters = [self._constant(weight), self._constant(bias)]
        return self._graph.node("LayerNormalization", [rows, *parameters], {"epsilon": epsilon})

    def attention(self, query: str, key: str, value: str, heads: int) -> str:
        """Return the attention of the query's tokens to those that the attention mask leaves."""
        return self._graph.node(
            "MultiHeadAttention", [query, key, value, "", self._mask], {"num_heads": heads}, _FUSED
        )

    def first_token(self, rows: str) -> str:
        """Return the rows of the first token alone."""
        one = self._numbers(1)
        return self._graph.node("Slice", [rows, self._numbers(0), one, one])

    def drop_token_axis(self, rows: str) -> str:
        """Return (batch, width) from (batch, 1, width)."""
        self._dimensions = ("batch", "width")
        return self._graph.node("Squeeze", [rows, self._numbers(1)])

    def _int8_product(self, rows: str, weight: QuantizedRows) -> str:
        """Multiply in int8, with one scale per row of activations.

        The one operator that does all of this, DynamicQuantizeMatMul, has one scale for all rows, so that a score
        would depend on the rest of its batch.
        """
        graph = self._graph
        values, scales = weight
        quantized, peaks = self._quantize(rows)
        matrix = self._constant(np.ascontiguousarray(values.T))
        step, middle = graph.weight(_STEP), graph.weight(_MIDDLE)
        out = graph.node(
            "MatMulIntegerToFloat", [quantized, matrix, step, graph.weight(scales), middle], domain=_FUSED
        )
        return graph.node("Mul", [out, peaks])

    def _quantize(self, rows: str) -> tuple[str, str]:
        """Return rows as bytes, and each row's largest magnitude."""
        if rows not in self._quantized_rows:
            graph = self._graph
            largest = graph.node("ReduceMax", [graph.node("Abs", [rows]), self._numbers(-1)])
            peaks = graph.node("Max", [largest, graph.weight(_LEAST)])
            relative = graph.node("Div", [rows, peaks])
            step, middle = graph.weight(_STEP), graph.weight(_MIDDLE)
            self._quantized_rows[rows] = graph.node("QuantizeLinear", [relative, step, middle]), peaks
        return self._quantized_rows[rows]

    def _numbers(self, *values: int) -> str:
        return self._graph.weight(np.array(values, np.int64))

    def _constant(self, value: npt.NDArray[Any]) -> str:
        return self._graph.weight(value) if value.size < _SMALL else self._graph.external(value)
