"""Checkpoints without a trained classifier, whose scores would be random, are refused with what they look like."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.causal import build_causal
from support.models import QUERY, TEXTS, Shape, build_checkpoint, quiet

from rerank_core import ConfigurationError, Reranker, load_scorer

Build = Callable[[Shape], Path]


@pytest.fixture(scope="module")
def bare(checkpoint: Build, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a checkpoint's transformer under another class, with its tokenizer."""

    def build(shape: Shape, kind: str, **files: Any) -> Path:
        import transformers

        folder = tmp_path_factory.mktemp("bare")
        with quiet():
            getattr(transformers, kind).from_pretrained(checkpoint(shape)).save_pretrained(folder)
        shutil.copy(checkpoint(shape) / "tokenizer.json", folder)
        shutil.copy(checkpoint(shape) / "tokenizer_config.json", folder)
        for name, content in files.items():
            (folder / name.replace("_json", ".json")).write_text(json.dumps(content))
        return folder

    return build


def refusal(folder: Path, provider: str = "cross-encoder") -> str:
    """Return the error of a scorer for a folder."""
    with quiet(), pytest.raises(ConfigurationError) as caught:
        Reranker(load_scorer(f"{provider}:{folder}")).warm_up()
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "missing"),
    [
        ("bert-1", "classifier.bias, classifier.weight"),
        ("xlmr-1", "classifier.dense.bias, classifier.dense.weight, classifier.out_proj.bias"),
        ("deberta-1", "classifier.bias, classifier.weight, pooler.dense.bias, pooler.dense.weight"),
        ("modernbert-1", "classifier.bias, classifier.weight, head.dense.weight, head.norm.weight"),
    ],
)
def test_an_embedding_model_is_refused(bare: Callable[..., Path], shape: Shape, missing: str) -> None:
    """With the names of the weights that no file holds, which would be other ones at every start."""
    message = refusal(bare(shape, "AutoModel"))
    assert f"the files hold no weights for {missing}" in message
    assert "looks like an embedding model: use it as a first stage" in message


def test_a_masked_language_model_is_refused(bare: Callable[..., Path]) -> None:
    """It is what rerankers are trained from; its pooler would be made up, too."""
    message = refusal(bare("bert-1", "AutoModelForMaskedLM"))
    assert "bert.pooler.dense.bias" in message
    assert "looks like a masked language model" in message


@pytest.mark.parametrize(
    ("files", "described"),
    [
        ({"artifact.metadata": {}}, "a ColBERT checkpoint, for late interaction: use 'late:'"),
        (
            {
                "config_sentence_transformers_json": {"model_type": "ColBERT"},
                "modules_json": [
                    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                ],
            },
            "a ColBERT checkpoint, for late interaction: use 'late:'",
        ),
        (
            {
                "config_sentence_transformers_json": {"model_type": "SparseEncoder"},
                "modules_json": [
                    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                    {"idx": 1, "name": "1", "path": "", "type": "sentence_transformers.models.SpladePooling"},
                ],
            },
            "a SPLADE model, which makes sparse vectors: use it as a first stage",
        ),
    ],
)
def test_what_files_say_of_a_checkpoint_is_said(
    bare: Callable[..., Path], files: dict[str, Any], described: str
) -> None:
    """ColBERT's and PyLate's layouts, and SPLADE's."""
    assert f"looks like {described}" in refusal(bare("bert-1", "AutoModel", **files))


def test_a_decoder_that_embeds_is_refused(tmp_path: Path) -> None:
    """Nothing is missing where the words' logits come from the embeddings; its modules tell what it is."""
    folder = build_causal(tmp_path)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SentenceTransformer"}))
    assert "looks like an embedding model: use it as a first stage" in refusal(folder)


def test_a_text_to_text_model_is_refused(tmp_path: Path) -> None:
    """As monoT5, of which transformers makes a classifier with a head of its own."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    with quiet():
        build_checkpoint(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "classification_head.dense.weight" in message
    assert "looks like a text-to-text model such as monoT5" in message


@pytest.mark.parametrize(
    ("shape", "tensor"), [("bert-1", "classifier.weight"), ("deberta-1", "pooler.dense.weight")]
)
def test_a_missing_weight_is_named_on_onnx_too(
    checkpoint: Build, tmp_path: Path, shape: Shape, tensor: str
) -> None:
    """Of a checkpoint that is run as it is, and of one that is exported."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "changed"
    shutil.copytree(checkpoint(shape), folder)
    (folder / "model.onnx").unlink()
    weights = load_file(folder / "model.safetensors")
    del weights[tensor]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert tensor in refusal(folder, "onnx")
    assert tensor in refusal(folder)


def test_an_embedding_models_onnx_file_is_refused(checkpoint: Build, tmp_path: Path) -> None:
    """It returns a vector for each token, or for each pair, and no score."""
    import torch
    from transformers import AutoModel

    folder = tmp_path / "embedding"
    shutil.copytree(checkpoint("bert-1"), folder)

    class Vectors(torch.nn.Module):
        """The hidden states alone."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(checkpoint("bert-1"), attn_implementation="eager")

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            """Return an array of three dimensions."""
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]

    with quiet():
        torch.onnx.export(
            Vectors().eval(),
            (torch.full((2, 7), 5), torch.ones(2, 7, dtype=torch.long)),
            str(folder / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")},
            dynamo=False,
        )
    assert "as embedding models do: use it as a first stage" in refusal(folder, "onnx")


@pytest.mark.parametrize("kept", ["safetensors", "bin"])
def test_differences_that_change_no_score_load(checkpoint: Build, tmp_path: Path, kept: str) -> None:
    """Position ids and a pooler that the classifier does not use, as older checkpoints have; .bin files, too."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "changed"
    shutil.copytree(checkpoint("xlmr-1"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["roberta.embeddings.position_ids"] = torch.arange(66).unsqueeze(0)
    weights["roberta.pooler.dense.weight"] = torch.zeros(32, 32)
    if kept == "safetensors":
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    with quiet():
        found = Reranker(f"cross-encoder:{folder}").rerank(QUERY, TEXTS).scores
        expected = Reranker(f"cross-encoder:{checkpoint('xlmr-1')}").rerank(QUERY, TEXTS).scores
    assert found == pytest.approx(expected, abs=1e-6)


def test_code_that_patches_the_library_is_refused_and_undone(checkpoint: Build, tmp_path: Path) -> None:
    """As zerank-1's, whose ``predict`` would be every model's; at the second attempt, too."""
    from sentence_transformers import CrossEncoder

    folder = tmp_path / "patching"
    shutil.copytree(checkpoint("bert-1"), folder)
    (folder / "patching.py").write_text(
        "from transformers import BertForSequenceClassification\n"
        "from sentence_transformers import CrossEncoder\n"
        "class PatchingModel(BertForSequenceClassification):\n"
        "    pass\n"
        "CrossEncoder.predict = lambda self, pairs, **options: [0.5] * len(pairs)\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "patching.PatchingModel"}
    (folder / "config.json").write_text(json.dumps(config))
    before = CrossEncoder.predict
    for _ in range(2):
        with quiet(), pytest.raises(ConfigurationError, match=r"own code replaces CrossEncoder\.predict"):
            Reranker(load_scorer(f"cross-encoder:{folder}", trust_remote_code=True)).warm_up()
        assert CrossEncoder.predict is before
