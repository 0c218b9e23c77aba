"""Sessions, which run a model on the CPU, and the choice of the runtime."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rerank_core._support.checks import check_choice
from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError
from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.runtimes.onnxruntime import OrtSession
from rerank_core.local.runtimes.openvino import OpenVinoSession

__all__ = ["ModelSession", "Precision", "Runtime", "SessionOptions", "choose_runtime", "open_session"]

Runtime = Literal["auto", "onnxruntime", "openvino"]
"""``auto`` is OpenVINO on x86 CPUs where it is installed (for int8: those with VNNI or AMX), else ONNX Runtime."""

Precision = Literal["auto", "fp32", "bf16", "int8"]
"""``auto`` is ``fp32``: the scores of the model as it was trained."""

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})


ModelSession = OrtSession | OpenVinoSession
"""A loaded model: one run at a time, which another thread may end."""


@dataclass(frozen=True)
class SessionOptions:
    """How a model is to be run.

    Attributes:
        runtime: see :data:`Runtime`.
        precision: see :data:`Precision`.
        threads: cores to use, at least 1; None for all physical ones, and never more than the container's quota.
    """

    runtime: Runtime = "auto"
    precision: Precision = "auto"
    threads: int | None = None


def choose_runtime(runtime: Runtime, precision: Precision) -> Literal["onnxruntime", "openvino"]:
    """Return the runtime that ``auto`` stands for, or the one asked for; refuse what cannot run here."""
    check_choice("runtime", runtime, get_args(Runtime))
    check_choice("precision", precision, get_args(Precision))
    if runtime == "onnxruntime" and precision == "bf16":
        raise ConfigurationError("precision='bf16' needs runtime='openvino'; 'onnxruntime' has no bf16")
    if runtime == "openvino" or precision == "bf16":
        check_installed("openvino", extra="openvino", purpose="runtime='openvino'")
        return "openvino"
    # On OpenVINO int8 is no faster than fp32 where the CPU has no instructions for it.
    is_fast = platform.machine().lower() in _X86 and (precision != "int8" or multiplies_bytes())
    if runtime == "auto" and is_fast and importlib.util.find_spec("openvino") is not None:
        return "openvino"
    check_installed("onnxruntime", extra="onnx", purpose="runtime='onnxruntime'")
    return "onnxruntime"


def open_session(model: Path | bytes, options: SessionOptions) -> ModelSession:
    """Load an ONNX model, a file or in memory; one for ``int8`` must be quantised already."""
    if choose_runtime(options.runtime, options.precision) == "openvino":
        return OpenVinoSession(model, threads=options.threads, precision=options.precision)
    return OrtSession(model, threads=options.threads)
