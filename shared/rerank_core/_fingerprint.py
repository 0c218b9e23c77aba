"""What a scorer's options are, as a digest that is the same in every process."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from rerank_core.errors import ConfigurationError

if TYPE_CHECKING:
    from rerank_core.scorers.base import Scorer

__all__ = ["fingerprint"]

_SECRET = "api_key"  # noqa: S105 - the option's name
_NAMELESS = ("<lambda>", "<locals>")


def fingerprint(scorer: Scorer, kept: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return a digest of a scorer's class, name and options.

    Args:
        scorer: its options are the parameters of its constructor, read from the attributes of the same names.
        kept: values of parameters that are kept under another name.

    Raises:
        ConfigurationError: an option cannot be read, or means nothing in another process.
    """
    options: dict[str, Any] = {}
    for parameter in inspect.signature(type(scorer)).parameters.values():
        name = parameter.name
        if name == _SECRET or name in scorer.inert:
            continue
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or not (
            name in kept or hasattr(scorer, name)
        ):
            raise _unreadable(scorer, name, "cannot be read from an attribute of the same name")
        options[name] = kept[name] if name in kept else getattr(scorer, name)
    kind = f"{type(scorer).__module__}.{type(scorer).__qualname__}"
    written = [_written(scorer, name, value) for name, value in sorted(options.items())]
    return blake2b(repr([kind, scorer.name, *written]).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _written(scorer: Scorer, name: str, value: object) -> object:
    """Return a value as nested tuples of strings, equal for equal values and for no others."""
    from rerank_core.scorers.base import Scorer

    def inner(part: object) -> object:
        return _written(scorer, name, part)

    kind = type(value).__qualname__
    if value is None or isinstance(value, (bool, int, float, str, bytes, PurePath, Enum)):
        return name, kind, str(value) if isinstance(value, (PurePath, Enum)) else repr(value)
    if isinstance(value, Scorer):
        return name, kind, value.cache_key()
    if isinstance(value, Mapping):
        return name, kind, sorted(repr((inner(key), inner(part))) for key, part in value.items())
    if isinstance(value, Set):
        return name, kind, sorted(repr(inner(part)) for part in value)
    if isinstance(value, Sequence):
        return name, kind, [inner(part) for part in value]
    if isinstance(value, BaseException):
        return name, kind, [inner(part) for part in value.args]
    if is_dataclass(value) and not isinstance(value, type):
        return name, kind, [(field.name, inner(getattr(value, field.name))) for field in fields(value)]
    qualified = getattr(value, "__qualname__", "<locals>")
    bound = not isinstance(getattr(value, "__self__", None), (ModuleType, type(None)))
    if bound or any(part in qualified for part in _NAMELESS):
        raise _unreadable(scorer, name, f"is a {kind}, which means nothing in another process")
    return name, kind, f"{getattr(value, '__module__', '')}.{qualified}"


def _unreadable(scorer: Scorer, name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{scorer.name} cannot be cached: its option {name!r} {why}; "
        f"let {type(scorer).__name__} define cache_key()"
    )
