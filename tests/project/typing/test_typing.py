"""What type checkers see of the three packages: real usage passes mypy --strict, and mistakes do not."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]


@pytest.mark.timeout(600)  # without mypy's cache, both frameworks are read first
def test_usage_passes_mypy_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core and both adapters as applications use them; a mistake that is not seen is an unused ignore."""
    api = pytest.importorskip("mypy.api", reason="mypy is of the dependency group lint")
    monkeypatch.chdir(ROOT)
    files = sorted(str(path) for path in FOLDER.glob("*_usage.py"))
    assert len(files) == 3
    output, errors, status = api.run(["--strict", "--config-file", "pyproject.toml", *files])
    assert status == 0, output + errors


@pytest.mark.parametrize("package", ["rerank_core", "langchain_rerankers", "llamaindex_rerankers"])
def test_packages_say_that_they_are_typed(package: str) -> None:
    """By the marker file of PEP 561, without which checkers ignore the annotations."""
    from importlib.resources import files

    assert files(package).joinpath("py.typed").is_file()
