"""int8 weights with one scale per row of a matrix, quantised once per machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.model_cache import fingerprint_files, get_or_make

Array = npt.NDArray[np.float32]


class QuantizedRows(NamedTuple):
    """A matrix in int8, (rows, columns), and what each row is to be multiplied with, (rows,)."""

    values: npt.NDArray[np.int8]
    scales: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The matrix's dimensions."""
        return self.values.shape


RowQuantizer = Callable[[Array], QuantizedRows]

_VERSION = 1
"""Of the cached files, and of the order in which a graph asks for them."""

LARGEST_INT8 = 127
_LARGEST_WITHOUT_VNNI = 63


def largest_int8() -> int:
    """Return the largest weight that ONNX Runtime multiplies exactly on this CPU.

    Without VNNI, x86 CPUs add two products of bytes in 16 bits, which can overflow unnoticed with 8-bit weights.
    """
    return LARGEST_INT8 if multiplies_bytes() else _LARGEST_WITHOUT_VNNI


def cached_quantizer(files: Sequence[Path], largest: int, write: Callable[[RowQuantizer], object]) -> RowQuantizer:
    """Return a quantiser for the matrices of a checkpoint, in the order in which ``write`` asks for them.

    Each matrix is quantised once and kept in the cache of models, which later processes map into memory. What
    ``write`` then writes is a graph that is thrown away, to learn which matrices it needs.
    """

    def make(folder: Path) -> None:
        numbers = count()

        def save(weight: Array) -> QuantizedRows:
            quantized = quantize_rows(weight, largest)
            to_values, to_scales = _paths(folder, next(numbers))
            np.save(to_values, quantized.values)
            np.save(to_scales, quantized.scales)
            return quantized

        write(save)

    folder = get_or_make(f"rounded-{fingerprint_files(f'{_VERSION} {largest}', *files)}", make)
    numbers = count()

    def load(_: Array) -> QuantizedRows:
        # Mapped as copy-on-write, although nobody writes, because OpenVINO refuses read-only memory.
        values, scales = (np.load(path, mmap_mode="c") for path in _paths(folder, next(numbers)))
        return QuantizedRows(np.asarray(values), np.asarray(scales))

    return load


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number}.npy", folder / f"{number}-scales.npy"


def quantize_rows(weight: Array, largest: int) -> QuantizedRows:
    """Return a matrix as whole numbers from -largest to largest, and a scale for each of its rows.

    >>> quantize_rows(np.array([[1.0, -2.0], [0.0, 0.0]], np.float32), 100).values.tolist()
    [[50, -100], [0, 0]]
    """
    peaks: Any = np.abs(weight).max(axis=1)
    scales = np.where(peaks > 0, peaks / largest, 1).astype(np.float32)
    return QuantizedRows(np.rint(weight / scales[:, None]).astype(np.int8), scales)
