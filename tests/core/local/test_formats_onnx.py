"""The reader and the writer of ONNX files, against the onnx package and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from rerank_core.local.formats.onnx import INT64, GraphBuilder, _field, read_weights

DTYPES = st.sampled_from([np.float32, np.uint8, np.int8, np.int32, np.int64])


def file_with(weights: dict[str, np.ndarray]) -> bytes:
    """Return a model file, written by the onnx package, that holds these weights."""
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph([], "g", [], [], initializers)).SerializeToString()


@given(value=DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=200))))
def test_weights_are_read_as_onnx_wrote_them(value: np.ndarray) -> None:
    """Every type and shape that is read at all is read exactly."""
    read = read_weights(file_with({"first": value, "second": value[:1]}))
    assert list(read) == ["first", "second"]
    assert read["first"].dtype == value.dtype
    np.testing.assert_array_equal(read["first"], value)


def test_weights_of_other_types_or_not_raw_are_left_out() -> None:
    """What the reader does not know it does not guess."""
    graph = helper.make_graph(
        [],
        "g",
        [],
        [],
        [
            numpy_helper.from_array(np.ones(3, np.float64), "double"),
            helper.make_tensor("listed", TensorProto.FLOAT, [2], [1.0, 2.0]),
            numpy_helper.from_array(np.ones(3, np.float32), "known"),
        ],
    )
    assert list(read_weights(helper.make_model(graph).SerializeToString())) == ["known"]


@pytest.mark.parametrize(
    "content", [b"", b"\x0b", b"\x80", b"no onnx model at all"], ids=["empty", "group", "cut", "text"]
)
def test_other_bytes_are_no_model(content: bytes) -> None:
    """Bytes without a graph are an error, not an empty model."""
    with pytest.raises(ValueError, match="not an ONNX model"):
        read_weights(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff" * 2_000_000, "the number at byte 0 has more than 10 bytes"),
        (_field(7, _field(5, _field(1, b"\xff" * 2_000_000))), "has more than 10 bytes"),
        (b"\x3a\x05\x2a", "ends within a field"),
        (_field(7, _field(5, b"\x08\x02" * 35)), "the tensor '' has 35 dimensions"),
        (file_with({"w": np.ones(4, np.float32)}).replace(b"\x08\x04", b"\x08\x05", 1), "as many bytes"),
    ],
    ids=["number", "dimensions", "cut", "many", "shape"],
)
def test_a_damaged_model_is_refused_at_once(content: bytes, reason: str) -> None:
    """The reason is named, and no number or shape is read that takes more time than the file's size explains."""
    with pytest.raises(ValueError, match=reason):
        read_weights(content)


def test_eight_and_four_byte_fields_are_passed_over() -> None:
    """Fields of fixed width, which this reader has no use for, do not stop it."""
    model = file_with({"w": np.arange(3, dtype=np.int64)})
    padded = b"\xf9\x01" + bytes(8) + b"\xfd\x01" + bytes(4) + model
    np.testing.assert_array_equal(read_weights(padded)["w"], [0, 1, 2])


def test_a_built_model_is_valid_and_computes() -> None:
    """The onnx checker accepts what the writer writes, and ONNX Runtime computes with it."""
    graph = GraphBuilder(opset=17)
    table = graph.weight(np.arange(12, dtype=np.float32).reshape(4, 3))
    rows = graph.node("Gather", [table, "ids"])
    normed = graph.node("LayerNormalization", [rows, graph.weight(np.ones(3, np.float32))], {"epsilon": 0.5})
    model = graph.model({"ids": (INT64, ("batch", "tokens"))}, normed, ("batch", "tokens", "width"))
    onnx.checker.check_model(onnx.load_from_string(model))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"ids": np.array([[2, 0]], np.int64)})
    expected = np.array([-1, 0, 1]) / np.sqrt(2 / 3 + 0.5)
    np.testing.assert_allclose(output, [[expected, expected]], rtol=1e-5)


def test_constants_of_unknown_types_are_refused() -> None:
    """A type that the file format numbers otherwise is named, not written wrongly."""
    with pytest.raises(ValueError, match="complex64"):
        GraphBuilder(opset=17).weight(np.ones(2, np.complex64))
