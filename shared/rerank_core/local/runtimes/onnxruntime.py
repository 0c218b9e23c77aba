"""ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.local.cpu import usable_threads


class OrtSession:
    """A model on ONNX Runtime: one run at a time, which another thread may end.

    Args:
        model: a file, or a model in memory.
        threads: cores to use; see :class:`SessionOptions`.
        weights: constants that the model in memory names and does not hold; used where they are, not copied.

    Raises:
        ConfigurationError: ONNX Runtime does not take the model.
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
