"""Lazy imports of optional dependencies, with an error that names the extra to install."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from rerank_core.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional module by its dotted name.

    An import that fails *inside* an installed package is raised unchanged, as installing the extra mends nothing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        package = module.partition(".")[0]
        if exc.name is None or exc.name.partition(".")[0] != package:
            raise
        raise _missing(package, extra, purpose) from exc


def check_installed(*packages: str, extra: str, purpose: str) -> None:
    """Check that packages can be imported, without the time that importing takes."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra, purpose)


def _missing(package: str, extra: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(
        f'{purpose} needs the package {package!r}, which is not installed: pip install "rerank-bridge[{extra}]"',
        name=package,
    )
