"""Reading documents from files: JSON, JSON lines, CSV, TSV, or one document per line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from rerank_core._support.checks import check_choice
from rerank_core.errors import ConfigurationError

RecordFormat = Literal["auto", "json", "jsonl", "csv", "tsv", "lines"]

FORMATS: Mapping[str, RecordFormat] = MappingProxyType(
    {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "lines"}
)
"""Formats by file name extension."""

_SHOWN_FIELDS = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One document of a file: as it was read, its text, and its first line, None for an element of a JSON list."""

    document: Any
    text: str
    line: int | None


def read_records(path: Path, *, format: RecordFormat = "auto", text_field: str = "text") -> list[Record]:  # noqa: A002
    """Read a file of documents; ``"auto"`` decides by its extension, else as :func:`parse_records` does."""
    if format == "auto":
        format = FORMATS.get(path.suffix.lower(), "auto")  # noqa: A001
    return parse_records(_read_bytes(path), source=str(path), format=format, text_field=text_field)


def parse_records(
    data: bytes,
    *,
    source: str,
    format: RecordFormat = "auto",  # noqa: A002
    text_field: str = "text",
) -> list[Record]:
    r"""Return the documents in the content of a file.

    ``"auto"`` reads content that begins with ``[`` as JSON, with ``{`` as JSON lines, and anything else as one
    document per line. CSV and TSV have to be named. Blank lines are skipped. Errors name the source and the line.

    >>> [record.text for record in parse_records(b'{"text": "a"}\n{"text": "b"}\n', source="standard input")]
    ['a', 'b']
    """
    check_choice("format", format, get_args(RecordFormat))
    content = decode(data, source=source)
    parser = _PARSERS[_guess_format(content) if format == "auto" else format]
    records = list(parser(content, source, text_field))
    if not records:
        raise ConfigurationError(f"{source} holds no documents: give at least one")
    return records


def decode(data: bytes, *, source: str) -> str:
    """Decode the content of a file in UTF-8, with or without a byte order mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationError(f"{source} is in UTF-16: convert it to UTF-8")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"{source} is not text in UTF-8 (byte {data[exc.start]:#04x} at offset {exc.start}): convert it"
        ) from None
    if "\0" in content:
        raise ConfigurationError(
            f"{source} is binary (a zero byte at offset {data.index(0)}): give JSON, JSON lines, CSV or lines"
        )
    return content


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file in UTF-8 that are not blank, each with its place for error messages.

    Line by line, because corpora may take a good part of the memory.
    """
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                place = f"{path}, line {number}"
                line = decode(data, source=place)
                if line.strip():
                    yield place, line
    except OSError as exc:
        raise _unreadable(path, exc) from None


def parse_json(content: str | bytes, place: str) -> Any:
    """Parse JSON; the place, such as a file and a line, begins error messages."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(text.rstrip(" \t\r\n"))  # a line's end would count as another line in what is wrong
    except json.JSONDecodeError as exc:
        line = f", line {exc.lineno}" if exc.lineno > 1 else ""
        raise ConfigurationError(
            f"{place}{line}, column {exc.colno}: not JSON ({exc.msg}): correct it, or name the format"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{place}: JSON that is nested too deeply: flatten it") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{place}: not text in UTF-8: convert it") from None
    except ValueError:
        raise ConfigurationError(f"{place}: a number in the JSON is too long: write it as a string") from None


def parse_json_object(content: str | bytes, place: str) -> dict[str, Any]:
    """Parse JSON that must be an object."""
    item = parse_json(content, place)
    if not isinstance(item, dict):
        raise ConfigurationError(f"{place}: {_describe(item)}: give an object")
    return item


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise _unreadable(path, exc) from None


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{path} cannot be read: {error.strerror or error}: give another file")


def _guess_format(content: str) -> str:
    start = content.lstrip()[:1]
    return {"[": "json", "{": "jsonl"}.get(start, "lines")


def _parse_json_list(content: str, source: str, text_field: str) -> Iterator[Record]:
    if not content.strip():
        return
    items = parse_json(content, source)
    if not isinstance(items, list):
        raise ConfigurationError(f"{source} is not a JSON list but {_describe(items)}: give a list, or JSON lines")
    for number, item in enumerate(items, 1):
        yield Record(item, _find_text(item, text_field, f"{source}, element {number}"), None)


def _parse_json_lines(content: str, source: str, text_field: str) -> Iterator[Record]:
    for number, line in _split_lines(content):
        place = f"{source}, line {number}"
        item = parse_json(line, place)
        yield Record(item, _find_text(item, text_field, place), number)


def _parse_lines(content: str, _source: str, _text_field: str) -> Iterator[Record]:
    for number, line in _split_lines(content):
        yield Record(line.strip(), line.strip(), number)


def _split_lines(content: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(), which also splits at characters that may stand in a JSON string.
    return ((number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip())


def _parse_csv(content: str, source: str, text_field: str, *, delimiter: str = ",") -> Iterator[Record]:
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    ended = 0
    try:
        for row in reader:
            line, ended = max(ended, 1) + 1, reader.line_num
            if None in row or None in row.values():
                raise ConfigurationError(
                    f"{source}, line {line}: {'more' if None in row else 'fewer'} cells than the header names: "
                    "quote cells that hold the delimiter"
                )
            yield Record(row, _find_text(row, text_field, f"{source}, line {line}"), line)
    except csv.Error as exc:
        raise ConfigurationError(f"{source}, line {reader.reader.line_num}: not CSV ({exc}): correct it") from None


_PARSERS: Mapping[str, Callable[[str, str, str], Iterator[Record]]] = {
    "json": _parse_json_list,
    "jsonl": _parse_json_lines,
    "lines": _parse_lines,
    "csv": _parse_csv,
    "tsv": partial(_parse_csv, delimiter="\t"),
}


def _find_text(item: Any, text_field: str, where: str) -> str:
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise ConfigurationError(f"{where}: {_describe(item)} is no document: give a string or an object")
    if text_field not in item:
        names = ", ".join(repr(name) for name in list(item)[:_SHOWN_FIELDS]) or "none"
        raise ConfigurationError(f"{where}: no field {text_field!r}: name the field of the text, there is {names}")
    text = item[text_field]
    if not isinstance(text, str):
        raise ConfigurationError(f"{where}: field {text_field!r} holds {_describe(text)}: give a string")
    return text


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), "a number")
