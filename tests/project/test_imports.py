"""No cycle among the modules; what may import what is a contract in pyproject.toml, which ``make lint`` checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import langchain_rerankers
import llamaindex_rerankers
import rerank_core
import rerank_tools

PACKAGES = (langchain_rerankers, llamaindex_rerankers, rerank_core, rerank_tools)


def modules() -> dict[str, ast.Module]:
    """Return the syntax trees of all modules by name."""
    found: dict[str, ast.Module] = {}
    for package in PACKAGES:
        folder = Path(str(package.__file__)).parent
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports, in functions and for type checkers too, by dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import is relative"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_modules_import_each_other() -> None:
    """Neither directly nor by way of others, so that each can be read and tested after those below it."""
    trees = modules()
    graph = {
        # A name that is no module is a function or a class of the module before the last dot.
        name: {each if each in trees else each.rpartition(".")[0] for each in imported_names(tree)} & set(trees)
        for name, tree in trees.items()
    }
    assert len(graph) > 100
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" → ".join(exc.args[1]))
