"""int8 weights for graphs that are not written here: ONNX Runtime's own quantiser, once."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.local.cpu import cpu_flags, multiplies_bytes
from rerank_core.local.model_cache import fingerprint_files, get_or_make

__all__ = ["cpu_features", "quantized"]

_FILE = "model.onnx"
_MOST_BYTES = 2**31 - 2**26
"""Of a file in this format, whose lengths are signed; a little below."""


def quantized(graph: Path, beside: Sequence[Path], *, scorer: str) -> Path:
    """Return a graph with int8 weights, a file in the cache of models.

    Args:
        graph: an ONNX file in single precision; nothing is written beside it.
        beside: files that hold its weights.
        scorer: whose model it is.

    The matrices are rounded a column at a time, activations a run at a time: each pair must run alone, or its
    score would depend on the others.

    Raises:
        ConfigurationError: it cannot be written.
        MissingExtraError: onnx is not installed.
    """
    purpose = f"{scorer}: making int8 weights"
    onnx = require("onnx", extra="export", purpose=purpose)
    ort = require("onnxruntime", extra="onnx", purpose=purpose)
    # Without VNNI, x86 CPUs add two products of bytes in 16 bits, which overflow: 7 bits do not.
    reduce_range = not multiplies_bytes() and "arm64" not in cpu_features()
    parts = [graph, *beside]
    key = fingerprint_files(f"1 onnxruntime {ort.__version__} {reduce_range=}", *parts)
    size = sum(part.stat().st_size for part in parts)

    def make(target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Given the file itself, the quantiser would write beside it, and warn about what this entry says.
        model: Any = onnx.load(str(graph))
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        quantize_dynamic(
            model,
            target / _FILE,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=size > _MOST_BYTES,
        )

    return get_or_make(f"int8-{key}", make) / _FILE


def cpu_features() -> frozenset[str]:
    """Return those of ``arm64``, ``avx2``, ``avx512f`` and ``avx512_vnni`` that this CPU is known to have."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return frozenset({"arm64"})
    flags = cpu_flags()
    return frozenset({"avx2"}) if flags is None else flags & {"avx2", "avx512f", "avx512_vnni"}
