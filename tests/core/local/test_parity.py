"""Cross-encoders score what sentence-transformers scores, on torch and on ONNX Runtime; and what they refuse."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.models import MAX_LENGTH, QUERY, SHAPES, TEXTS, Shape, build_checkpoint, export_onnx, quiet

from rerank_core import ConfigurationError, InvalidResponseError, Reranker, ScorerUnavailableError, load_scorer

TORCH, ONNX = 1e-5, 1e-4
Build = Callable[[Shape], Path]


@functools.cache
def cross_encoder(folder: Path, max_length: int | None) -> Any:
    """Return the reference itself, loaded once."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu", max_length=max_length)


def reference(folder: Path, query: str, texts: Sequence[str], *, max_length: int | None = None) -> list[float]:
    """Return the probabilities of sentence-transformers: the sigmoid of one logit, the softmax's second of two."""
    import torch

    logits = (
        cross_encoder(folder, max_length)
        .predict(
            [(query, text) for text in texts],
            activation_fn=torch.nn.Identity(),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        .double()
    )
    scores = torch.sigmoid(logits) if logits.ndim == 1 else torch.softmax(logits, dim=1)[:, 1]
    return [float(score) for score in scores]


@functools.cache
def reranker(name: str, **options: Any) -> Reranker:
    """Return a reranker that keeps its model loaded."""
    return Reranker(load_scorer(name, **options))


@pytest.fixture(autouse=True, scope="module")
def _models_are_dropped() -> Iterator[None]:
    """Keep no model, and no thread of one, for the tests of other modules."""
    yield
    reranker.cache_clear()
    cross_encoder.cache_clear()


def scores(name: str, texts: Sequence[str] = TEXTS, query: str = QUERY, **options: Any) -> list[float | None]:
    """Return the scores of a scorer, in the order of the texts."""
    return list(reranker(name, **options).rerank(query, texts).scores)


def copy_of(folder: Path, target: Path, **config: Any) -> Path:
    """Copy a checkpoint, with another value of something in ``config.json``."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


@pytest.mark.parametrize(("provider", "tolerance"), [("cross-encoder", TORCH), ("onnx", ONNX)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "options", [{}, {"max_length": 24}, {"tokens_per_batch": 1}, {"tokens_per_batch": 100_000}]
)
def test_scores_are_those_of_sentence_transformers(
    checkpoint: Build, shape: Shape, provider: str, tolerance: float, options: dict[str, int]
) -> None:
    """On ragged texts, some longer than the model reads, in batches of any size."""
    expected = reference(checkpoint(shape), QUERY, TEXTS, max_length=options.get("max_length"))
    assert max(expected) - min(expected) > 0.3
    assert scores(f"{provider}:{checkpoint(shape)}", **options) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("provider", "tolerance"), [("cross-encoder", TORCH), ("onnx", ONNX)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "text",
    [
        "memory leak " * 500,
        "x" * 5000 + " memory leak",
        "leak" + " " * 5000 + "memory",
        "leak" + " " * (MAX_LENGTH * 20 - 20) + " memory" * 30,
        " ".join(["y" * 150] * 70) + " memory",
    ],
)
@pytest.mark.parametrize("query", ["leak?", "how do I find a memory leak in Python? " * 4, "memory " * 300])
def test_long_texts_and_queries_are_cut_alike(
    checkpoint: Build, shape: Shape, provider: str, tolerance: float, text: str, query: str
) -> None:
    """The longer one first, whatever it is made of: words, one word, blanks, or words that are no tokens."""
    expected = reference(checkpoint(shape), query, [text, "short"])
    assert scores(f"{provider}:{checkpoint(shape)}", [text, "short"], query) == pytest.approx(
        expected, abs=tolerance
    )


@pytest.mark.parametrize("activation", ["Sigmoid", "Identity"])
@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_the_saved_activation_changes_no_score(
    checkpoint: Build, tmp_path: Path, activation: str, provider: str
) -> None:
    """Whether a model was saved with a sigmoid or without (as ms-marco's), one sigmoid is applied."""
    saved = {"activation_fn": f"torch.nn.modules.activation.{activation}"}
    if activation == "Identity":
        saved = {"activation_fn": "torch.nn.modules.linear.Identity"}
    folder = copy_of(checkpoint("bert-1"), tmp_path, sentence_transformers=saved)
    expected = reference(checkpoint("bert-1"), QUERY, TEXTS)
    assert scores(f"{provider}:{folder}") == pytest.approx(expected, abs=ONNX)


def test_a_head_that_ends_in_a_sigmoid_gets_no_second_one(checkpoint: Build, tmp_path: Path) -> None:
    """A model of modules whose last one is a dense layer with a sigmoid of its own."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(1)
    with quiet():
        body = Transformer(str(checkpoint("bert-1")))
        head = Dense(
            32,
            1,
            activation_function=torch.nn.Sigmoid(),
            module_input_name="sentence_embedding",
            module_output_name="scores",
        )
        model = CrossEncoder(modules=[body, Pooling(32, "cls"), head], device="cpu")
        pairs = [(QUERY, text) for text in TEXTS]
        with torch.no_grad():
            logits = torch.logit(torch.tensor(model.predict(pairs, activation_fn=torch.nn.Identity())))
            model[-1].linear.bias -= logits.mean()
        model.save_pretrained(str(tmp_path))
    expected = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert max(expected) - min(expected) > 0.1
    assert scores(f"cross-encoder:{tmp_path}") == pytest.approx(expected, abs=TORCH)
    assert scores(f"cross-encoder:{tmp_path}", score_scale="probability") == pytest.approx(expected, abs=TORCH)


def test_a_graph_that_ends_in_a_sigmoid_is_taken_as_it_is(checkpoint: Build, tmp_path: Path) -> None:
    """With ``score_scale="probability"``; by default its output would get a second one, as nothing tells."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    export_onnx(folder, folder / "with_sigmoid.onnx", sigmoid=True)
    expected = reference(folder, QUERY, TEXTS)
    assert scores(f"onnx:{folder}", file_name="with_sigmoid.onnx", score_scale="probability") == pytest.approx(
        expected, abs=ONNX
    )


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_logits_taken_for_probabilities_are_noticed(checkpoint: Build, provider: str) -> None:
    """``score_scale="probability"`` on a model that returns logits is refused, not clipped."""
    with pytest.raises(InvalidResponseError, match=r"outside \[0, 1\]"):
        scores(f"{provider}:{checkpoint('bert-1')}", score_scale="probability")


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_three_labels_are_refused(tmp_path: Path, provider: str) -> None:
    """A model for classification or entailment is no reranker, and the error says what one is."""
    folder = build_checkpoint(tmp_path, "bert-1", labels=3)
    export_onnx(folder, folder / "model.onnx")
    with pytest.raises(ConfigurationError, match="has 3 output labels.*a reranker has one, or two"):
        scores(f"{provider}:{folder}")


def test_prompts_saved_with_a_model_are_used(checkpoint: Build, tmp_path: Path) -> None:
    """As sentence-transformers uses them: some rerankers were trained with an instruction before the query."""
    import torch
    from sentence_transformers import CrossEncoder

    with quiet():
        CrossEncoder(
            str(checkpoint("bert-1")), prompts={"find": "memory leak: "}, default_prompt_name="find", device="cpu"
        ).save_pretrained(str(tmp_path))
    texts = TEXTS[:3]
    expected = CrossEncoder(str(tmp_path), device="cpu").predict(
        [(QUERY, text) for text in texts], activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
    )
    assert max(abs(expected - reference(checkpoint("bert-1"), QUERY, texts))) > 0.01
    assert scores(f"cross-encoder:{tmp_path}", texts) == pytest.approx(expected, abs=TORCH)


@pytest.mark.parametrize("place", ["onnx/model.onnx", "odd.onnx"])
def test_the_graph_may_lie_elsewhere(checkpoint: Build, tmp_path: Path, place: str) -> None:
    """In the folder that hub repositories use, or under the name given."""
    folder = copy_of(checkpoint("bert-2"), tmp_path)
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / place)
    options = {"file_name": place} if place == "odd.onnx" else {}
    assert scores(f"onnx:{folder}", **options) == pytest.approx(scores(f"onnx:{checkpoint('bert-2')}"), abs=1e-6)


@pytest.mark.parametrize(
    "change", [{"model_input_names": ["input_ids", "attention_mask"]}, {"tokenizer_class": "TokenizersBackend"}]
)
def test_a_tokenizer_without_token_types_gives_zeros(
    checkpoint: Build, tmp_path: Path, change: dict[str, Any]
) -> None:
    """As transformers does, which leaves them out: the graph has that input all the same."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    expected = reference(folder, QUERY, TEXTS)
    assert max(map(abs, map(float.__sub__, expected, reference(checkpoint("bert-1"), QUERY, TEXTS)))) > 0.01
    assert scores(f"cross-encoder:{folder}") == pytest.approx(expected, abs=TORCH)
    assert scores(f"onnx:{folder}") == pytest.approx(expected, abs=ONNX)


@pytest.mark.parametrize("shape", SHAPES)
def test_positions_bound_the_length_where_the_tokenizer_states_none(
    checkpoint: Build, tmp_path: Path, shape: Shape
) -> None:
    """XLM-R never uses its first positions, which BERT does; longer input would be an index out of range."""
    folder = copy_of(checkpoint(shape), tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": int(1e30)}))
    assert scores(f"onnx:{folder}") == pytest.approx(scores(f"onnx:{checkpoint(shape)}"), abs=1e-6)


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
@pytest.mark.parametrize("shape", ["bert-1", "xlmr-1"])
def test_more_tokens_than_the_model_has_positions_for_are_refused(
    checkpoint: Build, shape: Shape, provider: str
) -> None:
    """When it is loaded, with the limit, which is not always the configuration's; as many as there are will do."""
    name, positions = f"{provider}:{checkpoint(shape)}", 64
    with pytest.raises(ConfigurationError, match=f"max_length is 65, and the model has positions for {positions}"):
        scores(name, max_length=positions + 1)
    longest = scores(name, ["memory " * 500], max_length=positions)
    assert longest == pytest.approx(scores(name, ["memory " * 500]), abs=1e-6)


@pytest.mark.parametrize("pad_token", ["[PAD]", {"content": "[PAD]", "lstrip": False}, None, "no such token"])
def test_the_padding_token_is_found_however_it_is_written(
    checkpoint: Build, tmp_path: Path, pad_token: Any
) -> None:
    """A string, a dictionary as older files have it, or only its id in ``config.json``."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": pad_token}))
    assert scores(f"onnx:{folder}") == pytest.approx(scores(f"onnx:{checkpoint('bert-1')}"), abs=1e-6)


def test_a_model_without_its_configuration_files_still_runs(checkpoint: Build, tmp_path: Path) -> None:
    """The graph and ``tokenizer.json`` are enough, within 512 tokens."""
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(checkpoint("bert-1") / name, tmp_path)
    short = [text for text in TEXTS if len(text) < 100]
    assert scores(f"onnx:{tmp_path}", short) == pytest.approx(
        scores(f"onnx:{checkpoint('bert-1')}", short), abs=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_weights_of_another_precision_score_nearly_the_same(checkpoint: Build, dtype: str) -> None:
    """The scores are compared after upcasting."""
    folder = checkpoint("bert-1")
    found = scores(f"cross-encoder:{folder}", dtype=dtype, device="cpu")
    assert found == pytest.approx(reference(folder, QUERY, TEXTS), abs=0.1 if dtype == "bfloat16" else TORCH)


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_the_number_of_threads_changes_no_score(checkpoint: Build, provider: str) -> None:
    """Torch keeps one such number for the process, which is put back here."""
    import torch

    before = torch.get_num_threads()
    try:
        name = f"{provider}:{checkpoint('xlmr-1')}"
        assert scores(name, threads=1) == pytest.approx(scores(name, threads=2), abs=1e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_usage_counts_the_tokens_read(checkpoint: Build, provider: str) -> None:
    """Truncated ones left out, padding left out, both libraries alike."""
    ranking = Reranker(f"{provider}:{checkpoint('bert-1')}").rerank(QUERY, ["memory " * 500, "memory " * 600])
    assert ranking.usage.tokens == 2 * MAX_LENGTH


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        ("onnx", {"max_length": 0}, "max_length is 0: give a whole number of at least 1"),
        ("onnx", {"tokens_per_batch": -1}, "tokens_per_batch is -1"),
        ("onnx", {"threads": 1.5}, "threads is 1.5"),
        ("onnx", {"threads": True}, "threads is True"),
        ("cross-encoder", {"max_length": "64"}, "max_length is '64'"),
        ("cross-encoder", {"tokens_per_batch": 0}, "tokens_per_batch is 0"),
        ("cross-encoder", {"threads": 0}, "threads is 0"),
        ("cross-encoder", {"dtype": "int8"}, "dtype is 'int8': give one of auto, float32, float16, bfloat16"),
    ],
)
def test_an_option_out_of_range_is_refused(provider: str, options: dict[str, Any], message: str) -> None:
    """When the scorer is made, with its value and what it may be."""
    with pytest.raises(ConfigurationError, match=message):
        load_scorer(f"{provider}:some/model", **options)


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
@pytest.mark.parametrize("model", ["", "/no/such/folder", "./no-such-folder", "owner/name/too/deep"])
def test_a_folder_that_does_not_exist_is_named(provider: str, model: str) -> None:
    """On first use; without a model the error says what to give."""
    expected = (
        "names no model: give"
        if not model
        else "no-such-folder"
        if "no-such" in model
        else "|".join(["there is no folder", "cannot be loaded"])
    )
    with pytest.raises(ConfigurationError, match=expected):
        scores(f"{provider}:{model}")


def test_a_folder_without_a_graph_says_what_to_do(checkpoint: Build, tmp_path: Path) -> None:
    """It names the folder, the files looked for, and the other way to run such a folder."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    (folder / "model.onnx").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ConfigurationError,
        match=rf"{folder} has no model.onnx or .* or model.safetensors; it has config.*'cross-encoder:'",
    ):
        scores(f"onnx:{folder}")
    with pytest.raises(ConfigurationError, match=rf"{folder} has no other.onnx"):
        scores(f"onnx:{folder}", file_name="other.onnx")


