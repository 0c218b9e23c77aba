"""Files of data sets and runs, read line by line; what is wrong is named with its line."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from rerank_core.errors import ConfigurationError

__all__ = ["read_collection", "read_qrels", "read_run"]


def read_collection(path: Path) -> dict[str, str]:
    """Return the texts of a JSON-lines file by ``_id``, a title above its text."""
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        row = _json_object(path, number, line)
        key, text, title = row.get("_id"), row.get("text"), row.get("title") or ""
        if not isinstance(key, str) or not key or any(map(str.isspace, key)):
            raise _malformed(path, number, f'"_id" is {key!r}: give a string without spaces')
        if not isinstance(text, str) or not isinstance(title, str):
            raise _malformed(path, number, '"text" is missing, or it or "title" is no string')
        if key in texts:
            raise _malformed(path, number, f'"_id" {key!r} occurs a second time')
        texts[key] = f"{title}\n{text}".strip() if title else text
    return texts


def read_qrels(path: Path, queries: Container[str]) -> dict[str, dict[str, int]]:
    """Return the judgements of a tab-separated file: query id, document id, grade, below a header."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 3:
            raise _malformed(path, number, f"{len(fields)} fields: give query id, document id and grade, by tabs")
        query, document, grade = fields
        if number == 1 and not _is_number(grade):
            continue  # the header
        if not _is_number(grade):
            raise _malformed(path, number, f"the grade is {grade!r}: give a whole number")
        if query not in queries:
            raise _malformed(path, number, f"query {query!r} is not among the queries")
        if document in qrels.setdefault(query, {}):
            raise _malformed(path, number, f"document {document!r} is judged a second time for query {query!r}")
        qrels[query][document] = int(grade)
    return qrels


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Return the scores of a TREC run file: query id, ``Q0``, document id, rank, score, tag."""
    run: dict[str, dict[str, float]] = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 6:
            raise _malformed(
                path, number, f"{len(fields)} fields: give query id, Q0, document id, rank, score and tag"
            )
        query, _, document, _, score, _ = fields
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise _malformed(path, number, f"the score is {score!r}: give a number")
        if document in run.setdefault(query, {}):
            raise _malformed(path, number, f"document {document!r} occurs a second time for query {query!r}")
        run[query][document] = value
    return run


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as exc:
        raise _malformed(path, number + 1, "the file is not UTF-8 text from here on") from exc
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise _malformed(path, number, "the line is no JSON") from exc
    if not isinstance(row, dict):
        raise _malformed(path, number, f"a JSON {type(row).__name__}: give an object")
    return row


def _is_number(grade: str) -> bool:
    return grade.strip().removeprefix("-").isdecimal()


def _malformed(path: Path, number: int, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{path}:{number}: {problem}")
