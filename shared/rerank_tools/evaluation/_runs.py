"""TREC runs: scores that fall strictly, and the files that hold them."""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rerank_core.errors import ConfigurationError

__all__ = ["Run", "decreasing", "file_name", "replace_file", "save_run"]

Run = Mapping[str, Mapping[str, float]]
"""Query id, document id, score."""


def decreasing(scores: Sequence[float | None]) -> list[float]:
    """Return scores that fall strictly in single precision, in which evaluation tools compare.

    Those tools order equal scores by document id. A score that is not below the one before becomes the next
    number below that; where nothing was scored, scores count down from 0.

    >>> decreasing([0.5, 0.25, None])
    [0.5, 0.25, 0.0]
    """
    falling: list[float] = []
    for score in scores:
        value = _single(0.0 if score is None else score)
        falling.append(min(value, _next_below(falling[-1])) if falling else value)
    return falling


def save_run(runs: Mapping[str, Run], folder: Path) -> dict[str, Path]:
    """Write one TREC run file a system, and return their paths.

    Raises:
        ConfigurationError: two names give the same file.
    """
    paths = {name: folder / f"{file_name(name)}.run" for name in runs}
    if len(set(paths.values())) < len(paths):
        raise ConfigurationError(f"systems {', '.join(map(repr, runs))} would share a file: name them apart")
    folder.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        replace_file(paths[name], _lines(run, file_name(name)))
    return paths


def replace_file(path: Path, lines: Iterable[str]) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_name(name: str) -> str:
    """Return a name that any file system takes.

    >>> file_name("cohere:rerank-v3.5")
    'cohere-rerank-v3.5'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:100] or "system"


def _lines(run: Run, tag: str) -> Iterator[str]:
    for query, scores in run.items():
        for rank, (document, score) in enumerate(scores.items(), start=1):
            yield f"{query} Q0 {document} {rank} {score!r} {tag}\n"


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _next_below(value: float) -> float:
    """Return the largest number of single precision below a finite one."""
    (bits,) = struct.unpack("i", struct.pack("f", value))
    if value == 0.0:
        return -math.ldexp(1.0, -149)
    (below,) = struct.unpack("f", struct.pack("i", bits - 1 if value > 0.0 else bits + 1))
    return float(below)
