"""The three columns as Arrow holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError
from rerank_tools.batch._rows import Outcome, usage_row

if TYPE_CHECKING:
    import pyarrow

__all__ = ["check_columns", "with_columns"]


def with_columns(table: Any, columns: Sequence[str], outcomes: Sequence[Outcome]) -> pyarrow.Table:
    """Return a table with the columns of one outcome a row; a row that failed has nulls in them."""
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    types = (arrow.list_(arrow.int64()), arrow.list_(arrow.float64()), _usage_type(arrow))
    values: tuple[list[Any], ...] = ([], [], [])
    for outcome in outcomes:
        done = outcome.error is None
        values[0].append(list(outcome.indices) if done else None)
        values[1].append(list(outcome.scores) if done else None)
        values[2].append(usage_row(outcome.usage))
    for name, kind, column in zip(columns, types, values, strict=True):
        table = table.append_column(name, arrow.array(column, kind))
    return table


def check_columns(schema: Any, query: str, documents: str) -> None:
    """Check that a table has the two columns, of strings and of lists of strings.

    Raises:
        ConfigurationError: one is missing, or of another type; names the columns that there are.
    """
    arrow = require("pyarrow", extra="ray", purpose="Arrow tables")
    for column, wanted in ((query, "strings"), (documents, "lists of strings")):
        if column not in schema.names:
            raise ConfigurationError(f"no column {column!r}: there is {', '.join(schema.names) or 'none'}")
        kind = schema.field(column).type
        if wanted != "strings" and not _is_list(arrow, kind):
            raise ConfigurationError(f"the column {column!r} is of {kind}: give {wanted}")
        kind = kind if wanted == "strings" else kind.value_type
        if not (_is_string(arrow, kind) or arrow.types.is_null(kind)):
            raise ConfigurationError(f"the column {column!r} is of {schema.field(column).type}: give {wanted}")


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_string(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _usage_type(arrow: Any) -> Any:
    kinds = {"search_units": arrow.float64(), "cost": arrow.float64(), "estimated": arrow.bool_()}
    return arrow.struct([(name, kinds.get(name, arrow.int64())) for name in usage_row(Outcome(0).usage)])
