"""int8 weights: each row of a matrix rounded to a scale of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core._cpu import multiplies_bytes

__all__ = ["LARGEST_INT8", "largest_int8", "quantised"]

LARGEST_INT8 = 127
_LARGEST_WITHOUT_VNNI = 63


def largest_int8() -> int:
    """Return the largest weight that ONNX Runtime multiplies exactly on this CPU.

    Without VNNI, x86 CPUs add two products of bytes in 16 bits, which eight bits would overflow without a word.
    """
    return LARGEST_INT8 if multiplies_bytes() else _LARGEST_WITHOUT_VNNI


def quantised(
    weight: npt.NDArray[np.float32], largest: int = LARGEST_INT8
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return a matrix rounded to whole numbers from -largest to largest, and a scale for each of its rows.

    >>> quantised(np.array([[1.0, -2.0], [0.0, 0.0]], np.float32), 100)[0].tolist()
    [[50, -100], [0, 0]]
    """
    peaks: Any = np.abs(weight).max(axis=1)
    scales = np.where(peaks > 0, peaks / largest, 1).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales
