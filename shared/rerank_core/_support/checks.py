"""Checks of options, which raise a ConfigurationError that names the value and says what to give.

The first argument is the option's name, the second its value. All but :func:`check_choice` return the value as a
plain Python one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real

from rerank_core.errors import ConfigurationError


def check_count(name: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """Check a whole number of at least ``least``, and at most ``most`` unless that is None."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least or (most is not None and count > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{name} is {value!r}: give a whole number {limits}")
    return count


def check_seconds(name: str, value: object) -> float:
    """Check a number of seconds, above 0; infinity passes."""
    number = to_float(value)
    if not number > 0.0:
        raise ConfigurationError(f"{name} is {value!r}: give seconds above 0")
    return number


def check_amount(name: str, value: object, *, unit: str = "a number") -> float:
    """Check a number of at least 0, such as a price; infinity passes."""
    number = to_float(value)
    if not number >= 0.0:
        raise ConfigurationError(f"{name} is {value!r}: give {unit}, at least 0")
    return number


def check_finite(name: str, value: object) -> float:
    """Check a number that is neither NaN nor infinite."""
    number = to_float(value)
    if not math.isfinite(number):
        raise ConfigurationError(f"{name} is {value!r}: give a finite number")
    return number


def check_fraction(name: str, value: object, *, above_0: bool = False, below_1: bool = False) -> float:
    """Check a number from 0.0 to 1.0; ``above_0`` refuses 0.0, and ``below_1`` refuses 1.0."""
    number = to_float(value)
    if not 0.0 <= number <= 1.0 or (above_0 and number == 0.0) or (below_1 and number == 1.0):
        range_ = f"{'above' if above_0 else 'from'} 0.0 {'and below' if below_1 else 'to'} 1.0"
        raise ConfigurationError(f"{name} is {value!r}: give a number {range_}")
    return number


def check_text(name: str, value: object) -> str:
    """Check a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is {value!r}: give a text that is not blank")
    return value


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Check that a value is one of those that there are, such as ``get_args`` of a Literal."""
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}: give one of {', '.join(map(str, choices))}")


def to_float(value: object) -> float:
    """Return a number as a float, NaN for what is none."""
    if type(value) is float:
        return value
    try:
        return math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf
