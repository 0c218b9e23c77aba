"""Arrow tables: the columns that are read, and those that are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_core.usage import Usage
from rerank_tools.batch.rows import Outcome, usage_to_dict

__all__ = ["add_columns", "check_columns", "read_table"]


def check_columns(schema: Any, query_column: str, documents_column: str) -> None:
    """Check that a table has one column of strings and one of lists of strings.

    Raises:
        ConfigurationError: one is missing, occurs twice, or has another type; names the columns that there are.
    """
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    for column, wanted in ((query_column, "strings"), (documents_column, "lists of strings")):
        found = schema.names.count(column)
        if found == 0:
            raise ConfigurationError(f"no column {column!r}: there is {', '.join(schema.names) or 'none'}")
        if found > 1:
            raise ConfigurationError(f"there are {found} columns {column!r}: rename all but one")
        kind = schema.field(column).type
        text = kind.value_type if wanted != "strings" and _is_list(arrow.types, kind) else kind
        if (wanted != "strings") == (text is kind) or not _is_string(arrow.types, text):
            raise ConfigurationError(f"the column {column!r} is of {kind}: give {wanted}")


def read_table(table: Any, query_column: str, documents_column: str) -> tuple[list[Any], list[Any]]:
    """Return the values of the two columns."""
    return table.column(query_column).to_pylist(), table.column(documents_column).to_pylist()


def add_columns(table: Any, names: Sequence[str], outcomes: Sequence[Outcome]) -> Any:
    """Return an Arrow table with the columns of one outcome per row; nulls for a row that failed."""
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    kinds = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64()}
    usage_kind = arrow.struct([(name, kinds[type(value)]) for name, value in usage_to_dict(Usage()).items()])
    columns = (
        (arrow.list_(arrow.int64()), [None if row.error is not None else list(row.indices) for row in outcomes]),
        (arrow.list_(arrow.float64()), [None if row.error is not None else list(row.scores) for row in outcomes]),
        (usage_kind, [usage_to_dict(row.usage) for row in outcomes]),
    )
    for name, (kind, values) in zip(names, columns, strict=True):
        table = table.append_column(name, arrow.array(values, kind))
    return table


def _is_list(types: Any, kind: Any) -> bool:
    checks = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(types, check)(kind) for check in checks if hasattr(types, check))


def _is_string(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = ("is_string", "is_large_string", "is_string_view", "is_null")
    return any(getattr(types, check)(kind) for check in checks if hasattr(types, check))
