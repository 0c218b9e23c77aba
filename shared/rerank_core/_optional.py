"""Lazy imports of optional dependencies, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from typing import Any

from rerank_core.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional module by its dotted name.

    Raises:
        MissingExtraError: the module's package is not installed; names the extra. An import that fails
            *inside* an installed package is raised unchanged, because installing the extra would not mend it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        package = module.partition(".")[0]
        if exc.name is None or exc.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f'pip install "rerank-bridge[{extra}]"',
            name=exc.name,
        ) from exc
