"""Documents from files: JSON, JSON lines, CSV, TSV, or a document a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from rerank_core.errors import ConfigurationError

__all__ = ["FORMATS", "Record", "RecordFormat", "decode", "parse_records", "read_records"]

RecordFormat = Literal["auto", "json", "jsonl", "csv", "tsv", "lines"]

FORMATS: Mapping[str, RecordFormat] = MappingProxyType(
    {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "lines"}
)
"""The format that the end of a file's name stands for."""

_SHOWN_FIELDS = 8


@dataclass(frozen=True, slots=True)
class Record:
    """A document of a file.

    Attributes:
        document: as it was read: a string, or a dictionary of fields.
        text: what a model should read of it.
        line: the line that it begins in, from 1; None in a JSON list.
    """

    document: Any
    text: str
    line: int | None


def read_records(path: Path, *, format: RecordFormat = "auto", text_field: str = "text") -> list[Record]:  # noqa: A002
    """Read a file of documents.

    Args:
        path: the file, in UTF-8.
        format: ``"auto"`` goes by the end of the file's name, else by how its content begins.
        text_field: the field that holds the text of a document that is not a string.

    Raises:
        ConfigurationError: the file cannot be read, or its content is not of that format; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            f"{path} cannot be read: {exc.strerror or exc}: give a file of documents"
        ) from None
    if format == "auto":
        format = FORMATS.get(path.suffix.lower(), "auto")  # noqa: A001
    return parse_records(data, source=str(path), format=format, text_field=text_field)


def parse_records(
    data: bytes,
    *,
    source: str,
    format: RecordFormat = "auto",  # noqa: A002
    text_field: str = "text",
) -> list[Record]:
    r"""Return the documents of a file's content.

    ``"auto"`` takes content that begins with ``[`` for JSON, with ``{`` for JSON lines, all other for a document
    a line; CSV has to be named. Blank lines are passed over.

    Args:
        data: the content, in UTF-8.
        source: what error messages call it.
        format: what it is.
        text_field: as in :func:`read_records`.

    Raises:
        ConfigurationError: the content is not of that format; names the line.

    >>> [record.text for record in parse_records(b'{"text": "a"}\n{"text": "b"}\n', source="standard input")]
    ['a', 'b']
    """
    if format not in get_args(RecordFormat):
        raise ConfigurationError(f"format is {format!r}: give one of {', '.join(get_args(RecordFormat))}")
    content = decode(data, source=source)
    parser = _PARSERS[_sniffed(content) if format == "auto" else format]
    records = list(parser(content, source, text_field))
    if not records:
        raise ConfigurationError(f"{source} holds no documents: give at least one")
    return records


def decode(data: bytes, *, source: str) -> str:
    """Return the text of a file's content in UTF-8, with or without a byte order mark.

    Raises:
        ConfigurationError: it is binary, or in another encoding.
    """
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


def _sniffed(content: str) -> str:
    start = content.lstrip()[:1]
    return {"[": "json", "{": "jsonl"}.get(start, "lines")


def _json(content: str, source: str, text_field: str) -> Iterator[Record]:
    if not content.strip():
        return
    items = _loaded(content, source, "line")
    if not isinstance(items, list):
        raise ConfigurationError(f"{source} is not a JSON list but {_kind(items)}: give a list, or JSON lines")
    for number, item in enumerate(items, 1):
        yield Record(item, _text_of(item, text_field, f"{source}, element {number}"), None)


def _jsonl(content: str, source: str, text_field: str) -> Iterator[Record]:
    # Not splitlines(), which also splits at characters that may stand in a JSON string.
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            item = _loaded(line, source, number)
            yield Record(item, _text_of(item, text_field, f"{source}, line {number}"), number)


def _lines(content: str, _source: str, _text_field: str) -> Iterator[Record]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield Record(line.strip(), line.strip(), number)


def _csv(content: str, source: str, text_field: str, *, delimiter: str = ",") -> Iterator[Record]:
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
            yield Record(row, _text_of(row, text_field, f"{source}, line {line}"), line)
    except csv.Error as exc:
        raise ConfigurationError(f"{source}, line {reader.reader.line_num}: not CSV ({exc}): mend it") from None


def _tsv(content: str, source: str, text_field: str) -> Iterator[Record]:
    return _csv(content, source, text_field, delimiter="\t")


_PARSERS = {"json": _json, "jsonl": _jsonl, "lines": _lines, "csv": _csv, "tsv": _tsv}


def _loaded(content: str, source: str, line: int | str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as exc:
        where = exc.lineno if isinstance(line, str) else line
        raise ConfigurationError(
            f"{source}, line {where}, column {exc.colno}: not JSON ({exc.msg}): mend it, or name the format"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{source}: JSON that is nested too deeply: flatten it") from None
    except ValueError:  # an integer of thousands of digits
        raise ConfigurationError(f"{source}: a number in the JSON is too long: write it as a string") from None


def _text_of(item: Any, text_field: str, where: str) -> str:
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise ConfigurationError(f"{where}: {_kind(item)} is no document: give a string or an object")
    if text_field not in item:
        names = ", ".join(repr(name) for name in list(item)[:_SHOWN_FIELDS]) or "none"
        raise ConfigurationError(f"{where}: no field {text_field!r}: name the field of the text, there is {names}")
    text = item[text_field]
    if not isinstance(text, str):
        raise ConfigurationError(f"{where}: field {text_field!r} holds {_kind(text)}: give a string")
    return text


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), "a number")
