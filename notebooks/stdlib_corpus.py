"""Real text that is on every machine: the documentation strings of Python's standard library."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "ensurepip", "__pycache__"}
_LEAST_WORDS = 8
_MOST_CHARACTERS = 900


@dataclass(frozen=True)
class Passage:
    """Some paragraphs of one docstring.

    Attributes:
        title: dotted name of the module, class or function.
        text: the paragraphs.
    """

    title: str
    text: str


def passages(modules: Collection[str] | None = None) -> list[Passage]:
    """Return the docstrings of the running interpreter's library, in passages of up to about 900 characters.

    Args:
        modules: names of the top-level modules to read; all by default.
    """
    found = {}
    for title, docstring in [*_of_sources(modules), *_of_builtins(modules)]:
        for text in _pieces(inspect.cleandoc(docstring)):
            if len(text.split()) >= _LEAST_WORDS:
                found.setdefault(text, Passage(title, text))
    return list(found.values())


def _of_sources(modules: Collection[str] | None) -> Iterator[tuple[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if _LEFT_OUT.isdisjoint(parts) and (modules is None or parts[0] in modules):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
            yield from _of_tree(tree, ".".join(part for part in parts if part != "__init__"))


def _of_tree(node: ast.AST, title: str) -> Iterator[tuple[str, str]]:
    docstring = ast.get_docstring(node) if isinstance(node, _DOCUMENTED) else None
    if docstring:
        yield title, docstring
    for child in getattr(node, "body", ()):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _of_tree(child, f"{title}.{child.name}")


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _of_builtins(modules: Collection[str] | None) -> Iterator[tuple[str, str]]:
    """Modules written in C have their docstrings in the interpreter."""
    for name in sorted(set(sys.builtin_module_names) | {"math", "select", "zlib"}):
        if modules is not None and name not in modules:
            continue
        module = importlib.import_module(name)
        documented = {name: module} | {f"{name}.{key}": value for key, value in sorted(vars(module).items())}
        for title, value in documented.items():
            docstring = value.__doc__
            if isinstance(docstring, str) and (inspect.isroutine(value) or value is module):
                yield title, docstring


def _pieces(docstring: str) -> Iterator[str]:
    piece = ""
    for paragraph in docstring.split("\n\n"):
        if piece and len(piece) + len(paragraph) > _MOST_CHARACTERS:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}".strip()
    yield piece
