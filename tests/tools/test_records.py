"""Documents from files: every format, and what is wrong with a file said in one line."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from rerank_core import ConfigurationError
from rerank_tools.records import Record, parse_json_object, parse_records, read_lines, read_records


def parsed(data: str | bytes, **options: Any) -> list[Record]:
    """Return the documents of a content."""
    return parse_records(data.encode() if isinstance(data, str) else data, source="docs", **options)


@pytest.mark.parametrize(
    ("name", "content", "texts", "lines"),
    [
        ("a.json", '["one", {"text": "two", "id": 7}]', ["one", "two"], [None, None]),
        ("a.jsonl", '{"text": "one"}\n\n"two"\r\n', ["one", "two"], [1, 3]),
        ("a.ndjson", '{"text": "a\u2028b"}', ["a\u2028b"], [1]),
        ("a.csv", 'id,text\n1,"a\nb"\n2,c\n', ["a\nb", "c"], [2, 4]),
        ("a.tsv", "text\tid\none, two\t1\n", ["one, two"], [2]),
        ("a.txt", "one\n\n  two \n", ["one", "two"], [1, 3]),
        ("a.unknown", "[1 is not JSON", None, None),
        ("a.other", '{"text": "sniffed"}', ["sniffed"], [1]),
        ("b.other", "plain { lines", ["plain { lines"], [1]),
    ],
)
def test_a_file_is_read_by_its_name_else_by_its_beginning(
    name: str, content: str, texts: list[str] | None, lines: list[int | None] | None, tmp_path: Path
) -> None:
    """Texts and lines are those of the file."""
    path = tmp_path / name
    path.write_bytes(content.encode())
    if texts is None:
        with pytest.raises(ConfigurationError, match="not JSON"):
            read_records(path)
        return
    records = read_records(path)
    assert [record.text for record in records] == texts
    assert [record.line for record in records] == lines


def test_documents_are_kept_as_they_were() -> None:
    """All fields of an object, and a byte order mark is none of its content."""
    (record,) = parsed('\ufeff[{"body": "words", "n": 1.5, "tags": ["a"]}]', text_field="body")
    assert record.document == {"body": "words", "n": 1.5, "tags": ["a"]}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b'{"text": "a"}\n{"text": b}', {}, "docs, line 2, column 10: not JSON"),
        (b'[\n"a",\nb]', {}, "docs, line 3, column 1: not JSON"),
        (b'{"text": "a"}\n{"body": "b", "id": 1}', {}, "docs, line 2: no field 'text': .* there is 'body', 'id'"),
        (b'["a", {}]', {}, "docs, element 2: no field 'text': .* there is none"),
        (b'["a", {"text": null}]', {}, "element 2: field 'text' holds null: give a string"),
        (b'["a", 3]', {}, "element 2: a number is no document"),
        (b"[true]", {}, "a truth value is no document"),
        (b"[[1]]", {}, "a list is no document"),
        (b'{"text": "a"}', {"format": "json"}, "docs is not a JSON list but an object"),
        (b"", {}, "docs holds no documents"),
        (b"\n \n", {}, "docs holds no documents"),
        (b"", {"format": "json"}, "docs holds no documents"),
        (b"[]", {}, "docs holds no documents"),
        (b"text\n", {"format": "csv"}, "docs holds no documents"),
        (b"id,text\n1,a\n2,b,c\n", {"format": "csv"}, "docs, line 3: more cells than the header names"),
        (b"id,text\n1\n", {"format": "csv"}, "docs, line 2: fewer cells"),
        (b'text\n"a" b\n', {"format": "csv"}, "docs, line 2: not CSV"),
        (b"a\xffb", {}, r"docs is not text in UTF-8 \(byte 0xff at offset 1\)"),
        (b"a\0b", {}, r"docs is binary \(a zero byte at offset 1\)"),
        ("a".encode("utf-16"), {}, "docs is in UTF-16: convert it"),
        (b"[" * 100_000, {}, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", {}, "a number in the JSON is too long"),
        ('{"text": "a"}\u00a0'.encode(), {}, "docs, line 1, column 14: not JSON"),
        (b"a", {"format": "xml"}, "format is 'xml': give one of auto, json"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: bytes, options: dict[str, Any], message: str) -> None:
    """Nothing is guessed, and no content is quoted."""
    with pytest.raises(ConfigurationError, match=message):
        parsed(data, **options)


def test_a_huge_line_is_one_document() -> None:
    """Five million characters."""
    text = "word " * 1_000_000
    (record,) = parsed(json.dumps({"text": text}))
    assert record.text == text


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, and a folder."""
    with pytest.raises(ConfigurationError, match="missing.json cannot be read: No such file"):
        read_records(tmp_path / "missing.json")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_records(tmp_path)


def test_lines_come_with_their_numbers(tmp_path: Path) -> None:
    """Without a byte order mark and blank lines; another encoding is an error with its line."""
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y"}\n\n[1]\n'.encode())
    lines = list(read_lines(path))
    assert [place for place, _ in lines] == [f"{path}, line 1", f"{path}, line 3"]
    assert parse_json_object(lines[0][1], "a") == {"a": "x\u2028y"}
    with pytest.raises(ConfigurationError, match=r"^a\.jsonl, line 3: a list: give an object"):
        parse_json_object(lines[1][1], "a.jsonl, line 3")
    with pytest.raises(ConfigurationError, match=r"^a\.jsonl, line 3, column 7: not JSON"):
        parse_json_object(b'{"a": b}', "a.jsonl, line 3")
    with pytest.raises(ConfigurationError, match=r"^a\.jsonl, line 3, column \d: not JSON"):
        parse_json_object(b'{"a":\n', "a.jsonl, line 3")
    with pytest.raises(ConfigurationError, match=r"^a\.jsonl, line 4: not text in UTF-8"):
        parse_json_object(b'{"a": "\xff"}', "a.jsonl, line 4")
    path.write_bytes(b'{}\n"\xff"\n')
    with pytest.raises(
        ConfigurationError, match=r"a\.jsonl, line 2 is not text in UTF-8 \(byte 0xff at offset 1\)"
    ):
        list(read_lines(path))
    with pytest.raises(ConfigurationError, match="absent cannot be read: No such file"):
        list(read_lines(tmp_path / "absent"))


def test_a_file_of_lines_is_read_line_by_line(tmp_path: Path) -> None:
    """A corpus takes no more memory than its texts."""
    path = tmp_path / "corpus.jsonl"
    path.write_text("a line of a large corpus\n" * 200_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_lines(path)) == 200_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
