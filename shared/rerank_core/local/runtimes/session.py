"""What every runtime offers: a loaded model, and the options that it was loaded with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["ModelSession", "Precision", "Runtime", "SessionOptions"]

Runtime = Literal["auto", "onnxruntime", "openvino"]
"""``auto`` is OpenVINO on x86 CPUs where it is installed (for int8: those with VNNI or AMX), else ONNX Runtime."""

Precision = Literal["auto", "fp32", "bf16", "int8"]
"""``auto`` is ``fp32``: the scores of the model as it was trained."""


class ModelSession(Protocol):
    """A loaded model: one run at a time, which another thread may end."""

    @property
    def inputs(self) -> set[str]:
        """Names of the model's inputs."""

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """Return the model's outputs, arrays; raises if it was interrupted."""

    def arm(self) -> None:
        """Get ready for the next run, which :meth:`interrupt` may end from now on."""

    def interrupt(self) -> None:
        """End the run that is under way or about to begin, which raises; called from any thread."""


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
