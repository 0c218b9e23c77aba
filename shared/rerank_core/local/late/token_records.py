"""Token vectors as records: similar ones pooled, in int8 with one scale per vector; and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_core._support.extras import require
from rerank_core.local.formats.onnx import FLOAT, INT8, UINT8, GraphBuilder
from rerank_core.local.runtimes import OrtSession

_Floats = npt.NDArray[np.float32]

_FORMAT = "int8/1"
"""Part of every record's key; another number for another format."""
_SCALE_BYTES = 4
_DIGIT_BITS, _DIGIT, _MIDDLE = 7, 128, 64
"""A query's numbers are two digits in bytes below 128: sums of two products fit into 16 bits, on every CPU."""
_LARGEST = _DIGIT * (_MIDDLE - 1) + _MIDDLE - 1


def name_records(encoder: str, pooling: int) -> str:
    """Return what the records of an encoder are known by: all that one depends on besides its text."""
    return f"{encoder}, {_FORMAT}, pooling {pooling}"


def pool_tokens(tokens: _Floats, factor: int) -> _Floats:
    """Return a ``factor``-th of a text's token vectors, rounded up: unit means of the most similar ones.

    Clusters are Ward's, over all tokens of the text (Clavié, Chaffin and Adams, 2024).
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
    """Return a text's record: the scales of its vectors, then the mean and the tokens in int8, then padding."""
    vectors = np.concatenate([mean[None], tokens.astype(np.float32)])
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-12).astype("<f4") / np.float32(127)
    values = np.rint(vectors / scales[:, None]).astype(np.int8)
    record: bytes = scales.astype("<f4").tobytes() + values.tobytes()
    return record + bytes(-len(record) % 8)


class RecordProduct:
    """Compares a query with records, all of them in one matrix product on ONNX Runtime, in int8."""

    def __init__(self, threads: int | None) -> None:
        graph = GraphBuilder(opset=18)
        columns = graph.node("Transpose", ["rows"])
        middle = graph.weight(np.array(_MIDDLE, np.uint8))
        sums = graph.node("Cast", [graph.node("MatMulInteger", ["query", columns, middle])], {"to": FLOAT})
        inputs = {"query": (UINT8, ("queries", "width")), "rows": (INT8, ("rows", "width"))}
        self._session = OrtSession(graph.model(inputs, sums, ("queries", "rows")), threads=threads)

    def compare(
        self, mean: _Floats, tokens: npt.NDArray[np.floating[Any]], records: Sequence[bytes | memoryview]
    ) -> tuple[_Floats, _Floats]:
        """Return the products of the means, (records,), and the best matches of the tokens, (tokens, records).

        A record without tokens has a best match of 0.
        """
        query = np.concatenate([mean[None], tokens])
        steps = np.maximum(np.abs(query).max(axis=1, keepdims=True), 1e-12) / np.float32(_LARGEST)
        numbers = np.rint(query / steps).astype(np.int16) + _MIDDLE
        width = query.shape[1]
        counts = [len(record) // (width + _SCALE_BYTES) for record in records]
        scales = [np.frombuffer(record, "<f4", count) for record, count in zip(records, counts, strict=True)]
        rows = [
            np.frombuffer(record, np.int8, count * width, count * _SCALE_BYTES)
            for record, count in zip(records, counts, strict=True)
        ]
        feed = {
            "query": np.concatenate([(numbers >> _DIGIT_BITS) + _MIDDLE, numbers & (_DIGIT - 1)]).astype(np.uint8),
            "rows": np.concatenate(rows).reshape(-1, width),
        }
        (sums,) = self._session.run(feed)
        products = sums[: len(query)]
        products *= _DIGIT
        products += sums[len(query) :]
        products *= np.concatenate(scales)
        starts = [0, *accumulate(counts[:-1])]
        cosines = products[0, starts] * steps[0]
        products[:, starts] = -np.inf  # a mean is no token
        best = np.maximum.reduceat(products[1:], starts, axis=1) * steps[1:]
        return cosines, np.where(np.isneginf(best), np.float32(0), best)
