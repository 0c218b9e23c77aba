"""Makes the ONNX files that a model's folder lacks: exported with torch, quantised by ONNX Runtime; made once."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.cpu import cpu_features, multiplies_bytes
from rerank_core.local.model_cache import fingerprint_files, get_or_make
from rerank_core.local.onnx.model_files import GraphFile, read_graph
from rerank_core.local.runtimes.onnxruntime import OrtSession
from rerank_core.local.torch.loading import quiet_transformers

__all__ = ["export", "quantize"]

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


def export(checkpoint: Checkpoint, *, length: int) -> GraphFile:
    """Return a checkpoint's graph as an ONNX file in the cache of models, in single precision.

    Args:
        checkpoint: a sequence classifier as transformers saves it; nothing is written into its folder.
        length: tokens that the model reads, and the most that it is tried with.

    Raises:
        ConfigurationError: transformers cannot load the checkpoint without code of its own, the exporter does not
            take it, or the graph's logits differ from torch's; nothing is kept.
        MissingExtraError: a package of the extras ``local`` and ``export`` is not installed.
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

    class Graph(torch.nn.Module):
        """The logits alone, of inputs by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).logits

    graph = Graph().eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code of models and of the exporter
            torch.onnx.export(
                graph,
                tuple(_example(model.config, names, 2, min(9, length)).values()),
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
        expected = graph(*example.values())
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
    return model.float().eval()


def _example(config: Any, names: list[str], pairs: int, tokens: int) -> dict[str, Any]:
    """Return inputs that are the same in every process: one full row, the others padded."""
    import torch

    dice = torch.Generator().manual_seed(tokens)
    padding = getattr(config, "pad_token_id", None) or 0
    ids = torch.randint(config.vocab_size - 1, (pairs, tokens), generator=dice)
    ids += (ids >= padding).long()  # any token but the padding
    lengths = torch.randint(max(1, tokens // 2), tokens + 1, (pairs, 1), generator=dice)
    lengths[0] = tokens
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
