"""The registry: from a name to a scorer, of this package or of another."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scripts import run_script

import rerank_core
from rerank_core import AuthenticationError, ConfigurationError, MissingKeyError, Reranker, load_scorer
from rerank_core.registry import ENTRY_POINT_GROUP

ACME = '''
from rerank_core import Scored, Scorer

class AcmeScorer(Scorer):
    """Scores every text with one option."""

    def __init__(self, model, *, score=0.5):
        self.name = f"acme:{model}"
        self.answer = score

    async def score(self, query, texts):
        """Return the option."""
        return Scored([self.answer] * len(texts))

def anything(model, **options):
    """Return a scorer, whatever the options."""
    return AcmeScorer(repr((model, sorted(options))))

def nothing(model):
    """Return a scorer without options."""
    return AcmeScorer(model)
'''


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a third-party package with four providers, as a distribution's folder describes it."""
    (tmp_path / "acme_scorers.py").write_text(ACME)
    metadata = tmp_path / "acme_scorers-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-scorers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n"
        "acme = acme_scorers:AcmeScorer\n"
        "acme-any = acme_scorers:anything\n"
        "acme-none = acme_scorers:nothing\n"
        "acme-broken = acme_scorers.no_such_module:Nobody\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("acme_scorers", None)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("embedded", "EmbeddedScorer", "embedded"),
        (" embedded ", "EmbeddedScorer", "embedded"),
        ("embedded:", "EmbeddedScorer", "embedded"),
        ("onnx:some/model", "OnnxScorer", "onnx:some/model"),
        ("onnx:C:/models/one", "OnnxScorer", "onnx:C:/models/one"),
        ("cross-encoder:BAAI/bge-reranker-v2-m3", "CrossEncoderScorer", "cross-encoder:BAAI/bge-reranker-v2-m3"),
    ],
)
def test_a_name_gives_its_scorer(name: str, kind: str, expected: str) -> None:
    """The model is what follows the first colon; nothing is loaded or fetched yet."""
    scorer = load_scorer(name)
    assert (type(scorer).__name__, scorer.name) == (kind, expected)


def test_options_reach_the_scorer() -> None:
    """By their names, checked by the scorer."""
    scorer: Any = load_scorer("onnx:some/model", max_length=128, threads=1)
    assert (scorer.options.max_length, scorer.options.threads) == (128, 1)


def test_an_unknown_provider_is_named_with_those_that_there_are() -> None:
    """So that a typing error shows at once."""
    with pytest.raises(
        ConfigurationError,
        match=r"no scorer is called 'coher': did you mean 'cohere'\? known are azure, bedrock, cohere, ",
    ):
        load_scorer("coher:rerank-v3.5")


def test_a_checkout_on_the_path_needs_no_installation() -> None:
    """Built-in scorers are found without the distribution's metadata, in a process that has none."""
    output = run_script(
        """
        import importlib.metadata
        importlib.metadata.entry_points = lambda **selection: ()
        importlib.metadata.distribution = None
        from rerank_core import Reranker, load_scorer
        from rerank_core.registry import known_providers
        print(Reranker(load_scorer("embedded")).rerank("leak", ["soup", "a leak"])[0].document)
        print("cohere" in known_providers())
        """,
        env={"PYTHONPATH": str(Path(rerank_core.__file__).parents[1])},
    )
    assert output.split("\n") == ["a leak", "True", ""]


def test_what_is_installed_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a notebook's cell: entry points are read once, and again for a provider that is missing."""
    scans: list[None] = []
    real = importlib.metadata.entry_points

    def counted(**selection: str) -> Any:
        scans.append(None)
        return real(**selection)

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    monkeypatch.syspath_prepend(tmp_path)
    load_scorer("embedded")
    load_scorer("onnx:some/model")
    assert len(scans) == 0
    with pytest.raises(ConfigurationError, match="known are azure"):
        load_scorer("later")
    metadata = tmp_path / "late_scorers-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: late-scorers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nlater = rerank_core.local.embedded.scorer:EmbeddedScorer\n"
    )
    assert load_scorer("later").name == "embedded"
    seen = len(scans)
    assert load_scorer("later").name == "embedded"
    assert len(scans) == seen


def test_an_unknown_option_is_named_with_those_that_there_are() -> None:
    """Nothing is silently ignored."""
    with pytest.raises(ConfigurationError) as caught:
        load_scorer("embedded", max_lenght=128, device="cuda")
    assert "embedded: takes no option 'device', 'max_lenght'" in str(caught.value)
    assert "it takes cache_bytes, max_length, pooling, precision, threads, tokens_per_batch, vectors" in str(
        caught.value
    )


@pytest.mark.parametrize("option", ["model", "name", "scale"])
def test_what_the_name_decides_is_no_option(option: str) -> None:
    """The model comes from the name, the scorer's name and scale from the model."""
    with pytest.raises((ConfigurationError, TypeError), match=option):
        load_scorer("embedded", **{option: "x"})


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    """The error says what a name looks like."""
    with pytest.raises(ConfigurationError, match=r"give 'provider' or 'provider:model'"):
        load_scorer(name)


@pytest.mark.usefixtures("acme")
def test_an_installed_package_brings_its_own_provider() -> None:
    """One entry point makes it known: by its name, with its options."""
    reranker = Reranker(load_scorer("acme:large", score=0.25))
    assert repr(reranker).startswith("Reranker('acme:large'")
    assert reranker.rerank("which?", ["this"]).scores == (0.25,)


@pytest.mark.usefixtures("acme")
def test_a_third_partys_options_are_checked_too() -> None:
    """By the signature of its factory, which may also take any, or none."""
    with pytest.raises(ConfigurationError, match="acme:large: takes no option 'colour': it takes score"):
        load_scorer("acme:large", colour="red")
    with pytest.raises(ConfigurationError, match="acme-none:large: takes no option 'colour': it takes none"):
        load_scorer("acme-none:large", colour="red")
    assert load_scorer("acme-any:large", colour="red").name == "acme:('large', ['colour'])"


@pytest.mark.usefixtures("acme")
def test_a_providers_own_import_error_is_raised_as_it_is() -> None:
    """Another provider's fault says which module is missing, and known ones are not hidden by it."""
    with pytest.raises(ModuleNotFoundError, match="acme_scorers"):
        load_scorer("acme-broken:large")
    assert load_scorer("embedded").name == "embedded"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rerank-v3.5", "did you mean 'cohere:rerank-v3.5'?"),
        ("rerank-2.5", "did you mean 'voyage:rerank-2.5'?"),
        (
            "BAAI/bge-reranker-base",
            "did you mean 'cross-encoder:BAAI/bge-reranker-base' or 'onnx:BAAI/bge-reranker-base'?",
        ),
        ("cohre:rerank-v3.5", "did you mean 'cohere'?"),
    ],
)
def test_a_name_without_its_provider_is_understood(name: str, meant: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        load_scorer(name)
    assert meant in str(caught.value)


def test_top_k_is_answered_with_top_n() -> None:
    """The word of other libraries."""
    with pytest.raises(ConfigurationError, match="top_n of the Selection"):
        load_scorer("embedded", top_k=3)


def test_a_missing_key_is_also_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is with the SDKs and with pydantic."""
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    monkeypatch.delenv("JINAAI_API_KEY", raising=False)
    monkeypatch.delenv("JINA_AI_API_KEY", raising=False)
    with pytest.raises(MissingKeyError, match="set the environment variable JINA_API_KEY") as caught:
        load_scorer("jina:jina-reranker-v3")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AuthenticationError)
