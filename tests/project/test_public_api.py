"""The public names of every module, and what importing the package loads.

The rule: a module with ``__all__`` is public and documented. It lists every name that it defines without a leading
underscore (type variables apart), sorted. A module without one is for this project's own modules.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.scripts import run_script

import langchain_rerankers
import llamaindex_rerankers
import rerank_core
import rerank_tools

PACKAGES = (langchain_rerankers, llamaindex_rerankers, rerank_core, rerank_tools)
MODULES = [
    name
    for package in PACKAGES
    for name in (
        package.__name__,
        *(found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
    )
]

PUBLIC = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]
REPOSITORY = Path(__file__).parents[2]

NOT_LOADED = {
    "boto3",
    "cohere",
    "httpx",
    "langchain_core",
    "llama_index",
    "numpy",
    "oci",
    "onnxruntime",
    "pydantic",
    "sentence_transformers",
    "starlette",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
    "voyageai",
}


def public_names(module: ModuleType) -> set[str]:
    """Return the names without an underscore that a module defines itself, type variables apart."""
    assert module.__file__ is not None
    return set(_defined(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))))


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypeVar"


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_sorted_and_every_name_is_there(name: str) -> None:
    """A star import works, and a diff of ``__all__`` shows what changed."""
    module = importlib.import_module(name)
    listed = module.__all__
    # Constants, classes, functions, as isort sorts them: INT8 before INT32.
    assert listed == sorted(
        set(listed), key=lambda name: (not name.isupper(), re.sub(r"\d+", lambda number: number[0].zfill(9), name))
    )
    assert [entry for entry in listed if not hasattr(module, entry)] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_complete(name: str) -> None:
    """Every name without an underscore is listed in a public module: what is not meant for others has one."""
    module = importlib.import_module(name)
    assert public_names(module) - set(module.__all__) == set()


def test_what_the_pages_import_is_public() -> None:
    """README, documentation and notebooks teach names of public modules only."""
    pages = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("notebooks/*")]
    names = "|".join(package.__name__ for package in PACKAGES)
    taught = {
        found[1]
        for page in pages
        if page.is_file()
        for found in re.finditer(rf"\bfrom ((?:{names})[\w.]*) import", page.read_text(encoding="utf-8"))
    }
    assert taught >= {"rerank_core", "rerank_core.policies", "langchain_rerankers"}
    assert taught - set(PUBLIC) == set()


def test_the_package_lists_what_it_imports() -> None:
    """What ``rerank_core/__init__.py`` imports is public."""
    tree = ast.parse(Path(rerank_core.__file__).read_text(encoding="utf-8"))
    imported = [
        name.asname or name.name
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    ]
    assert sorted(imported) == rerank_core.__all__


def test_importing_the_package_loads_no_sdk_no_torch_and_no_framework() -> None:
    """In a fresh process; neither does making a reranker around a fake scorer."""
    loaded = run_script(
        """
        import json, sys
        import rerank_core
        from rerank_core.testing import FakeScorer
        rerank_core.Reranker(FakeScorer()).rerank("which?", ["this", "that"])
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
        """
    )
    assert NOT_LOADED & set(json.loads(loaded)) == set()


def test_making_a_local_scorer_loads_no_model_library() -> None:
    """Libraries wait for the first call, weights too."""
    loaded = run_script(
        """
        import json, sys
        from rerank_core import Reranker
        for name in ("embedded", "onnx:some/model", "cross-encoder:some/model"):
            Reranker(name)
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
        """
    )
    assert NOT_LOADED & set(json.loads(loaded)) == set()


def test_the_package_is_typed() -> None:
    """A type checker reads the annotations of an installed copy."""
    assert (Path(rerank_core.__file__).parent / "py.typed").is_file()
