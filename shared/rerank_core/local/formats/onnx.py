"""Just enough of the ONNX file format to read a model's weights and to write a model, without the onnx package.

The field numbers are those of ``onnx.proto`` (IR version 8), the encoding that of Protocol Buffers: a key of field
number and wire type, then a varint (type 0), eight bytes (1), a length and as many bytes (2), or four bytes (5).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["GraphBuilder", "WeightSummary", "read_weights", "summarize_weights"]

_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_FLOAT, _INT64 = 1, 7

Array = npt.NDArray[Any]


def read_weights(model: bytes) -> dict[str, Array]:
    """Return the initializers of a model by name, in the file's order, as views of its bytes.

    Those whose data does not stand in the file as raw bytes, or is of a rare type, are left out.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    graph = next((value for number, value in _fields(memoryview(model)) if number == 7), None)
    if not isinstance(graph, memoryview):
        raise ValueError("no ONNX model: it holds no graph")
    found: dict[str, Array] = {}
    for number, value in _fields(graph):
        if number == 5 and isinstance(value, memoryview):
            parts = _tensor(value)
            if parts is not None:
                found[parts[0]] = parts[1]
    return found


@dataclass
class WeightSummary:
    """What a model's weights are.

    Attributes:
        elements: how many there are by the number of their type in ``onnx.proto``.
        files: names of the files, relative to the model's folder, that hold those which are not in the model.
    """

    elements: dict[int, int] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


def summarize_weights(model: bytes | memoryview) -> WeightSummary:
    """Return what a model's initializers are, without their values.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    graph = next((value for number, value in _fields(memoryview(model)) if number == 7), None)
    if not isinstance(graph, memoryview):
        raise ValueError("no ONNX model: it holds no graph")
    found = WeightSummary()
    for number, value in _fields(graph):
        if number == 5 and isinstance(value, memoryview):
            _summarize(value, found)
    return found


def _summarize(tensor: memoryview, found: WeightSummary) -> None:
    dims: list[int] = []
    kind = 0
    for number, value in _fields(tensor):
        if isinstance(value, int):
            if number == 1:
                dims.append(value)
            elif number == 2:
                kind = value
        elif number == 1:
            dims.extend(_varints(value))
        elif number == 13:
            entry = {key: bytes(text) for key, text in _fields(value) if isinstance(text, memoryview)}
            if entry.get(1) == b"location":
                found.files.add(entry.get(2, b"").decode())
    found.elements[kind] = found.elements.get(kind, 0) + math.prod(dims)


def _tensor(message: memoryview) -> tuple[str, Array] | None:
    name = ""
    dims: list[int] = []
    dtype: np.dtype[Any] | None = None
    raw: memoryview | None = None
    for number, value in _fields(message):
        if isinstance(value, memoryview):
            if number == 1:
                dims.extend(_varints(value))
            elif number == 8:
                name = bytes(value).decode()
            elif number == 9:
                raw = value
        elif number == 1:
            dims.append(value)
        elif number == 2:
            dtype = _DTYPES.get(value)
    if raw is None or dtype is None:
        return None
    return name, np.frombuffer(raw, dtype).reshape(dims)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no ONNX model: wire type {kind} at byte {position}")
        yield key >> 3, message[position : position + size]
        position += size


def _varints(packed: memoryview) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message):
            raise ValueError("no ONNX model: it ends within a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _int(number: int, value: int) -> bytes:
    return _number(number << 3) + _number(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _length(number, len(value)) + value


def _length(number: int, size: int) -> bytes:
    return _number(number << 3 | 2) + _number(size)


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


@dataclass
class GraphBuilder:
    """A model under construction: nodes in order, one output each, named as they come.

    The parts of the file are kept apart until the end, so that the weights are copied once.
    """

    opset: int
    externals: dict[str, Array] = field(default_factory=dict)
    _nodes: list[bytes] = field(default_factory=list)
    _weights: list[tuple[bytes, memoryview]] = field(default_factory=list)

    def weight(self, value: Array) -> str:
        """Add a constant and return its name.

        Raises:
            ValueError: a type that this writer does not know.
        """
        number = _NUMBERS.get(value.dtype)
        if number is None:
            raise ValueError(f"constants of type {value.dtype} are not written here")
        name = f"weight_{len(self._weights)}"
        dims = b"".join(_int(1, size) for size in value.shape)
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        head = dims + _int(2, number) + _text(8, name) + _length(9, len(data))
        self._weights.append((_length(5, len(head) + len(data)) + head, data))
        return name

    def external(self, value: Array) -> str:
        """Add a constant that stays outside the file, in :attr:`externals`, and return its name."""
        name = f"external_{len(self.externals)}"
        self.externals[name] = value
        place = _bytes(13, _text(1, "location") + _text(2, name))
        dims = b"".join(_int(1, size) for size in value.shape)
        head = dims + _int(2, _NUMBERS[value.dtype]) + _text(8, name) + place + _int(14, 1)
        self._weights.append((_length(5, len(head)) + head, memoryview(b"")))
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, int | float] | None = None,
        domain: str = "",
    ) -> str:
        """Add an operator and return the name of its output."""
        output = f"node_{len(self._nodes)}"
        self._nodes.append(
            _bytes(
                1,
                b"".join(_text(1, name) for name in inputs)
                + _text(2, output)
                + _text(4, operator)
                + b"".join(_bytes(5, _attribute(name, value)) for name, value in (attributes or {}).items())
                + _text(7, domain),
            )
        )
        return output

    def model(
        self, inputs: Sequence[str], output: str, dims: Sequence[str] = ("batch", "tokens", "hidden")
    ) -> bytes:
        """Return the model's file: int64 inputs of shape (batch, tokens), a float output of named dimensions."""
        opsets = (("", self.opset), ("com.microsoft", 1))
        parts: list[bytes | memoryview] = [
            *self._nodes,
            _text(2, "graph"),
            *(part for weight in self._weights for part in weight),
            *(_bytes(11, _value(name, _INT64, ("batch", "tokens"))) for name in inputs),
            _bytes(12, _value(output, _FLOAT, dims)),
        ]
        header = _int(1, 8) + b"".join(_bytes(8, _text(1, name) + _int(2, number)) for name, number in opsets)
        return b"".join([header, _length(7, sum(map(len, parts))), *parts])


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _int(3, value) + _int(20, 2)
    return _text(1, name) + _number(2 << 3 | 5) + struct.pack("<f", value) + _int(20, 1)


def _value(name: str, dtype: int, dims: Sequence[str]) -> bytes:
    shape = b"".join(_bytes(1, _text(2, dim)) for dim in dims)
    return _text(1, name) + _bytes(2, _bytes(1, _int(1, dtype) + _bytes(2, shape)))
