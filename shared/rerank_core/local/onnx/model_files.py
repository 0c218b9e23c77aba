"""Which of a model's files are used: those of a folder, or of a hub repository, of which no others are fetched."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import PROBE_SECONDS, Checkpoint, is_hub_id, unavailable
from rerank_core.local.onnx.bert.families import is_known
from rerank_core.local.onnx.quantize import cpu_features
from rerank_core.local.runtimes.session import Precision

__all__ = ["Graph", "find_model", "looks_written", "read_graph"]

Holds = Literal["fp32", "fp16", "int8"]

SAFETENSORS = "model.safetensors"
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
_WEIGHTS = (SAFETENSORS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARDS = (("model-", ".safetensors"), ("pytorch_model-", ".bin"))
_FLOAT32, _FLOAT16, _BFLOAT16 = 1, 10, 16
_WHOLE = frozenset({2, 3, 21, 22})
"""Bytes, signed or not, and halves of them."""
_LEAST_WHOLE = 0.01
"""Share of a quantised model's weights: the embeddings of many words may be left as they were."""
_MOST_NAMES = 12

_logger = logging.getLogger("rerank_core")


@dataclass(frozen=True)
class Graph:
    """An ONNX file.

    Attributes:
        path: of it.
        beside: the files that hold its weights where it does not.
        holds: the precision of the weights.
    """

    path: Path
    beside: Sequence[Path]
    holds: Holds


@dataclass(frozen=True)
class _Source:
    """Where the files are.

    Attributes:
        place: the folder or repository, as errors call it.
        names: of the files in it, those in folders with ``/``.
        hub_id: of the repository; None for a folder.
        revision: of the repository.
        error: why the hub did not answer, where it was to.
        folder: where files are that need not be fetched.
    """

    place: str
    names: frozenset[str]
    hub_id: str | None = None
    revision: str | None = None
    error: Exception | None = None
    folder: Path | None = None

    def fetch(self, names: Sequence[str]) -> Path:
        """Return the folder with these files."""
        if self.folder is not None:
            return self.folder
        hub = _hub(str(self.hub_id))
        try:
            return Path(hub.snapshot_download(self.hub_id, revision=self.revision, allow_patterns=list(names)))
        except Exception as exc:
            raise unavailable(str(self.hub_id)) from exc


def find_model(
    scorer: str, model: str, *, file_name: str | None, precision: Precision, revision: str | None, offline: bool
) -> tuple[Checkpoint, Graph | None]:
    """Return a model's folder, fetched from the hub where it is a hub id, and the ONNX file in it to be used.

    Args:
        scorer: whose model it is.
        model: a folder or a hub id.
        file_name: of the file to be used, an ONNX file or ``model.safetensors``; None to choose.
        precision: of the weights wanted; see :class:`rerank_core.local.onnx.scorer.OnnxScorer` for the choice.
        revision: branch, tag or commit on the hub.
        offline: never ask the hub.

    Returns:
        The folder, and the ONNX file in it; None in its place for the checkpoint's own weights.

    Raises:
        ConfigurationError: no name was given, a folder does not exist, or has no file of the kind and precision.
        ScorerUnavailableError: the hub does not have it or cannot be reached; says how to use a local folder.
    """
    source = _source(scorer, model, revision=revision, offline=offline)
    beside = [name for name in source.names if name.endswith(".json") and "/" not in name]
    checkpoint = Checkpoint(source.fetch(beside))
    chosen = _chosen(source, checkpoint, file_name, precision, scorer)
    if chosen in _WEIGHTS:
        source.fetch([*beside, *_weights(source.names, chosen)])
        return checkpoint, None
    parts = [name for name in source.names if name.startswith((f"{chosen}_data", f"{chosen}.data"))]
    graph = read_graph(source.fetch([*beside, chosen, *parts]) / chosen, scorer)
    _check(graph, precision, scorer)
    return checkpoint, graph


