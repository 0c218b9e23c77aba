"""What runs a graph on the CPU, ONNX Runtime or OpenVINO, and the choice between them."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rerank_core._call.event_loop import in_forked_children
from rerank_core._support.checks import check_choice
from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_core.local.cpu import multiplies_bytes, usable_threads

__all__ = [
    "ModelSession",
    "OpenVinoSession",
    "OrtSession",
    "Precision",
    "Runtime",
    "SessionOptions",
    "choose_runtime",
    "open_session",
    "require_openvino",
]

Runtime = Literal["auto", "onnxruntime", "openvino"]
"""``auto`` is OpenVINO on x86 CPUs where it is installed (for int8: those with VNNI or AMX), else ONNX Runtime."""

Precision = Literal["auto", "fp32", "bf16", "int8"]
"""``auto`` is ``fp32``: the scores of the model as it was trained."""

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
_DEVICE = "CPU"
_HINTS = {"auto": "f32", "fp32": "f32", "int8": "f32", "bf16": "bf16"}
"""What is not in int8 weights stays in single precision; the device's own default may be bfloat16."""
_GROUP = 32
"""Values of a row that share a scale when OpenVINO multiplies int8 weights."""


@dataclass(frozen=True)
class SessionOptions:
    """How a model is to be run; ``threads`` are cores to use, None for all physical ones."""

    runtime: Runtime = "auto"
    precision: Precision = "auto"
    threads: int | None = None


class OrtSession:
    """A model on ONNX Runtime, a file or in memory: one run at a time, which another thread may end.

    The weights are constants that a model in memory names and does not hold; they are used where they are.
    """

    def __init__(
        self, model: Path | bytes, *, threads: int | None, weights: Mapping[str, Any] | None = None
    ) -> None:
        # Read when onnxruntime is imported. Its wheels report their use over the network unless told not to, from
        # a thread that a forked child waits for when it exits. Users who want that set the variable themselves.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        self._ort: Any = require("onnxruntime", extra="onnx", purpose="runtime='onnxruntime'")
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = usable_threads(threads)
        options.log_severity_level = 3
        # Its threads would spin for a while after each run, on cores that the next step or another session needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Its own OrtValues refer to the arrays, and are released with the session.
        self._weights = {
            name: self._ort.OrtValue.ortvalue_from_numpy(value) for name, value in (weights or {}).items()
        }
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        try:
            self._session = self._ort.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            where = "the model in memory" if isinstance(model, bytes) else str(model)
            raise ConfigurationError(f"ONNX Runtime cannot load {where}: {exc}") from exc
        self.arm()

    @property
    def inputs(self) -> set[str]:
        """Names of the model's inputs."""
        return {node.name for node in self._session.get_inputs()}

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """Return the model's outputs, arrays; raises if it was interrupted."""
        outputs: list[Any] = self._session.run(None, feed, self._options)
        return outputs

    def arm(self) -> None:
        """Get ready for the next run, which :meth:`interrupt` may end from now on."""
        self._options = self._ort.RunOptions()
        self._options.log_severity_level = 4  # an interrupted run is no error worth a line

    def interrupt(self) -> None:
        """End the run that is under way or about to begin, which raises; called from any thread."""
        self._options.terminate = True


def require_openvino(module: str = "openvino") -> Any:
    """Import OpenVINO, or a module of it."""
    return require(module, extra="openvino", purpose="runtime='openvino'")


class OpenVinoSession:
    """A model on OpenVINO, a file, in memory or built with its operators; runs as :class:`OrtSession` does."""

    def __init__(self, model: Any, *, threads: int | None, precision: str) -> None:
        core = _natives.core(require_openvino())
        capabilities = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise ConfigurationError(
                "precision='bf16' needs a CPU with AVX512-BF16 or AMX, and this one offers "
                f"{', '.join(capabilities)}: use precision='fp32' or 'int8'"
            )
        options = {
            "INFERENCE_NUM_THREADS": usable_threads(threads),
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if precision == "int8":
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _GROUP
        try:
            read = core.read_model(model) if isinstance(model, (bytes, Path)) else model
            self._compiled = core.compile_model(read, _DEVICE, options)
        except Exception as exc:
            where = str(model) if isinstance(model, Path) else "the model"
            raise ConfigurationError(f"OpenVINO cannot load {where}: {exc}") from exc
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()
        self._interrupted = False
        _natives.sessions.add(self)

    @property
    def inputs(self) -> set[str]:
        """Names of the model's inputs."""
        return {node.get_any_name() for node in self._compiled.inputs}

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """Return the model's outputs, arrays; raises if it was interrupted."""
        with self._lock:
            if self._interrupted:
                raise RuntimeError("the run was interrupted before it began")
            self._request.start_async(dict(feed), share_inputs=True)
        self._request.wait()
        return [self._request.get_output_tensor(index).data.copy() for index in range(len(self._compiled.outputs))]

    def arm(self) -> None:
        """Get ready for the next run, which :meth:`interrupt` may end from now on."""
        with self._lock:
            self._interrupted = False

    def interrupt(self) -> None:
        """End the run that is under way or about to begin, which raises; called from any thread."""
        with self._lock:
            self._interrupted = True
            self._request.cancel()


class _Natives:
    """The process's only core, as OpenVINO advises, and the sessions that it runs.

    A core gives the thread that creates it a stack for signal handlers, and frees it with itself: when several end
    in another order or thread than they began, the next Ctrl-C finds no stack and crashes the process.
    """

    def __init__(self) -> None:
        self._begin()
        in_forked_children(self._leave_to_the_parent)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._core: Any = None
        self.sessions: weakref.WeakSet[OpenVinoSession] = weakref.WeakSet()

    def core(self, module: Any) -> Any:
        with self._lock:
            if self._core is None:
                self._core = module.Core()
            return self._core

    def _leave_to_the_parent(self) -> None:
        for inherited in (self._core, *self.sessions):
            # Never freed: that waits for threads, which a child has not.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
        self._begin()


_natives = _Natives()


ModelSession = OrtSession | OpenVinoSession
"""A loaded model: one run at a time, which another thread may end."""


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
