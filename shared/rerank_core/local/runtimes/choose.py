"""The choice between the runtimes."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Literal, get_args

from rerank_core._support.checks import check_choice
from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.runtimes.session import ModelSession, Precision, Runtime, SessionOptions

__all__ = ["choose_runtime", "open_session"]

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})


def choose_runtime(runtime: Runtime, precision: Precision) -> Literal["onnxruntime", "openvino"]:
    """Return the runtime that ``auto`` stands for, or the one asked for.

    Raises:
        ConfigurationError: an unknown runtime or precision, or one that do not go together.
        MissingExtraError: the runtime is not installed; names its extra.
    """
    check_choice("runtime", runtime, get_args(Runtime))
    check_choice("precision", precision, get_args(Precision))
    if runtime == "onnxruntime" and precision == "bf16":
        raise ConfigurationError("precision='bf16' needs runtime='openvino'; 'onnxruntime' has no bf16")
    if runtime == "openvino" or precision == "bf16":
        check_installed("openvino", extra="openvino", purpose="runtime='openvino'")
        return "openvino"
    # int8 without VNNI is no faster on OpenVINO than fp32.
    if runtime == "auto" and (precision != "int8" or multiplies_bytes()) and _prefers_openvino():
        return "openvino"
    check_installed("onnxruntime", extra="onnx", purpose="runtime='onnxruntime'")
    return "onnxruntime"


def open_session(model: Path | bytes, options: SessionOptions) -> ModelSession:
    """Load an ONNX model, a file or in memory; one for ``int8`` must be quantised already.

    Raises:
        ConfigurationError: the runtime does not take the model, or cannot run it in this precision.
        MissingExtraError: the runtime is not installed.
    """
    if choose_runtime(options.runtime, options.precision) == "openvino":
        from rerank_core.local.runtimes.openvino import OpenVinoSession

        return OpenVinoSession(model, threads=options.threads, precision=options.precision)
    from rerank_core.local.runtimes.onnxruntime import OrtSession

    return OrtSession(model, threads=options.threads)


def _prefers_openvino() -> bool:
    return platform.machine().lower() in _X86 and importlib.util.find_spec("openvino") is not None
