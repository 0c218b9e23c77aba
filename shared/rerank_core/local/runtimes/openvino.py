"""OpenVINO, on the CPU."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_core._call.event_loop import in_forked_children
from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.local.cpu import usable_threads

_DEVICE = "CPU"
_HINTS = {"auto": "f32", "fp32": "f32", "int8": "f32", "bf16": "bf16"}
"""What is not in int8 weights stays in single precision; the device's own default may be bfloat16."""
_GROUP = 32
"""Values of a row that share a scale when OpenVINO multiplies int8 weights."""


def require_openvino(module: str = "openvino") -> Any:
    """Import OpenVINO, or a module of it."""
    return require(module, extra="openvino", purpose="runtime='openvino'")


class OpenVinoSession:
    """A model on OpenVINO: one run at a time, which another thread may end.

    Args:
        model: a file, a model in memory, or a model built with OpenVINO's operators.
        threads: cores to use; see :class:`SessionOptions`, also for the precision.
        precision: of the arithmetic.

    Raises:
        ConfigurationError: OpenVINO does not take the model, or the CPU has no arithmetic of this precision.
    """

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
