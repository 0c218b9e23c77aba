"""Parquet inputs: what cannot be read or written is found before the first row is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.batches import results, some_rows, write_rows

from rerank_core import ConfigurationError
from rerank_core.testing import FakeScorer
from rerank_tools.batch import BatchOptions, plan_file, rerank_file
from rerank_tools.batch.ray.dataset import DatasetWorker
from rerank_tools.batch.rows import Columns, check_columns

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

QUERIES = ["memory leak", "paris", "tea"]
DOCUMENTS = [["a memory leak", "tea"], ["paris"], []]


def write_table(path: Path, columns: dict[str, Any]) -> Path:
    """Write a Parquet file."""
    parquet.write_table(arrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("strings", "lists"),
    [
        (arrow.string_view(), arrow.list_(arrow.string())),
        (arrow.string(), arrow.list_(arrow.string_view())),
        (arrow.large_string(), arrow.large_list(arrow.large_string())),
        (arrow.string(), arrow.list_view(arrow.string())),
        (arrow.dictionary(arrow.int32(), arrow.string()), arrow.list_(arrow.string())),
    ],
)
def test_every_kind_of_string_is_read_and_written(tmp_path: Path, strings: Any, lists: Any) -> None:
    """The output has the input's types, and columns of other views are kept as well."""
    columns = {
        "query": arrow.array(QUERIES, strings),
        "documents": arrow.array(DOCUMENTS, lists),
        "bytes": arrow.array([b"a", None, b"c"], arrow.binary_view()),
    }
    source = write_table(tmp_path / "in.parquet", columns)
    # The second row fails, so that the rest is not one slice of the input.
    scorer = FakeScorer(lambda _query, text: float("nan") if text == "paris" else 0.5)
    scorer.cache_key = lambda: "any"  # type: ignore[method-assign]
    report = rerank_file(source, tmp_path / "out", BatchOptions(scorer))
    assert (report.finished, report.failed) == (2, 1)
    assert [(row["query"], row["bytes"]) for row in results(tmp_path / "out")] == [
        ("memory leak", b"a"),
        ("tea", b"c"),
    ]
    schema = parquet.read_schema(tmp_path / "out" / "rows" / "part-00000.parquet")
    before = parquet.read_schema(source)
    assert [schema.field(name).type for name in before.names] == before.types


def test_a_list_of_categories_is_a_list_of_strings() -> None:
    """A dictionary's values are read; what is no list of strings has a value type as well, and is refused."""
    columns = Columns("query", "documents", ("a", "b", "c"))
    texts = arrow.string()
    categories = arrow.list_(arrow.dictionary(arrow.int32(), texts))
    check_columns(arrow.schema([("query", texts), ("documents", categories)]), columns)
    runs = arrow.run_end_encoded(arrow.int32(), texts)
    with pytest.raises(ConfigurationError, match="the column 'documents' is of run_end_encoded"):
        check_columns(arrow.schema([("query", texts), ("documents", runs)]), columns)


def test_two_columns_of_a_name_are_refused_where_they_are_read(tmp_path: Path) -> None:
    """Before anything is sent or written; others are kept. Ray's tables are checked in the same way."""
    texts, lists = arrow.array(QUERIES), arrow.array(DOCUMENTS)
    twice = arrow.Table.from_arrays([texts, texts, lists], names=["query", "query", "documents"])
    parquet.write_table(twice, tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match=r"in\.parquet: there are 2 columns 'query': rename all but one"):
        rerank_file(tmp_path / "in.parquet", tmp_path / "out", BatchOptions(FakeScorer()))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match="there are 2 columns 'query'"):
        DatasetWorker(BatchOptions(FakeScorer()), "column")(twice)
    others = arrow.Table.from_arrays([texts, lists, texts, texts], names=["query", "documents", "x", "x"])
    parquet.write_table(others, tmp_path / "others.parquet")
    assert rerank_file(tmp_path / "others.parquet", tmp_path / "others", BatchOptions(FakeScorer())).ok


@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_damaged_pages_are_found_before_the_first_row(tmp_path: Path, compression: str) -> None:
    """In whichever row group; the plan says so, too."""
    source = tmp_path / "in.parquet"
    table = arrow.Table.from_pylist(some_rows(40))
    parquet.write_table(table, source, row_group_size=10, compression=compression, use_dictionary=False)
    last = parquet.ParquetFile(source).metadata.row_group(3)
    column = next(last.column(each) for each in range(3) if last.column(each).path_in_schema.startswith("doc"))
    data = bytearray(source.read_bytes())
    begin = column.data_page_offset + column.total_compressed_size // 2
    data[begin : begin + 60] = b"\xff" * 60
    source.write_bytes(data)
    scorer = FakeScorer()
    message = r"in\.parquet, (after )?row.* damaged, or not Parquet that pyarrow reads"
    with pytest.raises(ConfigurationError, match=message):
        rerank_file(source, tmp_path / "out", BatchOptions(scorer, rows_per_part=10))
    assert scorer.calls == 0
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match=message):
        plan_file(source, tmp_path / "out", BatchOptions(scorer))


def test_a_damaged_footer_is_an_error_of_the_input(tmp_path: Path) -> None:
    """In one line, with the file's name."""
    source = write_rows(tmp_path / "in.parquet", some_rows(9))
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2] + b"\x00" * 20 + data[len(data) // 2 + 20 :][:-100] + data[-8:])
    with pytest.raises(ConfigurationError, match=r"in\.parquet") as caught:
        rerank_file(source, tmp_path / "out", BatchOptions(FakeScorer()))
    assert "\n" not in str(caught.value)
