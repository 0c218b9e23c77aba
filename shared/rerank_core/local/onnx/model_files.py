"""The ONNX file of a model: chosen among its files, or exported with torch, or quantised; made once."""

from __future__ import annotations

import inspect
import logging
import math
import mmap
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError, RerankError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.cpu import cpu_features, multiplies_bytes
from rerank_core.local.hub import ModelFiles, unavailable
from rerank_core.local.model_cache import fingerprint_files, get_or_make
from rerank_core.local.onnx.bert.families import supports
from rerank_core.local.runtimes import OrtSession, Precision
from rerank_core.local.torch.loading import quiet_transformers

_SAFETENSORS = "model.safetensors"
_SINGLE = ("model.onnx", "onnx/model.onnx")
_COLBERT = "vespa_colbert.onnx"
"""As ColBERT checkpoints are exported for Vespa."""
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

_VERSION = "1"
"""Of the export: what another version exported is not used."""
_FILE = "model.onnx"
_OPSET = 17
_PAIRS, _TOKENS = 3, 300
"""To compare: more of both than are traced, and beyond usual windows of local attention."""
_TOLERANCE = 1e-4
"""Largest difference of a logit between torch and ONNX Runtime; relative to the largest logit above 1."""
_MAX_BYTES = 2**31 - 2**26
"""Of a file in this format, whose lengths are signed; with some room."""

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True)
class GraphFile:
    """An ONNX file, and the files beside it that hold its weights, if it does not hold them itself."""

    path: Path
    beside: Sequence[Path]
    precision: Literal["fp32", "fp16", "int8"]


def find_graph(
    files: ModelFiles, checkpoint: Checkpoint, file_name: str | None, precision: Precision
) -> GraphFile | None:
    """Return the ONNX file that is to be used; None for the checkpoint's own weights. What is used is fetched.

    See :class:`rerank_core.local.onnx.scorer.OnnxScorer` for the choice by file name and precision.
    """
    chosen = _choose_file(files, checkpoint, file_name, precision)
    if chosen in _WEIGHTS:
        files.fetch(chosen, *_WEIGHTS[chosen])
        return None
    graph = read_graph(files.fetch(chosen, f"{chosen}_data*", f"{chosen}.data*") / chosen)
    if graph.precision not in ("fp32", precision):
        if precision != "auto":
            raise ConfigurationError(
                f"{graph.path} holds {graph.precision} weights, and precision={precision!r} needs "
                f"{'int8 or ' if precision == 'int8' else ''}fp32 ones: give file_name= of such a file, or "
                "precision='auto' to run this one"
            )
        _logger.info("%s is used, whose weights are %s", graph.path, graph.precision)
    return graph


