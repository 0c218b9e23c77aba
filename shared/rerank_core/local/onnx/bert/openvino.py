"""Writes BERT graphs in OpenVINO's operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from rerank_core.local.onnx.bert.int8 import Array, QuantizedRows, RowQuantizer
from rerank_core.local.runtimes.openvino import OpenVinoSession, require_openvino
from rerank_core.local.runtimes.session import ModelSession, SessionOptions


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
