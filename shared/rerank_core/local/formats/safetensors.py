"""The weights of a checkpoint, ``model.safetensors`` or its shards, as views of the mapped files.

The ``safetensors`` package copies each tensor that it hands to numpy, and has no numpy type for bfloat16; the
format is a length of eight bytes, a JSON header and the tensors' bytes.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core.errors import ConfigurationError

__all__ = ["SINGLE_FILE", "Weights", "has_weights"]

SINGLE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LENGTH = 8
_BFLOAT16 = "BF16"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
}

Array = npt.NDArray[np.float32]


def has_weights(folder: Path) -> bool:
    """Tell whether a folder holds weights in this format."""
    return (folder / SINGLE_FILE).is_file() or (folder / _INDEX).is_file()


@dataclass(frozen=True)
class _Tensor:
    file: _File
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class _File:
    path: Path
    mapped: mmap.mmap
    content: memoryview


class Weights:
    """The tensors of a checkpoint by name, in single precision.

    Those that the files hold in single precision are views of the mapped file, the others copies.

    Args:
        folder: the checkpoint.
        scorer: whose checkpoint it is.

    Raises:
        ConfigurationError: a file is missing, cut off or no safetensors file.
    """

    def __init__(self, folder: Path, *, scorer: str) -> None:
        self._scorer = scorer
        self._folder = folder
        self._tensors: dict[str, _Tensor] = {}
        for name in self._names():
            self._read(folder / name)

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return sorted({tensor.file.path for tensor in self._tensors.values()})

    def forget(self) -> None:
        """Let go of the memory that reading took; what is used again is read again from the file.

        A runtime packs most matrices into memory of its own when it loads them.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for file in {id(tensor.file): tensor.file for tensor in self._tensors.values()}.values():
                file.mapped.madvise(mmap.MADV_DONTNEED)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, names: str | Sequence[str], shape: Sequence[int | None]) -> Array:
        """Return a tensor by the first of its possible names that the checkpoint has.

        Args:
            names: what it may be called.
            shape: what it must have, None for any size.

        Raises:
            ConfigurationError: it is missing, of another shape or of no floating-point type.
        """
        wanted = [names] if isinstance(names, str) else names
        found = next((name for name in wanted if name in self._tensors), None)
        if found is None:
            raise ConfigurationError(f"{self._scorer}: {self._folder} has no tensor {wanted[0]!r}")
        tensor = self._tensors[found]
        fits = len(shape) == len(tensor.shape) and all(
            size in (None, given) for size, given in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise self._error(
                tensor.file.path, f"tensor {found!r} has shape {list(tensor.shape)}, not {list(shape)}"
            )
        return self._values(tensor, found)

    def _values(self, tensor: _Tensor, name: str) -> Array:
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise self._error(
                tensor.file.path, f"tensor {name!r} is of type {tensor.dtype}; {', '.join(_DTYPES)} are read"
            )
        values = np.frombuffer(tensor.file.content[tensor.start : tensor.end], dtype).reshape(tensor.shape)
        if tensor.dtype == _BFLOAT16:  # the upper half of a single-precision number
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False)

    def _names(self) -> Sequence[str]:
        if (self._folder / SINGLE_FILE).is_file():
            return [SINGLE_FILE]
        index = self._folder / _INDEX
        try:
            files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            names = sorted({str(name) for name in files})
        except FileNotFoundError:
            raise ConfigurationError(f"{self._scorer}: {self._folder} has no {SINGLE_FILE}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise self._error(index, "it lists no files") from exc
        if any(Path(name).name != name for name in names):
            raise self._error(index, "it lists files that are not beside it")
        return names

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                # Copy on write, though nobody writes: OpenVINO takes no read-only memory.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as exc:  # an empty file cannot be mapped: ValueError
            raise self._error(path, "it cannot be read, or is empty") from exc
        content = memoryview(mapped)
        begin = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
        if begin > len(content):
            raise self._error(path, "its header is cut off")
        opened = _File(path, mapped, content)
        try:
            header = json.loads(bytes(content[_LENGTH:begin]))
            entries = {
                name: _entry(opened, begin, entry) for name, entry in header.items() if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise self._error(path, "its header cannot be read") from exc
        for name, tensor in entries.items():
            self._check(name, tensor, begin)
        self._tensors.update(entries)

    def _check(self, name: str, tensor: _Tensor, begin: int) -> None:
        if not begin <= tensor.start <= tensor.end <= len(tensor.file.content):
            raise self._error(tensor.file.path, f"tensor {name!r} ends after the file does")
        dtype = _DTYPES.get(tensor.dtype)
        count = int(np.prod(tensor.shape, dtype=np.int64))
        if dtype is not None and tensor.end - tensor.start != dtype.itemsize * count:
            raise self._error(tensor.file.path, f"tensor {name!r} does not have as many bytes as its shape says")

    def _error(self, path: Path, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self._scorer}: {path} is no usable safetensors file: {what}")


def _entry(file: _File, begin: int, entry: dict[str, Any]) -> _Tensor:
    start, end = (begin + int(offset) for offset in entry["data_offsets"])
    return _Tensor(file, str(entry["dtype"]), tuple(int(size) for size in entry["shape"]), start, end)
