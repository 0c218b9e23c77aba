"""Graphs that are written from a checkpoint, compared with transformers' own models, on both runtimes."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import QUERY, SHAPES, TEXTS, build_checkpoint, export_onnx, quiet
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rerank_core import ConfigurationError
from rerank_core.local.onnx.bert.families import supports
from rerank_core.local.onnx.bert.graph import open_checkpoint
from rerank_core.local.runtimes import ModelSession, Runtime, SessionOptions, open_session

RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed"),
    ),
]
SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "max_position_embeddings": 40,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**SMALL, "num_labels": 3},
    "roberta": {**SMALL, "type_vocab_size": 1, "pad_token_id": 1},
    "camembert": {**SMALL, "type_vocab_size": 2, "pad_token_id": 1},
    "xlm-roberta": {**SMALL, "type_vocab_size": 1, "pad_token_id": 1, "num_labels": 1},
    "electra": {**SMALL, "embedding_size": 16},
    "distilbert": {
        "vocab_size": 90,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "initializer_range": 0.3,
        "max_position_embeddings": 40,
    },
}

Feed = Mapping[str, np.ndarray]


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer, whose logits differ by about 2 from text to text."""
    return build_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


def config_of(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's configuration."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def opened(folder: Path, runtime: Runtime, **options: Any) -> ModelSession:
    """Return a checkpoint's session."""
    return open_checkpoint(folder, config_of(folder), SessionOptions(runtime, **options))


def tokens(folder: Path, texts: tuple[str, ...] = TEXTS) -> dict[str, np.ndarray]:
    """Return the texts as a padded batch of the checkpoint's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([QUERY] * len(texts), list(texts), padding=True, truncation=True, return_tensors="np")
    return {name: values.astype(np.int64) for name, values in batch.items()}


def fed(session: ModelSession, batch: Feed) -> np.ndarray:
    """Return the session's logits for those arrays of a batch that it takes."""
    (logits,) = session.run({name: batch[name] for name in session.inputs})
    return np.array(logits)


def expected(folder: Path, batch: Feed) -> np.ndarray:
    """Return transformers' logits."""
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        logits: np.ndarray = model(
            **{name: torch.from_numpy(value) for name, value in batch.items()}
        ).logits.numpy()
        return logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the scores that stand for logits."""
    scores: np.ndarray = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return scores


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_logits_are_those_of_transformers(checkpoint: Path, runtime: Runtime) -> None:
    """On a ragged, padded batch of real tokens the logits agree to single precision."""
    batch = tokens(checkpoint)
    logits = fed(opened(checkpoint, runtime), batch)
    np.testing.assert_allclose(logits, expected(checkpoint, batch), rtol=0, atol=5e-5)
    assert logits.std() > 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_score_does_not_depend_on_the_rest_of_the_batch(checkpoint: Path, runtime: Runtime) -> None:
    """Alone and unpadded, each pair gets the score that it gets beside longer ones."""
    session, batch = opened(checkpoint, runtime), tokens(checkpoint)
    together = fed(session, batch)
    for row, length in enumerate(batch["attention_mask"].sum(axis=1)):
        alone = fed(session, {name: values[row : row + 1, :length] for name, values in batch.items()})
        # The checkpoint's spread logits amplify rounding some ten times; real weights stay below 1e-6.
        np.testing.assert_allclose(sigmoid(alone), sigmoid(together[row : row + 1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_reproduced(tmp_path: Path, family: str, runtime: Runtime) -> None:
    """Every family that the writer knows agrees with transformers, token types and padding included."""
    folder = random_checkpoint(tmp_path, family)
    batch = random_batch(config_of(folder))
    session = opened(folder, runtime)
    logits = expected(folder, {name: batch[name] for name in session.inputs})
    assert logits.std() > 0.05
    np.testing.assert_allclose(fed(session, batch), logits, rtol=0, atol=5e-5)


def random_checkpoint(folder: Path, family: str, **save: Any) -> Path:
    """Write a random checkpoint of a family."""
    from transformers import AutoConfig

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name.lower():
            torch.nn.init.normal_(
                parameter, 0.5, 0.2
            )  # transformers begins with zeros and ones, which hide mistakes
    with quiet():
        model.save_pretrained(folder, **save)
    return folder


def random_batch(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a ragged batch in which one text holds the padding's own token."""
    generator = np.random.default_rng(2)
    pad = config.get("pad_token_id") or 0
    ids = generator.integers(3, 90, (5, 21))
    mask = np.ones_like(ids)
    types = generator.integers(0, config.get("type_vocab_size", 1), ids.shape)
    for row, length in enumerate((21, 3, 17, 9, 2)):
        ids[row, length:], mask[row, length:], types[row, length:] = pad, 0, 0
    ids[0, 5] = pad
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_and_shards_are_read(tmp_path: Path, dtype: torch.dtype, runtime: Runtime) -> None:
    """A checkpoint in two bytes per weight, in several files, gives the logits of the same weights in four."""
    random_checkpoint(tmp_path, "bert")
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=dtype)
        (tmp_path / "model.safetensors").unlink()
        model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with quiet():
        model.float().save_pretrained(tmp_path / "single")
    batch = random_batch(config_of(tmp_path))
    np.testing.assert_allclose(
        fed(opened(tmp_path, runtime), batch), expected(tmp_path / "single", batch), rtol=0, atol=5e-5
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_comes_close_and_does_not_depend_on_the_batch(checkpoint: Path, runtime: Runtime) -> None:
    """Rounding changes the logits little, and no more in a batch than alone."""
    session, batch = opened(checkpoint, runtime, precision="int8"), tokens(checkpoint)
    rows = range(len(TEXTS))
    lengths = batch["attention_mask"].sum(axis=1)
    alone = np.concatenate(
        [
            fed(session, {name: values[row : row + 1, : lengths[row]] for name, values in batch.items()})
            for row in rows
        ]
    )
    exact = expected(checkpoint, batch)
    assert np.corrcoef(alone[:, 0], exact[:, 0])[0, 1] > 0.98
    np.testing.assert_allclose(sigmoid(fed(session, batch)), sigmoid(alone), rtol=0, atol=1e-3)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_are_rounded_once_and_kept(
    checkpoint: Path, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next session reads what the first one kept."""
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path))
    batch = tokens(checkpoint)
    first = fed(opened(checkpoint, runtime, precision="int8"), batch)
    (entry,) = (tmp_path / "models").glob("rounded-*")
    assert (entry / "0.npy").is_file()
    with monkeypatch.context() as patch:
        patch.delattr("rerank_core.local.onnx.bert.int8.quantize_rows")
        np.testing.assert_array_equal(fed(opened(checkpoint, runtime, precision="int8"), batch), first)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu_new"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"architectures": ["BertForMaskedLM"]},
        {"model_type": "modernbert"},
        {"model_type": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_arithmetic_is_not_taken_for_known(tmp_path: Path, change: dict[str, Any]) -> None:
    """A model whose arithmetic differs in one point is left to an export."""
    folder = random_checkpoint(tmp_path, "bert")
    config = config_of(folder)
    assert supports(config)
    assert not supports({**config, **change})
    with pytest.raises(ConfigurationError, match="export it to ONNX"):
        open_checkpoint(folder, {**config, **change}, SessionOptions("onnxruntime"))


def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """Weights of another shape than the configuration's, or a number that it lacks, are configuration errors."""
    config = config_of(random_checkpoint(tmp_path, "bert"))
    with pytest.raises(ConfigurationError, match="position_embeddings.* is 40 x 32, and .* any x 64"):
        open_checkpoint(tmp_path, {**config, "hidden_size": 64}, SessionOptions("onnxruntime"))
    del config["num_hidden_layers"]
    with pytest.raises(ConfigurationError, match="num_hidden_layers"):
        open_checkpoint(tmp_path, config, SessionOptions("onnxruntime"))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_onnx_file_runs_on_both_runtimes(checkpoint: Path, runtime: Runtime, tmp_path: Path) -> None:
    """An exported file, or its bytes, gives transformers' logits."""
    path = export_onnx(checkpoint, tmp_path / "model.onnx")
    batch = tokens(checkpoint)
    for model in (path, path.read_bytes()):
        session = open_session(model, SessionOptions(runtime))
        np.testing.assert_allclose(fed(session, batch), expected(checkpoint, batch), rtol=0, atol=5e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("model", [b"no model", Path("nowhere.onnx")], ids=["bytes", "missing"])
def test_what_is_no_model_is_a_configuration_error(model: Path | bytes, runtime: Runtime) -> None:
    """The error names the runtime."""
    with pytest.raises(ConfigurationError, match="^(ONNX Runtime|OpenVINO) cannot load"):
        open_session(model, SessionOptions(runtime))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_run_can_be_interrupted_before_and_while_it_runs(tmp_path: Path, runtime: Runtime) -> None:
    """An armed session ends the run that is under way or about to begin, and runs again once armed again."""
    folder = random_checkpoint(tmp_path, "bert")
    session = opened(folder, runtime, threads=1)
    batch = random_batch(config_of(folder))
    once = fed(session, batch)
    session.arm()
    session.interrupt()
    with pytest.raises(Exception, match="(?i)terminate|interrupt|cancel"):
        fed(session, batch)

    session.arm()
    ids = np.full((3000, 40), 5)
    large = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    begin = time.process_time()
    fed(session, large)
    full = time.process_time() - begin
    timer = threading.Timer(full / 10, session.interrupt)
    timer.start()
    begin = time.process_time()
    with pytest.raises(Exception, match="(?i)terminate|interrupt|cancel"):
        fed(session, large)
    assert time.process_time() - begin < full
    timer.join()
    session.arm()
    np.testing.assert_array_equal(fed(session, batch), once)
