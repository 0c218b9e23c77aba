"""TREC runs: rankings with strictly falling scores, and the files that hold them."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from rerank_core._support.files import write_atomically
from rerank_core.errors import ConfigurationError
from rerank_tools.records import read_lines

__all__ = ["Run", "make_decreasing", "make_file_name", "read_run", "write_runs"]

Run = Mapping[str, Mapping[str, float]]
"""Query id, document id, score."""


def make_decreasing(scores: Sequence[float | None]) -> list[float]:
    """Return scores that fall strictly in single precision, in which evaluation tools compare.

    Those tools order equal scores by document id. A score that is not below the one before becomes the next
    number below that. Where nothing was scored, scores count down from 0.

    >>> make_decreasing([0.5, 0.25, None])
    [0.5, 0.25, 0.0]
    """
    falling: list[float] = []
    for score in scores:
        value = _round_to_single(0.0 if score is None else score)
        falling.append(min(value, _next_below(falling[-1])) if falling else value)
    return falling


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Return the scores of a TREC run file: query id, ``Q0``, document id, rank, score, tag.

    Raises:
        ConfigurationError: the file cannot be read or is malformed; names the line.
    """
    run: dict[str, dict[str, float]] = {}
    for number, line in read_lines(path):
        fields = line.split()
        where = f"{path}, line {number}"
        if len(fields) != 6:
            raise ConfigurationError(
                f"{where}: {len(fields)} fields: give query id, Q0, document id, rank, score and tag"
            )
        query, _, document, _, score, _ = fields
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigurationError(f"{where}: the score is {score!r}: give a number")
        if document in run.setdefault(query, {}):
            raise ConfigurationError(f"{where}: document {document!r} occurs a second time for query {query!r}")
        run[query][document] = value
    return run


def write_runs(runs: Mapping[str, Run], folder: Path) -> dict[str, Path]:
    """Write one TREC run file per system, and return their paths.

    Raises:
        ConfigurationError: two names give the same file.
        OSError: a file cannot be written.
    """
    paths = {name: folder / f"{make_file_name(name)}.run" for name in runs}
    if len(set(paths.values())) < len(paths):
        raise ConfigurationError(f"systems {', '.join(map(repr, runs))} would share a file: name them apart")
    for name, run in runs.items():
        with write_atomically(paths[name]) as file:
            for query, scores in run.items():
                for rank, (document, score) in enumerate(scores.items(), start=1):
                    file.write(f"{query} Q0 {document} {rank} {score!r} {make_file_name(name)}\n".encode())
    return paths


def make_file_name(name: str) -> str:
    """Return a name that any file system takes.

    >>> make_file_name("cohere:rerank-v3.5")
    'cohere-rerank-v3.5'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:100] or "system"


def _round_to_single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _next_below(value: float) -> float:
    """Return the largest number of single precision below a finite one."""
    (bits,) = struct.unpack("i", struct.pack("f", value))
    if value == 0.0:
        return -math.ldexp(1.0, -149)
    (below,) = struct.unpack("f", struct.pack("i", bits - 1 if value > 0.0 else bits + 1))
    return float(below)
