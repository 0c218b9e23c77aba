"""Input files of batches, and what is in their output folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_core import Reranker, Selection

__all__ = ["failures", "plain_loop", "results", "some_rows", "worker_pids", "write_rows"]

_WORDS = ("memory", "leak", "python", "spring", "paris", "tea", "socket")


def some_rows(count: int, candidates: int = 4) -> list[dict[str, Any]]:
    """Return rows whose queries and candidates all differ."""
    return [
        {
            "id": number,
            "query": f"{_WORDS[number % 7]} {_WORDS[number % 5]} {number}",
            "documents": [f"{_WORDS[(number + each) % 7]} {number}-{each}" for each in range(candidates)],
        }
        for number in range(count)
    ]


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """Write a file, JSONL or Parquet by its name; a string is a line of JSONL as it is."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=7)
    else:
        path.write_text(
            "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
        )
    return path


def results(output: Path) -> list[dict[str, Any]]:
    """Return the rows of all parts, in order."""
    rows: list[dict[str, Any]] = []
    for part in sorted((output / "rows").iterdir()):
        assert not part.name.startswith(".")
        if part.suffix == ".parquet":
            import pyarrow.parquet

            rows += pyarrow.parquet.read_table(part).to_pylist()
        else:
            rows += [json.loads(line) for line in part.read_text(encoding="utf-8").split("\n")[:-1]]
    return rows


def failures(output: Path) -> list[dict[str, Any]]:
    """Return the rows that failed, in order."""
    parts = sorted((output / "errors").iterdir()) if (output / "errors").exists() else []
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def plain_loop(
    reranker: Reranker, rows: Sequence[Mapping[str, Any]], selection: Selection
) -> list[tuple[list[int], list[float | None]]]:
    """Return indices and scores as a loop over the rows gives them."""
    rankings = [reranker.rerank(row["query"], row["documents"], selection=selection) for row in rows]
    return [([each.index for each in ranking], [each.score for each in ranking]) for ranking in rankings]


def worker_pids() -> list[int]:
    """Return the processes of this process's cluster that work on parts."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                pid = int(folder.name)
                if os.getpid() in _ancestors(pid):
                    found.append(pid)
        except OSError:  # it has ended
            continue
    return found


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        # After the name in brackets: the state, then the parent.
        pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        yield pid
