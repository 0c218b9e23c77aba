"""The BERT family's network, written for a runtime straight from a checkpoint: no torch, no export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core.local.onnx.bert.families import read_shape
from rerank_core.local.runtimes.session import ModelSession, SessionOptions, choose_runtime

if TYPE_CHECKING:
    from rerank_core.local.onnx.bert.int8 import RowQuantizer

__all__ = ["open_checkpoint"]


def open_checkpoint(folder: Path, config: Mapping[str, Any], options: SessionOptions) -> ModelSession:
    """Load a checkpoint's ``model.safetensors``, or its shards.

    Args:
        folder: the checkpoint.
        config: its ``config.json``; :func:`rerank_core.local.onnx.bert.families.supports` says of which models.
        options: the runtime, its precision and threads.

    Returns:
        A session with the inputs ``input_ids``, ``attention_mask`` and, where the model has more than one token
        type, ``token_type_ids``. Its one output is the logits: (pairs, labels).

    Raises:
        ConfigurationError: a file is missing or damaged, or does not fit its configuration; the runtime cannot run
            it in this precision.
        MissingExtraError: the runtime is not installed.
    """
    openvino = choose_runtime(options.runtime, options.precision) == "openvino"
    # Imported here because they need numpy, which importing the scorer must not.
    from rerank_core.local.formats.safetensors import Weights
    from rerank_core.local.onnx.bert.graph import BertWriter
    from rerank_core.local.onnx.bert.int8 import LARGEST_INT8, cached_quantizer, largest_int8

    weights, shape = Weights(folder), read_shape(config)

    def write(quantizer: RowQuantizer | None) -> tuple[Any, Any]:
        graph = _graph(quantizer, openvino=openvino)
        return graph, BertWriter(graph, shape, weights).write()

    quantizer = None
    if options.precision == "int8":
        quantizer = cached_quantizer(weights.files, LARGEST_INT8 if openvino else largest_int8(), write)
    graph, logits = write(quantizer)
    session: ModelSession = graph.session(logits, options)
    weights.release_pages()
    return session


def _graph(quantizer: RowQuantizer | None, *, openvino: bool) -> Any:
    if openvino:
        from rerank_core.local.onnx.bert.openvino import OpenVinoGraph

        return OpenVinoGraph(quantizer)
    from rerank_core.local.onnx.bert.onnxruntime import OrtGraph

    return OrtGraph(quantizer)
