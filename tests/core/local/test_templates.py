"""Prompts of language models: which one counts, how long texts are cut, and how options change scores."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.causal import CAUSAL_LENGTH, byte_tokenizer
from support.families import FAMILIES
from support.models import QUERY, TEXTS, Shape, quiet

from rerank_core import ConfigurationError, Reranker, load_scorer
from rerank_core.local.checkpoint import Checkpoint, find_local_facts
from rerank_core.local.tokens import TemplateTokenizer, check_template
from rerank_core.local.torch.loading import to_chat_template
from rerank_core.model_facts import MODELS, ModelFacts

Build = Callable[[Shape], Path]
TEMPLATE = "<|im_start|>{instruction}\n{query}\n{document}<|im_end|>\nanswer:"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a decoder classifier whose prompt is known by its name."""
    folder = tmp_path_factory.mktemp("decoder")
    (family,) = (family for family in FAMILIES if family.name == "Qwen3-Reranker as classifier")
    family.build(folder)
    return folder


def scores(name: str, texts: Any = TEXTS, **options: Any) -> list[float]:
    """Return the scores of a scorer."""
    with quiet():
        return [float(score) for score in Reranker(load_scorer(name, **options)).rerank(QUERY, texts).scores]  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [None, 180, 140])
def test_long_texts_are_cut_alike_on_torch_and_onnx(decoder: Path, length: int | None) -> None:
    """The end of the prompt stays, to which the model answers."""
    torch, onnx = (scores(f"{provider}:{decoder}", max_length=length) for provider in ("cross-encoder", "onnx"))
    assert onnx == pytest.approx(torch, abs=1e-4)


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_an_option_replaces_the_prompt(decoder: Path, provider: str) -> None:
    """Template and instruction, with the same scores on either runtime."""
    usual = scores(f"{provider}:{decoder}", TEXTS[:3])
    for options in ({"template": TEMPLATE}, {"instruction": "Find recipes"}):
        found = scores(f"{provider}:{decoder}", TEXTS[:3], **options)
        assert found != pytest.approx(usual, abs=1e-3)
        assert found == pytest.approx(scores(f"cross-encoder:{decoder}", TEXTS[:3], **options), abs=1e-4)


def test_an_instruction_without_a_place_is_refused(checkpoint: Build) -> None:
    """On ONNX, where a model of plain pairs has none either."""
    with pytest.raises(ConfigurationError, match="the model follows no instruction"):
        scores(f"onnx:{checkpoint('bert-1')}", instruction="Find recipes")


def test_a_prompt_keeps_its_end() -> None:
    """Of a text that is too long the last tokens go, those behind it stay."""
    tokenizer = byte_tokenizer(None).backend_tokenizer
    pairs = TemplateTokenizer(tokenizer, TEMPLATE, "Judge.", max_length=40, pad_id=0)
    whole = TemplateTokenizer(tokenizer, TEMPLATE, "Judge.", max_length=10_000, pad_id=0)
    for text in ("memory " * 500, "日本語のテキスト" * 100, " " * 3000 + "memory", "x" * 5000):
        (cut,), (full,) = pairs.pairs("a query", [text]), whole.pairs("a query", [text])
        tail = tokenizer.encode("<|im_end|>\nanswer:", add_special_tokens=False).ids
        assert cut.ids.tolist() == [*full.ids[: 40 - len(tail)].tolist(), *tail]
    assert pairs.max_text_tokens("a query") == 40 - len(whole.pairs("a query", [""])[0])
    (short,) = pairs.pairs("a query", ["memory"])
    assert tokenizer.decode(short.ids.tolist(), skip_special_tokens=False) == (
        "<|im_start|>Judge.\na query\nmemory<|im_end|>\nanswer:"
    )


def test_a_chat_template_renders_the_same_prompt() -> None:
    """Quotes, line ends, doubled braces and words of other scripts included."""
    import jinja2

    template = "\"A\" 'B' {{x}} é日\n{instruction}|{query}|{document}\n"
    rendered = jinja2.Template(to_chat_template(template, 'say "yes"')).render(
        messages=[{"role": "query", "content": "q{{"}, {"role": "document", "content": "d\n"}]
    )
    assert rendered == template.format(instruction='say "yes"', query="q{{", document="d\n")


@pytest.mark.parametrize(
    "template",
    ["{query}", "{document}", "{query} {document} {other}", "{query} {document} {query}", "{query", "{}"],
)
def test_a_template_without_its_places_is_refused(template: str) -> None:
    """When the scorer is made."""
    with pytest.raises(ConfigurationError, match="template needs {query} and {document}"):
        check_template(template)
    with pytest.raises(ConfigurationError, match="template needs"):
        load_scorer("onnx:any/model", template=template)


def checkpoint_of(folder: Path, *, chat_template: str = "", saved_here: bool = False, **config: Any) -> Checkpoint:
    """Return a checkpoint that is a configuration alone."""
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", **config}))
    if chat_template:
        (folder / "chat_template.jinja").write_text(chat_template)
    if saved_here:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))
    return Checkpoint(folder)


