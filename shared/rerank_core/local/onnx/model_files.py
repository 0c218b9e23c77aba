"""Chooses among a model's files, in a folder or in a hub repository; of the latter no other files are fetched."""

from __future__ import annotations

import logging
import math
import mmap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rerank_core.errors import ConfigurationError, RerankError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.cpu import cpu_features
from rerank_core.local.hub import ModelFiles, unavailable
from rerank_core.local.onnx.bert.families import supports
from rerank_core.local.runtimes.session import Precision

__all__ = ["GraphFile", "can_write_graph", "find_model", "read_graph"]

_SAFETENSORS = "model.safetensors"
_SINGLE = ("model.onnx", "onnx/model.onnx")
_INT8_BY_CPU = {
    "avx512_vnni": "model_qint8_avx512_vnni.onnx",
    "avx512f": "model_qint8_avx512.onnx",
    "avx2": "model_quint8_avx2.onnx",
    "arm64": "model_qint8_arm64.onnx",
}
"""As sentence-transformers names them, the best first."""
_INT8 = ("model_int8.onnx", "model_quantized.onnx", "model_uint8.onnx")
_HALF = ("model_fp16.onnx", "onnx/model_fp16.onnx")
_WEIGHTS = {
    _SAFETENSORS: (),
    "model.safetensors.index.json": ("model-*.safetensors",),
    "pytorch_model.bin": (),
    "pytorch_model.bin.index.json": ("pytorch_model-*.bin",),
}
"""Weights of a checkpoint, the best first, and the files that an index stands for."""
# Types as onnx.proto numbers them.
_FLOAT32, _FLOAT16, _BFLOAT16 = 1, 10, 16
_INTEGERS = frozenset({2, 3, 21, 22})
"""Bytes, signed or not, and halves of them."""
_MIN_INTEGER_SHARE = 0.01
"""Of a quantised model's weights: the embeddings of many words may be left in single precision."""
_MAX_NAMES = 12

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True)
class GraphFile:
    """An ONNX file.

    Attributes:
        path: where it is.
        beside: the files that hold its weights, if it does not hold them itself.
        precision: of the weights.
    """

    path: Path
    beside: Sequence[Path]
    precision: Literal["fp32", "fp16", "int8"]


def find_model(
    model: str, *, file_name: str | None, precision: Precision, revision: str | None, offline: bool
) -> tuple[Checkpoint, GraphFile | None]:
    """Return a model's folder, and the ONNX file in it that is to be used; None for the checkpoint's own weights.

    Args:
        model: as for :class:`ModelFiles`, as are ``revision`` and ``offline``.
        file_name: the file to be used, an ONNX file or ``model.safetensors``; None to choose.
        precision: of the weights wanted; see :class:`rerank_core.local.onnx.scorer.OnnxScorer` for the choice.

    Raises:
        ConfigurationError: there is no file of the kind and precision.
        ScorerUnavailableError: the hub does not have it or cannot be reached.
    """
    files = ModelFiles(model, revision=revision, offline=offline)
    checkpoint = Checkpoint(files.fetch())
    chosen = _choose_file(files, checkpoint, file_name, precision)
    if chosen in _WEIGHTS:
        files.fetch(chosen, *_WEIGHTS[chosen])
        return checkpoint, None
    graph = read_graph(files.fetch(chosen, f"{chosen}_data*", f"{chosen}.data*") / chosen)
    _check_precision(graph, precision)
    return checkpoint, graph


def can_write_graph(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint can be run from its weights, without an ONNX file."""
    from rerank_core.local.formats.safetensors import has_weights

    return supports(checkpoint.config) and has_weights(checkpoint.folder)


def _choose_file(files: ModelFiles, checkpoint: Checkpoint, file_name: str | None, precision: Precision) -> str:
    """Return the name of the file with the weights."""
    if file_name is not None:
        if not files.has(file_name):
            raise _lacks(files, [file_name])
        if not file_name.endswith(".onnx") and file_name not in _WEIGHTS:
            raise ConfigurationError(f"file_name is {file_name!r}: give an .onnx file, or {_SAFETENSORS!r}")
        return file_name
    weights = [name for name in _WEIGHTS if name in files.names and "config.json" in files.names]
    if precision == "int8":
        int8 = _int8_names()
        direct = [name for name in weights if name.startswith(_SAFETENSORS) and supports(checkpoint.config)]
        wanted = [*int8, *direct, *_SINGLE, *weights]
        missing = [*int8, *_SINGLE, _SAFETENSORS]
    else:
        wanted = [*_SINGLE, *weights, *([*_HALF, *_int8_names()] if precision == "auto" else [])]
        missing = [*_SINGLE, _SAFETENSORS]
    found = next((name for name in wanted if name in files.names), None)
    if found is None:
        raise _lacks(files, missing)
    return found


def _lacks(files: ModelFiles, wanted: Sequence[str]) -> RerankError:
    """Return the error for files that are not there."""
    if files.error is not None:
        error = unavailable(files.model)
        error.__cause__ = files.error
        return error
    names = sorted(files.names)
    found = ", ".join(names[:_MAX_NAMES]) + (" …" if len(names) > _MAX_NAMES else "")
    return ConfigurationError(
        f"{files.place} has no {' or '.join(wanted)}; it has {found or 'no files'}: give file_name=, or a "
        "checkpoint with its config.json, or use 'cross-encoder:' which runs it with torch"
    )


def _int8_names() -> list[str]:
    features = cpu_features()
    by_cpu = [name for feature, name in _INT8_BY_CPU.items() if feature in features]
    return [place + name for name in (*by_cpu, *_INT8) for place in ("", "onnx/")]


def read_graph(path: Path) -> GraphFile:
    """Return what an ONNX file's weights are.

    Raises:
        ConfigurationError: it is not an ONNX file, or cannot be read.
    """
    from rerank_core.local.formats.onnx import read_tensors

    counts: Counter[int] = Counter()
    files = set()
    try:
        with path.open("rb") as file:
            for tensor in read_tensors(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))):
                counts[tensor.type_number] += math.prod(tensor.shape)
                if tensor.file is not None:
                    files.add(tensor.file)
    except (ValueError, OSError) as exc:
        raise ConfigurationError(f"{path} cannot be loaded ({exc}): fetch or export it anew") from exc
    integers = sum(counts[kind] for kind in _INTEGERS)
    half = counts[_FLOAT16] + counts[_BFLOAT16]
    beside = [path.parent / name for name in sorted(files)]
    if integers > _MIN_INTEGER_SHARE * (integers + half + counts[_FLOAT32]):
        return GraphFile(path, beside, "int8")
    return GraphFile(path, beside, "fp16" if half > counts[_FLOAT32] else "fp32")


def _check_precision(graph: GraphFile, wanted: Precision) -> None:
    """Refuse a file that is not of the precision asked for, nor can be made so."""
    if graph.precision in ("fp32", wanted):
        return
    if wanted == "auto":
        _logger.info("%s is used, whose weights are %s", graph.path, graph.precision)
        return
    raise ConfigurationError(
        f"{graph.path} holds {graph.precision} weights, and precision={wanted!r} needs "
        f"{'int8 or ' if wanted == 'int8' else ''}fp32 ones: give file_name= of such a file, or precision='auto' "
        "to run this one"
    )
