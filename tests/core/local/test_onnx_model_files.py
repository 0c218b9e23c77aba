"""Which files ``onnx:`` uses: by precision, in folders and in repositories, and what it says when none fits."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support.hub
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from support.models import QUERY, TEXTS, Shape
from support.scripts import run_script

from rerank_core import ConfigurationError, Reranker, ScorerUnavailableError, load_scorer
from rerank_core.local import cpu
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.hub import ModelFiles
from rerank_core.local.onnx.model_files import GraphFile, find_graph, quantize

Build = Callable[[Shape], Path]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what these tests make out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def graphs(checkpoint: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one graph in single and in half precision, and with int8 weights."""
    import onnx
    from onnx import numpy_helper

    single = checkpoint("bert-1") / "model.onnx"
    model = onnx.load(str(single))
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            half = numpy_helper.to_array(weight).astype("float16")
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    half_file = tmp_path_factory.mktemp("half") / "model.onnx"
    onnx.save(model, str(half_file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RERANK_BRIDGE_CACHE", str(half_file.parent))
        whole = quantize(GraphFile(single, (), "fp32")).path
    return {"fp32": single, "fp16": half_file, "int8": whole}


def folder_of(checkpoint: Build, graphs: dict[str, Path], target: Path, files: dict[str, str]) -> Path:
    """Return a folder with tokenizer and configuration, and with files of the names and precisions given."""
    for path in checkpoint("bert-1").glob("*.json"):
        shutil.copy(path, target)
    for name, holds in files.items():
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copy(graphs[holds] if holds in graphs else checkpoint("bert-1") / holds, target / name)
    return target


def chosen(model: Path | str, precision: Any = "auto", file_name: str | None = None) -> str | None:
    """Return the name of the ONNX file that is chosen in a folder; None for the checkpoint itself."""
    files = ModelFiles(str(model), revision=None, offline=False)
    checkpoint = Checkpoint(files.fetch())
    graph = find_graph(files, checkpoint, file_name, precision)
    return None if graph is None else graph.path.relative_to(checkpoint.folder).as_posix()


def scores(folder: Path, texts: Any = TEXTS, **options: Any) -> list[float | None]:
    """Return the scores of ``onnx:`` in the order of the texts."""
    return list(Reranker(load_scorer(f"onnx:{folder}", **options)).rerank(QUERY, texts).scores)


SAFETENSORS = {"model.safetensors": "model.safetensors"}


@pytest.mark.parametrize(
    ("files", "precision", "name"),
    [
        ({"model.onnx": "fp32", "onnx/model.onnx": "fp32"}, "auto", "model.onnx"),
        ({"onnx/model.onnx": "fp32", "onnx/model_int8.onnx": "int8"}, "auto", "onnx/model.onnx"),
        ({"onnx/model.onnx": "fp32", "onnx/model_int8.onnx": "int8"}, "fp32", "onnx/model.onnx"),
        ({"onnx/model.onnx": "fp32", "onnx/model_int8.onnx": "int8"}, "int8", "onnx/model_int8.onnx"),
        ({"model.onnx": "fp32", "model_quantized.onnx": "int8"}, "int8", "model_quantized.onnx"),
        ({"model.onnx": "fp32"}, "int8", "model.onnx"),
        ({"model.onnx": "fp32", **SAFETENSORS}, "int8", None),
        ({"model.onnx": "fp32", **SAFETENSORS}, "fp32", "model.onnx"),
        ({"model_int8.onnx": "int8", **SAFETENSORS}, "auto", None),
        ({"model_int8.onnx": "int8", **SAFETENSORS}, "fp32", None),
        ({"model_int8.onnx": "int8"}, "auto", "model_int8.onnx"),
        ({"model_fp16.onnx": "fp16", "model_int8.onnx": "int8"}, "auto", "model_fp16.onnx"),
        ({"model.onnx": "fp32"}, "bf16", "model.onnx"),
    ],
)
def test_the_file_of_the_precision_is_chosen(
    checkpoint: Build, graphs: dict[str, Path], tmp_path: Path, files: dict[str, str], precision: str, name: str
) -> None:
    """An ONNX file first, then the checkpoint; by ``auto`` single precision first."""
    assert chosen(folder_of(checkpoint, graphs, tmp_path, files), precision) == name


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "model_qint8_avx512_vnni"),
        ({"avx2", "avx512f"}, "model_qint8_avx512"),
        ({"avx2"}, "model_quint8_avx2"),
        ({"arm64"}, "model_qint8_arm64"),
        (set(), "model_int8"),
    ],
)
def test_int8_files_are_chosen_by_the_cpu(
    checkpoint: Build,
    graphs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    features: set[str],
    name: str,
) -> None:
    """As sentence-transformers names them for instruction sets; one for all where there is none for this one."""
    names = ["int8", "qint8_avx512_vnni", "qint8_avx512", "quint8_avx2", "qint8_arm64"]
    folder = folder_of(checkpoint, graphs, tmp_path, {f"onnx/model_{name}.onnx": "int8" for name in names})
    monkeypatch.setattr("rerank_core.local.onnx.model_files.cpu_features", lambda: frozenset(features))
    assert chosen(folder, "int8") == f"onnx/{name}.onnx"


@pytest.mark.parametrize(
    ("machine", "info", "features"),
    [
        ("aarch64", "", {"arm64"}),
        ("x86_64", "processor: 0\nflags\t: fpu avx2 avx512f avx512_vnni\n", {"avx2", "avx512f", "avx512_vnni"}),
        ("x86_64", "processor: 0\nflags\t: fpu sse2\n", set()),
        ("AMD64", None, {"avx2"}),
    ],
)
def test_what_the_cpu_has_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, info: str | None, features: set[str]
) -> None:
    """From the system's own list; where it has none, AVX2 is assumed."""
    if info is not None:
        (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    assert cpu.cpu_features() == features


@pytest.mark.parametrize(
    ("holds", "precision", "needs"),
    [("fp16", "fp32", "fp32 ones"), ("fp16", "int8", "int8 or fp32 ones"), ("int8", "fp32", "fp32 ones")],
)
def test_a_file_of_another_precision_is_refused(
    checkpoint: Build, graphs: dict[str, Path], tmp_path: Path, holds: str, precision: str, needs: str
) -> None:
    """Whatever its name says: the error names the file, what it holds, and the fix."""
    folder = folder_of(checkpoint, graphs, tmp_path, {"model.onnx": holds})
    with pytest.raises(
        ConfigurationError, match=f"{folder}/model.onnx holds {holds} weights, and .*{precision}.* needs {needs}"
    ):
        chosen(folder, precision)


def test_lower_precision_is_used_and_logged_where_nothing_was_asked(
    checkpoint: Build, graphs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pairs run alone, as int8 graphs need; what counts is the file's content, not its name."""
    folder = folder_of(checkpoint, graphs, tmp_path, {"model.onnx": "int8"})
    with caplog.at_level(logging.INFO, "rerank_core"):
        reranker = Reranker(f"onnx:{folder}")
        found = list(reranker.rerank(QUERY, TEXTS).scores)
    assert f"{folder}/model.onnx is used, whose weights are int8" in caplog.text
    assert found == pytest.approx([reranker.rerank(QUERY, [text]).scores[0] for text in TEXTS], abs=1e-6)
    assert found == pytest.approx(scores(checkpoint("bert-1")), abs=0.2)


def test_a_file_may_be_named(checkpoint: Build, graphs: dict[str, Path], tmp_path: Path) -> None:
    """An ONNX file anywhere in the folder, or the checkpoint's own weights beside one."""
    files = {"model.onnx": "int8", "odd.onnx": "fp32", **SAFETENSORS}
    folder = folder_of(checkpoint, graphs, tmp_path, files)
    (folder / "a" / "b").mkdir(parents=True)
    shutil.copy(graphs["fp32"], folder / "a" / "b" / "deep.onnx")
    assert chosen(folder, file_name="odd.onnx") == "odd.onnx"
    assert chosen(folder, file_name="a/b/deep.onnx") == "a/b/deep.onnx"
    assert chosen(folder, file_name="model.safetensors") is None
    expected = scores(checkpoint("bert-1"))
    assert scores(folder, file_name="model.safetensors") == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ConfigurationError, match=r"file_name is 'config.json': give an .onnx file"):
        chosen(folder, file_name="config.json")
    with pytest.raises(ConfigurationError, match=f"{folder} has no other.onnx; it has config.json"):
        chosen(folder, file_name="other.onnx")


def test_a_checkpoint_that_is_not_used_as_it_lies_is_not_forced(checkpoint: Build, tmp_path: Path) -> None:
    """The error says how to have it exported."""
    for path in checkpoint("bert-1").iterdir():
        shutil.copy(path, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ConfigurationError, match=r"model.safetensors is of .*leave file_name out"):
        scores(tmp_path, file_name="model.safetensors")


def test_weights_beside_the_graph_are_found(checkpoint: Build, tmp_path: Path) -> None:
    """As graphs of more than 2 GB have them; int8 is made of both files."""
    import onnx

    for path in checkpoint("bert-1").glob("*.json"):
        shutil.copy(path, tmp_path)
    model = onnx.load(str(checkpoint("bert-1") / "model.onnx"))
    onnx.save(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="w.bin", size_threshold=100
    )
    files = ModelFiles(str(tmp_path), revision=None, offline=True)
    graph = find_graph(files, Checkpoint(tmp_path), None, "auto")
    assert graph is not None
    assert (graph.beside, graph.precision) == ([tmp_path / "w.bin"], "fp32")
    assert scores(tmp_path) == pytest.approx(scores(checkpoint("bert-1")), abs=1e-5)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert scores(tmp_path, precision="int8") == pytest.approx(scores(checkpoint("bert-1")), abs=0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_options_are_checked_when_the_scorer_is_made() -> None:
    """With what they may be."""
    with pytest.raises(ConfigurationError, match="runtime is 'torch': give one of .*openvino"):
        load_scorer("onnx:some/model", runtime="torch")
    with pytest.raises(ConfigurationError, match="precision is 'fp16': give one of .*int8"):
        load_scorer("onnx:some/model", precision="fp16")


HUB = """
import json, os, sys
from pathlib import Path

folder, tests = sys.argv[1:]
sys.path.insert(0, tests)
from support.hub import hub
from support.models import QUERY

found = {}
with hub("someone/some-model", Path(folder)) as (address, asked):
    os.environ["HF_ENDPOINT"] = address
    from rerank_core import Reranker, load_scorer

    def scores(**options):
        asked.clear()
        ranking = Reranker(load_scorer("onnx:someone/some-model", **options)).rerank(QUERY, ["memory", "Paris"])
        names = [line.partition("/resolve/")[2].partition("/")[2] for line in asked if line.startswith("GET")]
        return ranking.scores, sorted(name for name in names if name and not name.endswith(".json"))

    for precision in ("int8", "fp32"):
        found[precision] = scores(precision=precision)
    found["named"] = scores(file_name="model.safetensors")
    found["again"] = scores(precision="fp32", tokens_per_batch=7)
    try:
        scores(file_name="other.onnx")
    except Exception as exc:
        found["missing"] = [type(exc).__name__, str(exc)]
found["offline"] = scores(precision="int8", local_files_only=True)
found["gone"] = scores(precision="int8", tokens_per_batch=7)
print(json.dumps(found))
"""


def test_only_what_is_used_is_fetched_from_the_hub(
    checkpoint: Build, graphs: dict[str, Path], tmp_path: Path
) -> None:
    """A repository may hold ten variants of gigabytes each; with the hub gone, its cache does."""
    (tmp_path / "repository").mkdir()
    files = {"onnx/model.onnx": "fp32", "onnx/model_quantized.onnx": "int8", "onnx/model_fp16.onnx": "fp16"}
    folder = folder_of(checkpoint, graphs, tmp_path / "repository", {**files, **SAFETENSORS})
    (folder / "onnx" / "model.onnx_data").write_bytes(b"weights of the one beside")
    output = run_script(
        HUB,
        str(folder),
        str(Path(support.hub.__file__).parents[1]),
        env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"},
    )
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert found["int8"][1] == ["onnx/model_quantized.onnx"]
    assert found["fp32"][1] == ["onnx/model.onnx", "onnx/model.onnx_data"]
    assert found["named"][1] == ["model.safetensors"]
    assert found["again"][1] == []
    assert found["missing"][0] == "ConfigurationError"
    assert "someone/some-model has no other.onnx; it has config.json, model.safetensors" in found["missing"][1]
    expected = scores(checkpoint("bert-1"), ["memory", "Paris"])
    assert found["fp32"][0] == pytest.approx(expected, abs=1e-5)
    assert found["named"][0] == pytest.approx(expected, abs=1e-5)
    assert found["offline"][0] == found["gone"][0] == found["int8"][0]


@pytest.fixture
def repository(
    checkpoint: Build, graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Serve a repository of one ONNX file to this process; the list of what it is asked for."""
    folder = folder_of(checkpoint, graphs, tmp_path, {"onnx/model.onnx": "fp32"})
    with support.hub.hub("someone/some-model", folder) as (address, asked):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield asked


def test_the_hub_is_asked_again_only_where_it_may_be(
    repository: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cached is found without it, and an error says whether it was missing or out of reach."""
    assert chosen("someone/some-model") == "onnx/model.onnx"
    repository.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert chosen("someone/some-model", "int8") == "onnx/model.onnx"
    with pytest.raises(ScorerUnavailableError, match="could not be fetched") as caught:
        chosen("someone/some-model", file_name="onnx/other.onnx")
    assert isinstance(caught.value.__cause__, OfflineModeIsEnabled)
    assert repository == []


def test_a_repository_that_loses_a_file_on_the_way_is_reported(
    repository: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's error is the cause."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("the connection was reset")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ScorerUnavailableError, match="could not be fetched") as caught:
        chosen("someone/some-model")
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_all_files_of_a_checkpoint_in_parts_are_fetched(repository: list[str], tmp_path: Path) -> None:
    """The index alone says nothing; other weights in the repository stay there."""
    index = "model.safetensors.index.json"
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in (index, *parts, "pytorch_model-00001-of-00001.bin"):
        (tmp_path / name).write_text("{}")
    assert chosen("someone/some-model", file_name=index) is None
    fetched = {line.rpartition("/")[2] for line in repository if "/resolve/" in line}
    assert {index, *parts} <= fetched
    assert not fetched & {"model.onnx", "pytorch_model-00001-of-00001.bin"}
