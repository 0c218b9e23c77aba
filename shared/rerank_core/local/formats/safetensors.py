"""The weights of a checkpoint, ``model.safetensors`` or its shards, as views of the mapped files.

The ``safetensors`` package copies each tensor that it hands to numpy, and has no numpy type for bfloat16. The
format is a length of eight bytes, a JSON header and the tensors' bytes.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core.errors import ConfigurationError

_SINGLE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LENGTH = 8
_BFLOAT16 = "BF16"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
}


def has_weights(folder: Path) -> bool:
    """Tell whether a folder holds weights in this format."""
    return (folder / _SINGLE_FILE).is_file() or (folder / _INDEX).is_file()


class Weights:
    """The tensors of a checkpoint by name, in single precision; ``files`` hold them.

    Tensors that are stored in single precision are views of the mapped file, others are copies. A file that is
    damaged is refused when it is opened, or when a tensor is asked for that does not fit it.
    """

    def __init__(self, folder: Path) -> None:
        self.files = [folder / name for name in _file_names(folder)]
        self._mapped: list[mmap.mmap] = []
        self._tensors: dict[str, tuple[Path, str, list[int], memoryview]] = {}
        for path in self.files:
            self._read(path)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        path, kind, shape, data = self._tensors[name]
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise _unusable(path, f"tensor {name!r} is of type {kind}; {', '.join(_DTYPES)} are read")
        try:
            values = np.frombuffer(data, dtype).reshape(shape)
        except (ValueError, TypeError, OverflowError) as exc:
            raise _unusable(path, f"tensor {name!r} does not have as many bytes as its shape says") from exc
        if kind == _BFLOAT16:  # the upper half of a single-precision number
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False)

    def release_pages(self) -> None:
        """Give back the memory that reading took; tensors that are used again are read from the file again.

        For when a runtime has loaded the model: it packs most matrices into memory of its own.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._mapped:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                # Copy on write, though nobody writes: OpenVINO takes no read-only memory.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as exc:  # an empty file cannot be mapped: ValueError
            raise _unusable(path, "it cannot be read, or is empty") from exc
        self._mapped.append(mapped)
        content = memoryview(mapped)
        begin = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
        try:
            header = json.loads(bytes(content[_LENGTH:begin]))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                data = content[begin + start : begin + end]
                self._tensors[name] = path, str(entry["dtype"]), entry["shape"], data
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise _unusable(path, "its header cannot be read") from exc


def _file_names(folder: Path) -> list[str]:
    if (folder / _SINGLE_FILE).is_file():
        return [_SINGLE_FILE]
    index = folder / _INDEX
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in files})
    except FileNotFoundError:
        raise ConfigurationError(f"{folder} has no {_SINGLE_FILE}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise _unusable(index, "it lists no files") from exc
    if any(Path(name).name != name for name in names):
        raise _unusable(index, "it lists files that are not beside it")
    return names


def _unusable(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{path} is not a usable safetensors file: {reason}")