def test_a_folder_without_a_tokenizer_says_what_to_do(checkpoint: Build, tmp_path: Path) -> None:
    """It names the folder and the file."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigurationError, match=rf"{folder} has no tokenizer.json: save the tokenizer there"):
        scores(f"onnx:{folder}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"this is no graph", "wire type 4"),
        (b"\x00" * 1000, "it holds no graph"),
        (b"\xff" * 2_000_000, "has more than 10 bytes"),
    ],
    ids=["empty", "text", "zeros", "number"],
)
def test_a_corrupt_graph_is_refused(checkpoint: Build, tmp_path: Path, content: bytes, reason: str) -> None:
    """The error names the file and the reason."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"{folder}/model.onnx cannot be loaded .*{reason}"):
        scores(f"onnx:{folder}")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_corrupt_file_beside_the_graph_is_refused(checkpoint: Build, tmp_path: Path, name: str) -> None:
    """The error names the file."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    (folder / name).write_text("{ this is no JSON")
    with pytest.raises(ConfigurationError, match=f"{folder}/{name}"):
        scores(f"onnx:{folder}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_torch_cannot_load_is_refused(checkpoint: Build, tmp_path: Path, name: str) -> None:
    """The error names the folder and what it should be; the library's own error is the cause."""
    folder = copy_of(checkpoint("bert-1"), tmp_path)
    (folder / name).unlink()
    with pytest.raises(
        ConfigurationError, match=f"cross-encoder:{folder}: cannot be loaded as a cross-encoder"
    ) as caught:
        scores(f"cross-encoder:{folder}")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
@pytest.mark.parametrize("options", [{}, {"local_files_only": True}])
def test_a_hub_id_offline_says_how_to_use_a_folder(provider: str, options: dict[str, bool]) -> None:
    """The tests run with the hub switched off, as an air-gapped machine does."""
    with pytest.raises(ScorerUnavailableError) as caught:
        scores(f"{provider}:someone/some-model", **options)
    assert f"{provider}:someone/some-model: could not be fetched from the hub" in str(caught.value)
    assert "hf download someone/some-model --local-dir FOLDER" in str(caught.value)
    assert caught.value.__cause__ is not None
