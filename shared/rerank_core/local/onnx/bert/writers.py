"""Writes BERT graphs, in ONNX Runtime's fused operators or in OpenVINO's; both writers have the same methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core.local.formats.onnx import FLOAT, INT32, INT64, GraphBuilder
from rerank_core.local.onnx.bert.int8 import Array, QuantizedRows, RowQuantizer
from rerank_core.local.runtimes import (
    ModelSession,
    OpenVinoSession,
    OrtSession,
    SessionOptions,
    require_openvino,
)

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


class OpenVinoGraph:
    """Writes the operators of a graph, as :class:`OrtGraph` does; values are nodes."""

    def __init__(self, quantizer: RowQuantizer | None) -> None:
        self._openvino = require_openvino()
        self._ops = require_openvino("openvino.opset13")
        self._quantizer = quantizer
        self._inputs = {name: self._input(name) for name in ("input_ids", "attention_mask")}
        self._mask = self._additive_mask()

    def session(self, output: Any, options: SessionOptions) -> ModelSession:
        model = self._openvino.Model([output], list(self._inputs.values()))
        return OpenVinoSession(model, threads=options.threads, precision=options.precision)

    def look_up(self, table: Array | QuantizedRows, input_name: str) -> Any:
        if input_name not in self._inputs:
            self._inputs[input_name] = self._input(input_name)
        return self._ops.gather(self._matrix(table), self._inputs[input_name], self._numbers(0))

    def first_rows(self, table: Array) -> Any:
        ops = self._ops
        length = ops.gather(ops.shape_of(self._inputs["input_ids"]), self._numbers(1), self._numbers(0))
        zero, one = self._numbers(0), self._numbers(1)
        return ops.slice(self._constant(table[None]), zero, length, one, one)

    def counted_rows(self, table: Array, pad_id: int) -> Any:
        ops, pad = self._ops, self._numbers(pad_id)
        counts = ops.convert(ops.not_equal(self._inputs["input_ids"], pad), "i64")
        counted = ops.multiply(ops.cumsum(counts, np.int64(1)), counts)
        return ops.gather(self._constant(table), ops.add(counted, pad), self._numbers(0))

    def add(self, left: Any, right: Any) -> Any:
        return self._ops.add(left, right)

    def linear(self, rows: Any, weight: Array, bias: Array, activation: str | None, *, exact: bool) -> Any:
        ops = self._ops
        matrix = self._matrix(self._quantizer(weight) if self._quantizer is not None and not exact else weight)
        out = ops.add(ops.matmul(rows, matrix, False, True), self._constant(bias[None, None]))  # noqa: FBT003
        if activation is None:
            return out
        if activation == "gelu":
            return ops.gelu(out, "erf")
        return ops.relu(out) if activation == "relu" else ops.tanh(out)

    def normalise(self, rows: Any, weight: Array, bias: Array, epsilon: float) -> Any:
        ops = self._ops
        normal = ops.mvn(rows, self._numbers(-1), True, epsilon, "inside_sqrt")  # noqa: FBT003
        scaled = ops.multiply(normal, self._constant(weight[None, None]))
        return ops.add(scaled, self._constant(bias[None, None]))

    def attention(self, query: Any, key: Any, value: Any, heads: int) -> Any:
        ops = self._ops
        split = [self._split(rows, heads) for rows in (query, key, value)]
        out = ops.scaled_dot_product_attention(*split, attention_mask=self._mask)
        return ops.reshape(ops.transpose(out, self._numbers(0, 2, 1, 3)), self._numbers(0, 0, -1), True)  # noqa: FBT003

    def first_token(self, rows: Any) -> Any:
        zero, one = self._numbers(0), self._numbers(1)
        return self._ops.slice(rows, zero, one, one, one)

    def drop_token_axis(self, rows: Any) -> Any:
        return self._ops.squeeze(rows, self._numbers(1))

    def _split(self, rows: Any, heads: int) -> Any:
        ops = self._ops
        width = rows.get_output_partial_shape(0)[2].get_length() // heads
        split = ops.reshape(rows, self._numbers(0, 0, heads, width), True)  # noqa: FBT003
        return ops.transpose(split, self._numbers(0, 2, 1, 3))

    def _additive_mask(self) -> Any:
        """Return 0 for the tokens to attend to, else a large negative number: (batch, 1, 1, tokens)."""
        ops = self._ops
        mask = ops.convert(self._inputs["attention_mask"], "f32")
        lowest = np.float32(np.finfo(np.float32).min)
        return ops.unsqueeze(ops.multiply(ops.subtract(np.float32(1), mask), lowest), self._numbers(1, 2))

    def _input(self, name: str) -> Any:
        parameter = self._ops.parameter([-1, -1], np.int64, name)
        parameter.output(0).set_names({name})
        return parameter

    def _numbers(self, *values: int) -> Any:
        return self._ops.constant(np.array(values, np.int64))

    def _matrix(self, value: Array | QuantizedRows) -> Any:
        if not isinstance(value, QuantizedRows):
            return self._constant(value)
        converted = self._ops.convert(self._constant(value.values), "f32")
        return self._ops.multiply(converted, self._constant(value.scales[:, None]))

    def _constant(self, value: Any) -> Any:
        return self._ops.constant(value, shared_memory=True)