def looks_written(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint runs as it lies, without an ONNX file."""
    from rerank_core.local.formats.safetensors import has_weights

    return is_known(checkpoint.config) and has_weights(checkpoint.folder)


def _source(scorer: str, model: str, *, revision: str | None, offline: bool) -> _Source:
    if not model:
        raise ConfigurationError(f"{scorer} names no model: give '{scorer}<local folder or hub id>'")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _Source(str(folder), _names(folder), folder=folder)
    if not is_hub_id(model):
        raise ConfigurationError(f"{scorer}: there is no folder {str(folder)!r}, and that is no hub id either")
    hub = _hub(model)
    error: Exception | None = None
    if not offline:
        try:
            listing = hub.HfApi().model_info(model, revision=revision, timeout=PROBE_SECONDS).siblings or []
            return _Source(model, frozenset(file.rfilename for file in listing), model, revision)
        except Exception as exc:
            error = exc
    try:
        # The file that every model needs: without a name, a snapshot would have to be whole.
        cached = Path(
            hub.snapshot_download(
                model, revision=revision, allow_patterns=["tokenizer.json"], local_files_only=True
            )
        )
    except Exception as exc:
        raise unavailable(model) from (error or exc)
    return _Source(str(cached), _names(cached), model, revision, error, cached)


def _hub(model: str) -> Any:
    return require("huggingface_hub", extra="onnx", purpose=f"fetching {model!r} from the hub")


def _names(folder: Path) -> frozenset[str]:
    """Return the names of files in a folder and in the folders that are right in it."""
    found = (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())
    return frozenset(path.relative_to(folder).as_posix() for path in found)


def _chosen(
    source: _Source, checkpoint: Checkpoint, file_name: str | None, precision: Precision, scorer: str
) -> str:
    """Return the name of the file with the weights."""
    if file_name is not None:
        if file_name not in source.names and not (source.folder and (source.folder / file_name).is_file()):
            raise _nothing(source, [file_name], scorer)
        if not file_name.endswith(".onnx") and file_name not in _WEIGHTS:
            raise ConfigurationError(
                f"{scorer}: file_name is {file_name!r}: give an .onnx file, or {SAFETENSORS!r}"
            )
        return file_name
    weights = [name for name in _WEIGHTS if name in source.names and "config.json" in source.names]
    written = [name for name in weights if name.startswith(SAFETENSORS) and is_known(checkpoint.config)]
    if precision == "int8":
        wanted = [*_int8(), *written, *_SINGLE, *weights]
    else:
        wanted = [*_SINGLE, *weights, *([*_HALF, *_int8()] if precision == "auto" else [])]
    found = next((name for name in wanted if name in source.names), None)
    if found is None:
        raise _nothing(source, [*(_int8() if precision == "int8" else []), *_SINGLE, SAFETENSORS], scorer)
    return found


def _int8() -> list[str]:
    features = cpu_features()
    by_cpu = [name for feature, name in _INT8_BY_CPU.items() if feature in features]
    return [place + name for name in (*by_cpu, *_INT8) for place in ("", "onnx/")]


def _weights(names: frozenset[str], chosen: str) -> list[str]:
    """Return the names of all files of a checkpoint's weights."""
    if not chosen.endswith(".index.json"):
        return [chosen]
    begin, end = _SHARDS[0] if chosen.startswith(SAFETENSORS) else _SHARDS[1]
    return [chosen, *(name for name in names if name.startswith(begin) and name.endswith(end))]


def read_graph(path: Path, scorer: str) -> Graph:
    """Look at an ONNX file's weights.

    Raises:
        ConfigurationError: it is none, or cannot be read.
    """
    from rerank_core.local.formats.onnx import summarize_weights

    try:
        with path.open("rb") as file:
            found = summarize_weights(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (ValueError, OSError) as exc:
        raise ConfigurationError(f"{scorer}: {path} cannot be loaded ({exc}): fetch or export it anew") from exc
    whole = sum(count for kind, count in found.elements.items() if kind in _WHOLE)
    half = sum(found.elements.get(kind, 0) for kind in (_FLOAT16, _BFLOAT16))
    single = found.elements.get(_FLOAT32, 0)
    if whole > _LEAST_WHOLE * (whole + half + single):
        holds: Holds = "int8"
    else:
        holds = "fp16" if half > single else "fp32"
    return Graph(path, [path.parent / name for name in sorted(found.files)], holds)


def _check(graph: Graph, precision: Precision, scorer: str) -> None:
    """Check that a file is of the precision asked for, or can be made so.

    Raises:
        ConfigurationError: it is not.
    """
    if graph.holds == "fp32" or graph.holds == precision:
        return
    if precision == "auto":
        _logger.info("%s runs %s, whose weights are %s", scorer, graph.path, graph.holds)
        return
    raise ConfigurationError(
        f"{scorer}: {graph.path} holds {graph.holds} weights, and precision={precision!r} needs "
        f"{'int8 or ' if precision == 'int8' else ''}fp32 ones: give file_name= of such a file, or "
        "precision='auto' to run this one"
    )


def _nothing(source: _Source, wanted: Sequence[str], scorer: str) -> Exception:
    if source.error is not None:
        error: Exception = unavailable(str(source.hub_id))
        error.__cause__ = source.error
        return error
    names = sorted(source.names)
    there = ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")
    return ConfigurationError(
        f"{scorer}: {source.place} has no {' or '.join(wanted)}; it has {there or 'no files'}: give file_name=, "
        "or a checkpoint with its config.json, or use 'cross-encoder:' which runs it with torch"
    )
