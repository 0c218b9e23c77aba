"""Checkpoints without an ONNX file through ``onnx:``: their graph is written, or exported and quantised once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.models import FAMILIES, MAX_LENGTH, QUERY, TEXTS, Shape, build_checkpoint, quiet

from rerank_core import ConfigurationError, Reranker, load_scorer
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.onnx.model_files import export

RUNTIMES = ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
EXPORTED: tuple[Shape, ...] = ("deberta-1", "deberta-2", "modernbert-1")
WRITTEN: tuple[Shape, ...] = tuple(shape for shape in FAMILIES if shape not in EXPORTED)
Build = Callable[[Shape], Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what these tests make out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RERANK_BRIDGE_CACHE", str(folder))
        yield folder / "models"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Build:
    """Return a function that builds a checkpoint without an ONNX file, once."""
    built: dict[Shape, Path] = {}

    def build(shape: Shape) -> Path:
        if shape not in built:
            built[shape] = build_checkpoint(tmp_path_factory.mktemp(shape), shape)
        return built[shape]

    return build


@pytest.fixture(scope="module")
def expected(plain: Build) -> Callable[[Shape, int], list[float]]:
    """Return a function that gives sentence-transformers' probabilities for a length, once."""
    import torch
    from sentence_transformers import CrossEncoder

    known: dict[tuple[Shape, int], list[float]] = {}

    def scores(shape: Shape, length: int) -> list[float]:
        if (shape, length) not in known:
            with quiet():
                model = CrossEncoder(str(plain(shape)), device="cpu", max_length=length)
            logits = model.predict(
                [(QUERY, text) for text in TEXTS],
                activation_fn=torch.nn.Identity(),
                convert_to_tensor=True,
                show_progress_bar=False,
            ).double()
            both = torch.sigmoid(logits) if logits.ndim == 1 else torch.softmax(logits, dim=1)[:, 1]
            known[shape, length] = both.tolist()
        return known[shape, length]

    return scores


def scores(folder: Path, texts: Any = TEXTS, **options: Any) -> list[float | None]:
    """Return the scores of ``onnx:`` in the order of the texts."""
    return list(Reranker(load_scorer(f"onnx:{folder}", **options)).rerank(QUERY, texts).scores)


def files(folder: Path) -> list[tuple[str, int]]:
    """Return what is in a folder, and when it was written."""
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shape", FAMILIES)
def test_every_family_scores_as_sentence_transformers_does(
    plain: Build, expected: Callable[[Shape, int], list[float]], shape: Shape, runtime: str
) -> None:
    """On ragged texts, beyond the windows of local attention, cut by the model or by the caller."""
    tolerance = 1e-4 if shape in EXPORTED else 1e-5
    assert max(expected(shape, MAX_LENGTH)) - min(expected(shape, MAX_LENGTH)) > 0.3
    found = scores(plain(shape), runtime=runtime, precision="fp32", tokens_per_batch=100)
    assert found == pytest.approx(expected(shape, MAX_LENGTH), abs=tolerance)
    found = scores(plain(shape), runtime=runtime, max_length=24)
    assert found == pytest.approx(expected(shape, 24), abs=tolerance)


def test_exporting_happens_once_and_leaves_the_checkpoint_alone(plain: Build, cache: Path) -> None:
    """What is made goes into the cache of models, and is found there."""
    folder = plain("deberta-1")
    before = files(folder)
    scores(folder)
    made = files(cache)
    scores(folder, tokens_per_batch=77)
    assert files(folder) == before
    assert files(cache) == made
    assert sum(path.name.startswith("export-") for path in cache.iterdir()) >= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_is_made_once_and_depends_on_no_neighbour(plain: Build, cache: Path, runtime: str) -> None:
    """Activations have one scale per run, so each pair runs alone, on either runtime."""
    folder = plain("deberta-1")
    before = files(folder)
    reranker = Reranker(load_scorer(f"onnx:{folder}", runtime=runtime, precision="int8"))
    found = reranker.rerank(QUERY, TEXTS).scores
    made = files(cache)
    alone = [reranker.rerank(QUERY, [text]).scores[0] for text in TEXTS]
    assert found == pytest.approx(alone, abs=1e-6)
    single = scores(folder, runtime=runtime)
    differences = [abs(float(one or 0) - float(other or 0)) for one, other in zip(found, single, strict=True)]
    assert 1e-4 < max(differences) < 0.2
    assert files(folder) == before
    assert files(cache) == made


def test_a_checkpoint_without_a_head_is_not_exported(plain: Build, cache: Path, tmp_path: Path) -> None:
    """Transformers would make up random weights; the error says what it looks like, and nothing is kept."""
    from transformers import AutoModel

    with quiet():
        AutoModel.from_pretrained(plain("deberta-1")).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((plain("deberta-1") / name).read_bytes())
    before = files(cache)
    with pytest.raises(
        ConfigurationError, match="DebertaV2Model has no trained classifier: it looks like an embedding"
    ):
        scores(tmp_path)
    assert [name for name, _ in files(cache) if not name.endswith(".lock")] == [
        name for name, _ in before if not name.endswith(".lock")
    ]


def test_a_checkpoint_that_transformers_cannot_load_is_refused(plain: Build, tmp_path: Path) -> None:
    """The library's own error is the cause."""
    for path in plain("modernbert-1").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match=f"transformers cannot load {tmp_path}") as caught:
        scores(tmp_path)
    assert caught.value.__cause__ is not None


def test_an_export_that_differs_from_torch_is_not_kept(
    plain: Build, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tolerance below 0 stands for a wrong graph, which must not be used."""
    for path in plain("deberta-1").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    monkeypatch.setattr("rerank_core.local.onnx.model_files._TOLERANCE", -1.0)
    before = {path.name for path in cache.iterdir() if path.suffix != ".lock"}
    with pytest.raises(ConfigurationError, match=r"its logits differ from torch's by .*use 'cross-encoder:'"):
        export(Checkpoint(tmp_path), length=MAX_LENGTH)
    assert {path.name for path in cache.iterdir() if path.suffix != ".lock"} == before


def test_what_torch_cannot_export_is_refused(
    plain: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The exporter's reason is named; an old operator set stands for an operator that it does not know."""
    for path in plain("modernbert-1").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    monkeypatch.setattr("rerank_core.local.onnx.model_files._OPSET", 7)
    with pytest.raises(ConfigurationError, match=r"torch .* cannot export .*use 'cross-encoder:'"):
        scores(tmp_path)
