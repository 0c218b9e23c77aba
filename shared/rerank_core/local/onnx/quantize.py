"""int8 weights for graphs of other exporters: ONNX Runtime's own quantiser, run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.model_cache import fingerprint_files, get_or_make
from rerank_core.local.onnx.model_files import GraphFile, cpu_features

__all__ = ["quantize"]

_FILE = "model.onnx"
_MAX_BYTES = 2**31 - 2**26
"""Of a file in this format, whose lengths are signed; with some room."""


def quantize(graph: GraphFile) -> Path:
    """Return a graph with int8 weights, a file in the cache of models; nothing is written beside the graph.

    Weights get one scale per column, activations one per run: each pair must run alone, or its score would depend
    on the others.

    Args:
        graph: an ONNX file in single precision.

    Raises:
        ConfigurationError: it cannot be written.
        MissingExtraError: onnx is not installed.
    """
    purpose = "making int8 weights"
    onnx = require("onnx", extra="export", purpose=purpose)
    ort = require("onnxruntime", extra="onnx", purpose=purpose)
    # Without VNNI, x86 CPUs add two products of bytes in 16 bits, which overflow: 7 bits do not.
    reduce_range = not multiplies_bytes() and "arm64" not in cpu_features()
    parts = [graph.path, *graph.beside]
    key = fingerprint_files(f"1 onnxruntime {ort.__version__} {reduce_range=}", *parts)
    size = sum(part.stat().st_size for part in parts)

    def make(target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Given the path, the quantiser would write beside it; without the entry, it would warn.
        model: Any = onnx.load(str(graph.path))
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        quantize_dynamic(
            model,
            target / _FILE,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=size > _MAX_BYTES,
        )

    return get_or_make(f"int8-{key}", make) / _FILE