def can_write_graph(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint can be run from its weights, without an ONNX file."""
    from rerank_core.local.formats.safetensors import has_weights

    return supports(checkpoint.config) and has_weights(checkpoint.folder)


def _choose_file(files: ModelFiles, checkpoint: Checkpoint, file_name: str | None, precision: Precision) -> str:
    if file_name is not None:
        if not files.has(file_name):
            raise _lacks(files, file_name)
        if not file_name.endswith(".onnx") and file_name not in _WEIGHTS:
            raise ConfigurationError(f"file_name is {file_name!r}: give an .onnx file, or {_SAFETENSORS!r}")
        return file_name
    weights = [name for name in _WEIGHTS if "config.json" in files.names]
    wanted = [*_SINGLE, _COLBERT, *weights]
    if precision == "int8":
        direct = [name for name in weights if name.startswith(_SAFETENSORS) and supports(checkpoint.config)]
        wanted = [*_int8_names(), *direct, *wanted]
    elif precision == "auto":
        wanted += [*_HALF, *_int8_names()]
    found = next((name for name in wanted if name in files.names), None)
    if found is None:
        raise _lacks(files, *_SINGLE, _SAFETENSORS)
    return found


def _lacks(files: ModelFiles, *wanted: str) -> RerankError:
    if files.error is not None:
        error = unavailable(files.model)
        error.__cause__ = files.error
        return error
    names = sorted(files.names)
    found = ", ".join(names[:_MAX_NAMES]) + (" …" if len(names) > _MAX_NAMES else "")
    return ConfigurationError(
        f"{files.model} has no {' or '.join(wanted)}; it has {found or 'no files'}: give file_name=, or a "
        "checkpoint with its config.json, or use 'cross-encoder:' which runs it with torch"
    )


def _int8_names() -> list[str]:
    features = cpu_features()
    by_cpu = [name for feature, name in _INT8_BY_CPU.items() if feature in features]
    return [place + name for name in (*by_cpu, *_INT8) for place in ("", "onnx/")]


def read_graph(path: Path) -> GraphFile:
    """Return what an ONNX file's weights are, by their number and not by its name."""
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


def export(checkpoint: Checkpoint, *, length: int) -> GraphFile:
    """Return a checkpoint's graph as an ONNX file in the cache of models, in single precision.

    It is compared with torch on pairs of up to ``length`` tokens, and not kept where its logits differ.
    """
    purpose = "exporting the model to ONNX, as its folder has no ONNX file,"
    check_installed("torch", "transformers", "onnx", extra="export,local", purpose=purpose)
    import torch
    import transformers

    folder = checkpoint.folder
    weights = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    versions = f"{_VERSION} torch {torch.__version__} transformers {transformers.__version__}"
    key = fingerprint_files(versions, *weights, folder / "config.json")
    entry = get_or_make(f"export-{key}", lambda target: _export(folder, target / _FILE, length=length))
    return read_graph(entry / _FILE)


def _export(folder: Path, target: Path, *, length: int) -> None:
    import torch

    model = _load(folder)
    names = ["input_ids", "attention_mask"]
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    if takes_types and getattr(model.config, "type_vocab_size", 2) > 1:
        names.append("token_type_ids")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code of models and of the exporter
            torch.onnx.export(
                model,
                (_example(model.config, names, 2, min(9, length)),),
                str(target),
                input_names=names,
                output_names=["logits"],
                dynamic_axes={**{name: {0: "batch", 1: "sequence"} for name in names}, "logits": {0: "batch"}},
                opset_version=_OPSET,
                dynamo=False,  # takes seconds; the other exporter half a minute, for the same numbers
            )
    except OSError:
        raise
    except Exception as exc:
        raise ConfigurationError(
            f"torch {torch.__version__} cannot export {folder} to ONNX ({type(exc).__name__}: {exc}): "
            "use 'cross-encoder:', which runs it with torch"
        ) from exc
    example = _example(model.config, names, _PAIRS, min(_TOKENS, length))
    with torch.no_grad():
        expected = model(**example).logits
    session = OrtSession(target, threads=None)
    found = session.run({name: value.numpy() for name, value in example.items() if name in session.inputs})[0]
    difference = float((torch.from_numpy(found) - expected).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ConfigurationError(
            f"exported to ONNX, its logits differ from torch's by {difference:.2g}, more than {_TOLERANCE:g}: use "
            "'cross-encoder:', which runs it with torch"
        )


def _load(folder: Path) -> Any:
    """Return the model, on the CPU, in single precision, unless weights of it would have to be made up."""
    from transformers import AutoModelForSequenceClassification

    advice = "give a sequence classifier as save_pretrained(…) writes it, or use 'cross-encoder:'"
    try:
        with quiet_transformers():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as exc:
        raise ConfigurationError(f"transformers cannot load {folder} ({exc}): {advice}") from exc
    if loading["missing_keys"]:
        raise Checkpoint(folder).untrained(sorted(loading["missing_keys"]))
    model.config.use_cache = False  # so that the logits are all that it returns
    return model.float().eval()


def _example(config: Any, names: list[str], pairs: int, tokens: int) -> dict[str, Any]:
    """Return inputs that are the same in every process: one full row, the others padded."""
    import torch

    padding = getattr(config, "pad_token_id", None) or 0
    dice = torch.Generator().manual_seed(tokens)
    ids = torch.randint(config.vocab_size - 1, (pairs, tokens), generator=dice)
    ids += (ids >= padding).long()  # any token but the padding
    lengths = torch.linspace(tokens, tokens / 2, pairs).ceil()[:, None]
    mask = (torch.arange(tokens) < lengths).long()
    types = (torch.arange(tokens) >= tokens // 2).long() * mask
    every = {"input_ids": ids * mask + padding * (1 - mask), "attention_mask": mask, "token_type_ids": types}
    return {name: every[name] for name in names}


def quantize(graph: GraphFile) -> GraphFile:
    """Return a graph with int8 weights, as a file in the cache of models; nothing is written beside the graph.

    Weights get one scale per column, activations one per run: each pair must run alone, or its score would depend
    on the others.
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

    return GraphFile(get_or_make(f"int8-{key}", make) / _FILE, (), "int8")
