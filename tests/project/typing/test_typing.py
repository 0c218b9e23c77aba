"""What type checkers see of the packages: real usage is right, and mistakes are not, without any plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
FILES = sorted(str(path) for path in FOLDER.glob("*_usage.py"))


NOT_READ = (
    "IPython,aiohttp,bm25s,cohere,huggingface_hub,langsmith,numpy,onnxruntime,pandas,ray,rich,sqlalchemy,tokenizers,"
    "torch,tqdm,transformers,voyageai"
)
"""What only the insides of the frameworks and of this package use: five sixths of what mypy would read."""


@pytest.mark.timeout(600)  # without mypy's cache, both frameworks are read first
def test_usage_passes_mypy_strict(tmp_path: Path) -> None:
    """The core and both adapters as applications use them; a mistake that is not seen is an unused ignore."""
    pytest.importorskip("mypy", reason="mypy is of the dependency group lint")
    config = tmp_path / "mypy.ini"
    # As of an installed package, only what the applications themselves do wrong is told.
    own = f"strict = True\nfollow_imports = silent\ncache_dir = {ROOT / '.mypy_cache' / 'plain'}\n"
    own += f"mypy_path = {ROOT / 'shared'}:{ROOT}\n"
    skipped = ",".join(f"{module}.*" for module in NOT_READ.split(","))
    config.write_text(f"[mypy]\n{own}[mypy-{skipped}]\nfollow_imports = skip\nignore_missing_imports = True\n")
    assert len(FILES) == 3
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), *FILES]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.timeout(600)
def test_usage_passes_pyright(tmp_path: Path) -> None:
    """As editors see it; a mistake that is not seen is an unnecessary ignore."""
    checker = Path(sys.executable).parent / "basedpyright"
    if not checker.exists():
        pytest.skip("basedpyright is of the dependency group lint")
    project = tmp_path / "pyrightconfig.json"
    settings = {
        "include": FILES,
        "extraPaths": [str(ROOT / "shared"), str(ROOT)],
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": True,
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    project.write_text(json.dumps(settings))
    command = [str(checker), "--project", str(project), "--pythonpath", sys.executable, "--outputjson"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    found = json.loads(run.stdout)["generalDiagnostics"]
    assert [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}" for each in found
    ] == []


@pytest.mark.parametrize("package", ["rerank_core", "rerank_tools", "langchain_rerankers", "llamaindex_rerankers"])
def test_packages_say_that_they_are_typed(package: str) -> None:
    """By the marker file of PEP 561, without which checkers ignore the annotations."""
    from importlib.resources import files

    assert files(package).joinpath("py.typed").is_file()
