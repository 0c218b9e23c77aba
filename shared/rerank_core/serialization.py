"""Rerankers as plain data that JSON can hold, and back: configuration files, dumps of frameworks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import PurePath
from typing import Any

from rerank_core import errors
from rerank_core.errors import ConfigurationError
from rerank_core.policies import Breaker, Cached, Calibrated, Calibration, Cascade, Fallback, Hedged, Windowed
from rerank_core.policies.caches import DiskCache, MemoryCache
from rerank_core.policies.calibrated import CalibrationQuality
from rerank_core.registry import find_factory, known_providers, load_scorer
from rerank_core.remote.service import RemoteOptions
from rerank_core.reranker import Reranker
from rerank_core.scorer import ConfiguredScorer
from rerank_core.selection import Selection
from rerank_core.vectors import VectorFile

__all__ = ["dump_reranker", "restore_reranker"]

_KINDS: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Breaker, Cached, Calibrated, Calibration, CalibrationQuality, Cascade, DiskCache),
        *(Fallback, Hedged, MemoryCache, Reranker, Selection, VectorFile, Windowed),
    )
}
"""Classes that keep each argument of their constructor in an attribute of the same name."""


def dump_reranker(reranker: Reranker) -> dict[str, Any]:
    """Return a reranker as dictionaries, lists, strings and numbers; keys are left out.

    It can hold scorers that :func:`rerank_core.load_scorer` makes, in any policies of :mod:`rerank_core.policies`.

    Raises:
        ConfigurationError: it holds something else, which is named.

    >>> from rerank_core.policies import Fallback
    >>> data = dump_reranker(Reranker(Fallback(["embedded", "tei:http://localhost:8080"], timeout=2.0)))
    >>> restore_reranker(data).scorer.name
    'fallback(embedded, tei:http://localhost:8080)'
    """
    data: dict[str, Any] = _dump(reranker)
    return data


def restore_reranker(data: Mapping[str, Any]) -> Reranker:
    """Return the reranker that was dumped; its keys come from the environment.

    Raises:
        ConfigurationError: the data is not that of a reranker, or names something unknown.
        MissingExtraError: a scorer needs a package that is not installed.
    """
    try:
        reranker = _restore(data)
    except (AttributeError, KeyError, TypeError) as exc:
        raise ConfigurationError(f"this is not the data of a reranker: {exc}") from exc
    if not isinstance(reranker, Reranker):
        raise ConfigurationError("this is not the data of a reranker: give what dump_reranker returned")
    return reranker


def _dump(value: Any) -> Any:
    kind: type = type(value)
    if isinstance(value, ConfiguredScorer) and value.provider in known_providers() and _is_made_by_name(value):
        if isinstance(value.options, RemoteOptions):
            value.options.check_headers()
        options = {
            field.name: _dump(option)
            for field in fields(value.options)
            if field.name != "api_key" and (option := getattr(value.options, field.name)) != _default(field)
        }
        return {"$scorer": value.name, **options}
    if _KINDS.get(kind.__name__) is kind:
        names = inspect.signature(kind).parameters
        return {"$kind": kind.__name__, **{name: _dump(getattr(value, name)) for name in names}}
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, type) and value.__module__ == errors.__name__:
        return {"$error": value.__name__}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_dump(part) for part in value]
    if isinstance(value, Mapping) and not any(str(key).startswith("$") for key in value):
        return {str(key): _dump(part) for key, part in value.items()}
    raise ConfigurationError(f"a {kind.__name__} cannot be written as data")


def _is_made_by_name(scorer: ConfiguredScorer) -> bool:
    """Tell whether the scorer's name stands for its class, and not for one that it is a subclass of."""
    factory = find_factory(scorer.provider)
    kind = getattr(factory, "func", factory)
    return kind is type(scorer) or not isinstance(kind, type)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _restore(data: Any) -> Any:
    if isinstance(data, list):
        return [_restore(part) for part in data]
    if not isinstance(data, Mapping):
        return data
    values = {name: _restore(part) for name, part in data.items()}
    if "$scorer" in values:
        return load_scorer(values.pop("$scorer"), **values)
    if "$kind" in values:
        kind = _KINDS[values.pop("$kind")]
        if kind is Calibration:  # JSON has no tuples
            values["knots"] = tuple(map(tuple, values["knots"]))
        return kind(**values)
    return getattr(errors, values["$error"]) if "$error" in values else values
