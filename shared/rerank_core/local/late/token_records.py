"""Token vectors as records: similar ones pooled, in int8 with one scale per vector; and their comparison."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from rerank_core._support.extras import require
from rerank_core.local.formats.onnx import FLOAT, INT8, GraphBuilder
from rerank_core.local.runtimes.onnxruntime import OrtSession

__all__ = ["RECORD_FORMAT", "RecordProduct", "RecordTable", "pack_record", "pool_tokens"]

_Floats = npt.NDArray[np.float32]

RECORD_FORMAT = "int8/1"
"""Part of every record's key; another number for another format."""

_COUNT = struct.Struct("<I")


def pool_tokens(tokens: _Floats, factor: int) -> _Floats:
    """Return a ``factor``-th of a text's token vectors, rounded up: unit means of the most similar ones.

    Clusters are Ward's, over all tokens of the text (Clavié, Chaffin and Adams, 2024).

    Raises:
        MissingExtraError: scipy is not installed, and ``factor`` is above 1.
    """
    count = -(-len(tokens) // factor)
    if count == len(tokens):
        return tokens
    hierarchy = require("scipy.cluster.hierarchy", extra="vectors", purpose="pooling token vectors")
    tree = hierarchy.linkage(tokens, "ward")
    labels = hierarchy.fcluster(tree, count, "maxclust") - 1
    sums = np.zeros((int(labels.max()) + 1, tokens.shape[1]), np.float32)
    np.add.at(sums, labels, tokens)
    pooled: _Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return pooled


def pack_record(mean: _Floats, tokens: _Floats) -> bytes:
    """Return a text's record: the number of its vectors, their scales, then the mean and the tokens in int8."""
    vectors = np.concatenate([mean[None], tokens.astype(np.float32)])
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-12).astype("<f4") / np.float32(127)
    values = np.rint(vectors / scales[:, None]).astype(np.int8)
    return b"".join([_COUNT.pack(len(vectors)), scales.astype("<f4").tobytes(), values.tobytes()])


class RecordTable:
    """The vectors of records, one after the other in one array, which is used again and again.

    Attributes:
        starts: where each record's vectors begin.
    """

    def __init__(self, width: int) -> None:
        self.starts: list[int] = []
        self._end = 0
        self._values = np.empty((0, width), np.int8)
        self._scales = np.empty(0, np.float32)

    def clear(self) -> None:
        """Remove all records."""
        self.starts = []
        self._end = 0

    def add(self, record: bytes | memoryview) -> None:
        """Copy the vectors of a record, as :func:`pack_record` makes it."""
        (count,) = _COUNT.unpack_from(record)
        start, width = self._end, self._values.shape[1]
        self._end = end = start + count
        if end > len(self._values):
            self._values = np.resize(self._values, (2 * end, width))
            self._scales = np.resize(self._scales, 2 * end)
        self._scales[start:end] = np.frombuffer(record, "<f4", count, _COUNT.size)
        values = np.frombuffer(record, np.int8, count * width, _COUNT.size + 4 * count)
        self._values[start:end] = values.reshape(count, width)
        self.starts.append(start)

    @property
    def values(self) -> npt.NDArray[np.int8]:
        """(vectors, width)."""
        return self._values[: self._end]

    @property
    def scales(self) -> _Floats:
        """(vectors,), by which the values are to be multiplied."""
        return self._scales[: self._end]


class RecordProduct:
    """Compares a query with records, all of them in one matrix product on ONNX Runtime.

    Args:
        threads: cores to use, at least 1; None for all physical ones.
    """

    def __init__(self, threads: int | None) -> None:
        graph = GraphBuilder(opset=18)
        rows = graph.node("Cast", ["rows"], {"to": FLOAT})
        product = graph.node("FusedMatMul", ["query", rows], {"transB": 1}, "com.microsoft")
        inputs = {"query": (FLOAT, ("queries", "width")), "rows": (INT8, ("rows", "width"))}
        self._session = OrtSession(graph.model(inputs, product, ("queries", "rows")), threads=threads)

    def compare(self, mean: _Floats, tokens: _Floats, table: RecordTable) -> tuple[_Floats, _Floats]:
        """Return the product of the means, one per record, and the best matches of the query's tokens.

        Args:
            mean: of the query, (width,).
            tokens: of the query, (tokens, width).
            table: with at least one record.

        Returns:
            (records,) and (tokens, records); a record without tokens has a best match of 0.
        """
        (products,) = self._session.run({"query": np.concatenate([mean[None], tokens]), "rows": table.values})
        products *= table.scales
        cosines = products[0, table.starts]
        products[:, table.starts] = -np.inf  # a mean is no token
        best = np.maximum.reduceat(products[1:], table.starts, axis=1)
        return cosines, np.where(np.isfinite(best), best, np.float32(0))
