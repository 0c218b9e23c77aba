"""Numbers among the options, checked."""

from __future__ import annotations

import operator
from numbers import Real

from rerank_core.errors import ConfigurationError

__all__ = ["checked_count", "checked_seconds"]


def checked_count(name: str, value: object, *, least: int) -> int:
    """Return a whole number of at least ``least``.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise ConfigurationError(f"{name} is {value!r}: give a whole number of at least {least}")
    return count


def checked_seconds(name: str, value: object) -> float:
    """Return a number of seconds, above 0.

    Raises:
        ConfigurationError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0.0:
        raise ConfigurationError(f"{name} is {value!r}: give seconds above 0")
    return float(value)
