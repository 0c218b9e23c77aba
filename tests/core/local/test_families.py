"""Every family of models is scored as it was trained, or refused with the reason: on torch and on ONNX."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from support.families import FAMILIES, Family
from support.models import QUERY, quiet

from rerank_core import ConfigurationError, Reranker, load_scorer

TOLERANCE = {"cross-encoder": 1e-5, "onnx": 1e-4}
IDS = [family.name for family in FAMILIES]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """Return a function that builds a family's checkpoint, once."""
    built: dict[str, Path] = {}

    def build(family: Family) -> Path:
        if family.name not in built:
            built[family.name] = tmp_path_factory.mktemp("family")
            with quiet():
                family.build(built[family.name])
        return built[family.name]

    return build


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_a_family_is_scored_as_trained_or_refused(
    family: Family, provider: str, folder_of: Callable[[Family], Path]
) -> None:
    """Equal to sentence-transformers' scores, or an error that says what the checkpoint is."""
    folder = folder_of(family)
    scorer = load_scorer(f"{provider}:{folder}")
    if provider in family.refused:
        with quiet(), pytest.raises(ConfigurationError) as caught:
            Reranker(scorer).warm_up()
        assert family.refused[provider] in str(caught.value)
        return
    assert family.reference is not None
    with quiet():
        found = Reranker(scorer).rerank(QUERY, family.texts).scores
    expected = family.reference(folder, family.texts)
    assert max(expected) - min(expected) > 0.01
    assert found == pytest.approx(expected, abs=TOLERANCE[provider])


def test_openvino_scores_a_decoder_by_its_prompt(folder_of: Callable[[Family], Path]) -> None:
    """The exported graph runs on the other runtime, too."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    (family,) = (family for family in FAMILIES if family.name == "Qwen3-Reranker as classifier")
    assert family.reference is not None
    scorer = load_scorer(f"onnx:{folder_of(family)}", runtime="openvino")
    with quiet():
        found = Reranker(scorer).rerank(QUERY, family.texts).scores
    assert found == pytest.approx(family.reference(folder_of(family), family.texts), abs=1e-4)