PAIRS = "{% for m in messages if m.role in ('query', 'document') %}{{ m.content }}{% endfor %}"
CHAT = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
KNOWN = ModelFacts(template="{query}{document}")


def test_an_option_comes_first_then_the_exact_name_the_files_and_a_prefix(tmp_path: Path) -> None:
    """For a hub id; its prompt in the table counts where the files have none for pairs."""
    files = checkpoint_of(tmp_path, chat_template=PAIRS)
    gemma, qwen3 = MODELS["bge-reranker-v2-gemma"], MODELS["qwen3-reranker*"]
    assert files.find_template("{query} {document}", "BAAI/bge-reranker-v2-gemma", gemma) == "{query} {document}"
    assert files.find_template(None, "BAAI/bge-reranker-v2-gemma", gemma) == gemma.template
    assert files.find_template(None, "Qwen/Qwen3-Reranker-0.6B", qwen3) is None
    for number, values in enumerate(({}, {"chat_template": CHAT}, {"chat_template": CHAT, "saved_here": True})):
        (tmp_path / str(number)).mkdir()
        other = checkpoint_of(tmp_path / str(number), **values)  # type: ignore[arg-type]
        assert other.find_template(None, "someone/Qwen3-Reranker-0.6B-seq-cls", qwen3) == qwen3.template


def test_a_folder_is_known_by_its_files_and_its_original_name(tmp_path: Path) -> None:
    """Not by the name of the folder."""
    folder = tmp_path / "zerank-2"
    folder.mkdir()
    checkpoint_of(folder)
    assert find_local_facts(str(folder)) == ModelFacts()
    checkpoint_of(folder, _name_or_path="zeroentropy/zerank-2")
    assert find_local_facts(str(folder)).temperature == 5.0
    checkpoint_of(folder, architectures=["JinaForRanking"])
    assert find_local_facts(str(folder)).unsupported is not None


def test_what_was_trained_without_a_prompt_needs_none(tmp_path: Path) -> None:
    """As sentence-transformers saves it; encoders never need one."""
    assert checkpoint_of(tmp_path, saved_here=True).find_template(None, "own/model", ModelFacts()) is None
    (tmp_path / "bert").mkdir()
    encoder = checkpoint_of(tmp_path / "bert", model_type="bert")
    assert encoder.find_template(None, "own/model", KNOWN) is None


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
def test_scale_and_temperature_are_options(checkpoint: Build, provider: str) -> None:
    """A logit is divided before the sigmoid; a probability or a cosine is taken as it is."""
    name = f"{provider}:{checkpoint('bert-1')}"
    logits = [math.log(score / (1 - score)) for score in scores(name)]
    warm = [1 / (1 + math.exp(-logit / 4)) for logit in logits]
    assert scores(name, temperature=4) == pytest.approx(warm, abs=1e-5)
    assert load_scorer(name, score_scale="cosine").scale == "cosine"
    assert load_scorer(name, score_scale="logit").scale == load_scorer(name).scale == "logit"
    for options, message in (
        ({"temperature": 0}, "temperature is 0"),
        ({"score_scale": "x"}, "score_scale is 'x'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_scorer(name, **options)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("jinaai/jina-reranker-v2-base-multilingual", "does not run with transformers 5: use 'onnx:'"),
        ("Alibaba-NLP/gte-multilingual-reranker-base", "does not run with transformers 5: use 'onnx:'"),
        ("BAAI/bge-reranker-v2-minicpm-layerwise", "picks layers and compresses tokens"),
        ("zeroentropy/zerank-1-small", "replaces CrossEncoder.predict"),
        ("jinaai/jina-reranker-v3", "its own code ranks all texts together: use the service 'jina:'"),
    ],
)
def test_a_model_that_torch_cannot_run_is_refused_by_name(model: str, reason: str) -> None:
    """Before anything is fetched, with what to use instead."""
    with pytest.raises(ConfigurationError, match=reason):
        Reranker(load_scorer(f"cross-encoder:{model}", local_files_only=True)).warm_up()


def test_what_is_known_of_a_models_scores_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, when it is loaded."""
    (family,) = (family for family in FAMILIES if family.name == "Qwen3-Reranker (yes and no)")
    family.build(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "_name_or_path": "ContextualAI/ctxl-rerank-v2-1b"})
    )
    with caplog.at_level(logging.WARNING, "rerank_core"):
        scores(f"cross-encoder:{tmp_path}", TEXTS[:2])
    (record,) = (record for record in caplog.records if record.name == "rerank_core")
    assert "its logits are not centred" in record.getMessage()


def test_the_checkpoints_read_more_than_the_prompt(decoder: Path) -> None:
    """What the tests above rely on: some texts are cut, and not all."""
    tokenizer = byte_tokenizer(None)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert min(lengths) < 10
    assert max(lengths) > CAUSAL_LENGTH / 2
