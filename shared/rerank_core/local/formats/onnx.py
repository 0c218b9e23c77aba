"""Just enough of the ONNX file format to read a model's weights and to write a model, without the onnx package.

Field numbers are those of ``onnx.proto`` (IR version 8). The encoding is that of Protocol Buffers: a key of field
number and wire type, then a varint (type 0), eight bytes (1), a length and as many bytes (2), or four bytes (5).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
"""ONNX's numbers of these types."""
_MAX_VARINT_BYTES = 10
"""What 64 bits take. Longer numbers mean nothing, and reading one takes time that grows with its square."""
_MAX_DIMENSIONS = 32

_Array = npt.NDArray[Any]


class Tensor(NamedTuple):
    """A constant of a model: its values as raw bytes, or the file beside the model that holds them, or neither."""

    name: str
    type_number: int  # as onnx.proto numbers types
    shape: tuple[int, ...]
    raw: memoryview | None
    file: str | None


def read_weights(model: bytes) -> dict[str, _Array]:
    """Return the constants of a model by name, in the file's order, as views of its bytes.

    Constants that are not stored as raw bytes in the file, or are of a rare type, are left out.
    """
    return {
        tensor.name: np.frombuffer(tensor.raw, _DTYPES[tensor.type_number]).reshape(tensor.shape)
        for tensor in read_tensors(model)
        if tensor.raw is not None and tensor.type_number in _DTYPES
    }


def read_tensors(model: bytes | memoryview) -> Iterator[Tensor]:
    """Yield the constants of a model, in the file's order; ValueError where it is no ONNX model."""
    graph = next((value for number, value in _fields(memoryview(model)) if number == 7), None)
    if not isinstance(graph, memoryview):
        raise ValueError("not an ONNX model: it holds no graph")
    for number, value in _fields(graph):
        if number == 5 and isinstance(value, memoryview):
            yield _read_tensor(value)


def _read_tensor(message: memoryview) -> Tensor:
    name, type_number, raw, file = "", 0, None, None
    shape: list[int] = []
    for number, value in _fields(message):
        if isinstance(value, int):
            if number == 1:
                shape.append(value)
            elif number == 2:
                type_number = value
        elif number == 1:  # several, packed
            position = 0
            while position < len(value):
                size, position = _varint(value, position)
                shape.append(size)
        elif number == 8:
            name = bytes(value).decode()
        elif number == 9:
            raw = value
        elif number == 13:
            entry = {key: bytes(text) for key, text in _fields(value) if isinstance(text, memoryview)}
            if entry.get(1) == b"location":
                file = entry.get(2, b"").decode()
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"not an ONNX model: the tensor {name!r} has {len(shape)} dimensions")
    dtype = _DTYPES.get(type_number)
    if raw is not None and dtype is not None and len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"not an ONNX model: the tensor {name!r} does not have as many bytes as its shape says")
    return Tensor(name, type_number, tuple(shape), raw, file)


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
            raise ValueError(f"not an ONNX model: wire type {kind} at byte {position}")
        if size > len(message) - position:
            raise ValueError("not an ONNX model: it ends within a field")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for number, byte in enumerate(message[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, position + number + 1
    if len(message) - position < _MAX_VARINT_BYTES:
        raise ValueError("not an ONNX model: it ends within a number")
    raise ValueError(f"not an ONNX model: the number at byte {position} has more than {_MAX_VARINT_BYTES} bytes")


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    content = value.encode() if isinstance(value, str) else value
    return _length(number, len(content)) + content


def _length(number: int, size: int) -> bytes:
    return _number(number << 3 | 2) + _number(size)


@dataclass
class GraphBuilder:
    """A model under construction: nodes in order, one output each, named as they come.

    The parts of the file are kept apart until the end, so that the weights are copied once.
    """

    opset: int
    externals: dict[str, _Array] = field(default_factory=dict)
    _nodes: list[bytes] = field(default_factory=list)
    _weights: list[tuple[bytes, memoryview]] = field(default_factory=list)

    def weight(self, value: _Array) -> str:
        """Add a constant and return its name."""
        name = f"weight_{len(self._weights)}"
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        self._add_weight(name, value, _length(9, len(data)), data)
        return name

    def external(self, value: _Array) -> str:
        """Add a constant that stays outside the file, in :attr:`externals`, and return its name."""
        name = f"external_{len(self.externals)}"
        self.externals[name] = value
        place = _field(13, _field(1, "location") + _field(2, name)) + _field(14, 1)
        self._add_weight(name, value, place, memoryview(b""))
        return name

    def _add_weight(self, name: str, value: _Array, place: bytes, data: memoryview) -> None:
        number = _NUMBERS.get(value.dtype)
        if number is None:
            raise ValueError(f"constants of type {value.dtype} cannot be written")
        head = b"".join(_field(1, size) for size in value.shape) + _field(2, number) + _field(8, name) + place
        self._weights.append((_length(5, len(head) + len(data)) + head, data))

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, int | float] | None = None,
        domain: str = "",
    ) -> str:
        """Add an operator and return the name of its output."""
        output = f"node_{len(self._nodes)}"
        settings = [_field(5, _attribute(name, value)) for name, value in (attributes or {}).items()]
        parts = [*(_field(1, name) for name in inputs), _field(2, output), _field(4, operator), *settings]
        self._nodes.append(_field(1, b"".join([*parts, _field(7, domain)])))
        return output

    def model(self, inputs: Mapping[str, tuple[int, Sequence[str]]], output: str, dims: Sequence[str]) -> bytes:
        """Return the model's file, given each input's type and dimensions' names, and the output, of floats."""
        opsets = (("", self.opset), ("com.microsoft", 1))
        parts: list[bytes | memoryview] = [
            *self._nodes,
            _field(2, "graph"),
            *(part for weight in self._weights for part in weight),
            *(_field(11, _value(name, *kind)) for name, kind in inputs.items()),
            _field(12, _value(output, FLOAT, dims)),
        ]
        header = _field(1, 8) + b"".join(_field(8, _field(1, name) + _field(2, number)) for name, number in opsets)
        return b"".join([header, _length(7, sum(map(len, parts))), *parts])


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + _number(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)


def _value(name: str, dtype: int, dims: Sequence[str]) -> bytes:
    shape = b"".join(_field(1, _field(2, dim)) for dim in dims)
    return _field(1, name) + _field(2, _field(1, _field(1, dtype) + _field(2, shape)))
