"""int8 weights: each row of a matrix rounded to a scale of its own, once on a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.model_cache import fingerprint_files, get_or_make

__all__ = ["LARGEST_INT8", "Rounding", "kept_rounding", "largest_int8", "quantised"]

Rounded = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]
Rounding = Callable[[npt.NDArray[np.float32]], Rounded]
"""Returns a matrix in int8, and a scale for each of its rows."""

_VERSION = 1
"""Of the files that are kept, and of the order in which a graph asks for them."""

LARGEST_INT8 = 127
_LARGEST_WITHOUT_VNNI = 63


def largest_int8() -> int:
    """Return the largest weight that ONNX Runtime multiplies exactly on this CPU.

    Without VNNI, x86 CPUs add two products of bytes in 16 bits, which eight bits would overflow without a word.
    """
    return LARGEST_INT8 if multiplies_bytes() else _LARGEST_WITHOUT_VNNI


def kept_rounding(files: Sequence[Path], largest: int, write: Callable[[Rounding], object]) -> Rounding:
    """Return what rounds the matrices of a checkpoint, in the order in which ``write`` asks for them.

    They are rounded once and kept, in the cache of models; the next process maps them into memory.

    Args:
        files: with the weights.
        largest: see :func:`quantised`.
        write: asks for each matrix of a graph that is thrown away.

    Raises:
        ConfigurationError: they cannot be written.
    """

    def make(folder: Path) -> None:
        numbers = count()

        def save(weight: npt.NDArray[np.float32]) -> Rounded:
            values, scales = quantised(weight, largest)
            to_values, to_scales = _paths(folder, next(numbers))
            np.save(to_values, values)
            np.save(to_scales, scales)
            return values, scales

        write(save)

    folder = get_or_make(f"rounded-{fingerprint_files(f'{_VERSION} {largest}', *files)}", make)
    numbers = count()

    def load(_: npt.NDArray[np.float32]) -> Rounded:
        # Copied when written to, which nobody does: OpenVINO refuses memory that cannot be.
        values, scales = (np.load(path, mmap_mode="c") for path in _paths(folder, next(numbers)))
        return np.asarray(values), np.asarray(scales)

    return load


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number}.npy", folder / f"{number}-scales.npy"


def quantised(weight: npt.NDArray[np.float32], largest: int) -> Rounded:
    """Return a matrix rounded to whole numbers from -largest to largest, and a scale for each of its rows.

    >>> quantised(np.array([[1.0, -2.0], [0.0, 0.0]], np.float32), 100)[0].tolist()
    [[50, -100], [0, 0]]
    """
    peaks: Any = np.abs(weight).max(axis=1)
    scales = np.where(peaks > 0, peaks / largest, 1).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales
