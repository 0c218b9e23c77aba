"""Hub ids, fetched by the real client from a hub on loopback, and what happens when it is out of reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import support.hub
from huggingface_hub.errors import HfHubHTTPError
from support.models import Shape
from support.scripts import run_script

from rerank_core import ScorerUnavailableError
from rerank_core.local.hub import ModelFiles, is_hub_id

SCRIPT = """
import json, os, sys, time
from pathlib import Path

provider, folder, tests = sys.argv[1:]
sys.path.insert(0, tests)
from support.hub import hub

QUERY, TEXTS = "memory leak", ["finding a leak", "Paris", "memory"]
found = {}
with hub("someone/some-model", Path(folder)) as (address, asked):
    os.environ["HF_ENDPOINT"] = address
    from rerank_core import Reranker, load_scorer
    found["folder"] = Reranker(f"{provider}:{folder}").rerank(QUERY, TEXTS).scores
    found["fetched"] = Reranker(f"{provider}:someone/some-model").rerank(QUERY, TEXTS).scores
    found["asked"] = list(asked)
    try:
        Reranker(f"{provider}:someone/no-such-model").warm_up()
    except Exception as exc:
        found["unknown"] = [type(exc).__name__, type(exc.__cause__).__name__]
    asked.clear()

start = time.perf_counter()
found["cached"] = Reranker(load_scorer(f"{provider}:someone/some-model", threads=1)).rerank(QUERY, TEXTS).scores
try:
    Reranker(f"{provider}:someone/other-model").warm_up()
except Exception as exc:
    found["unreachable"] = [type(exc).__name__, str(exc)]
found["seconds"] = time.perf_counter() - start
print(json.dumps(found))
"""


@pytest.mark.parametrize("provider", ["onnx", "cross-encoder"])
def test_a_hub_id_is_fetched_cached_and_refused(
    provider: str, checkpoint: Callable[[Shape], Path], tmp_path: Path
) -> None:
    """It scores as its folder does, also from the cache with the hub gone; what is in neither is an error, soon.

    The client alone goes on trying an address where nobody listens for a minute.
    """
    folder = checkpoint("bert-1")
    output = run_script(
        SCRIPT,
        provider,
        str(folder),
        str(Path(support.hub.__file__).parents[1]),
        env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"},
    )
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert found["fetched"] == pytest.approx(found["folder"], abs=1e-6)
    assert found["cached"] == pytest.approx(found["folder"], abs=1e-6)
    assert found["unknown"][0] == "ScorerUnavailableError"
    assert found["unreachable"][0] == "ScorerUnavailableError"
    assert "hf download someone/other-model --local-dir FOLDER" in found["unreachable"][1]
    assert found["seconds"] < 45
    weights = {
        request.rpartition("/")[2]
        for request in found["asked"]
        if request.startswith("GET") and "resolve" in request
    }
    assert ("model.onnx" in weights, "model.safetensors" in weights) == (provider == "onnx", provider != "onnx")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BAAI/bge-reranker-v2-m3", True),
        ("some_model.v2", True),
        ("/a/folder", False),
        ("./folder", False),
        ("owner/name/more", False),
        ("-owner/name", False),
        ("owner name", False),
        ("", False),
    ],
)
def test_a_hub_id_is_told_from_a_path(name: str, expected: bool) -> None:
    """By its letters alone, where there is no such folder."""
    assert is_hub_id(name) is expected


def test_a_folder_that_exists_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("owner/name")
    assert is_hub_id("owner/other")


@pytest.mark.parametrize("error", [HfHubHTTPError, ConnectionError, TimeoutError])
def test_a_hub_that_does_not_answer_is_asked_once(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within seconds; what it does not give is looked for in its cache, and the error has the first cause."""
    response = httpx.Response(404, request=httpx.Request("GET", "http://127.0.0.1/api/models/someone/some-model"))
    cause = HfHubHTTPError("404", response=response) if error is HfHubHTTPError else error("nobody answers")  # type: ignore[arg-type]
    asked = []

    def model_info(_: object, model: str, **options: Any) -> None:
        assert options["timeout"] <= 10
        asked.append((model, options["revision"]))
        raise cause

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(ScorerUnavailableError, match="could not be fetched") as caught:
        ModelFiles("some-model", revision="v1", offline=False)
    with pytest.raises(ScorerUnavailableError, match="could not be fetched"):
        ModelFiles("some-model", revision="v1", offline=False, owner=None)
    assert asked == [("cross-encoder/some-model", "v1"), ("some-model", "v1")]
    assert caught.value.__cause__ is cause
