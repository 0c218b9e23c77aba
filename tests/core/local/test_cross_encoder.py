"""The torch path: how a model's tokens are read, on which devices it runs, and language models that judge."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.causal import CAUSAL_LENGTH, build_causal
from support.models import QUERY, TEXTS, Shape, build_checkpoint, quiet

from rerank_core import ConfigurationError, Reranker, load_scorer
from rerank_core.local.torch import scorer as torch_scorer
from rerank_core.local.torch.scorer import CrossEncoderScorer

Build = Callable[[Shape], Path]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny CausalLM reranker."""
    return build_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny BERT with one label."""
    return build_checkpoint(tmp_path_factory.mktemp("bert"))


def scores(folder: Path, texts: Sequence[str] = TEXTS, query: str = QUERY, **options: Any) -> list[float | None]:
    """Return the scores of a scorer, in the order of the texts."""
    return list(Reranker(load_scorer(f"cross-encoder:{folder}", **options)).rerank(query, texts).scores)


def expected(
    folder: Path, texts: Sequence[str] = TEXTS, query: str = QUERY, *, prompt: str | None = None, **options: Any
) -> list[float]:
    """Return the probabilities that sentence-transformers predicts."""
    import torch
    from sentence_transformers import CrossEncoder

    with quiet():
        model = CrossEncoder(str(folder), device="cpu", **options)
    pairs = [(query, text) for text in texts]
    predicted = model.predict(pairs, prompt=prompt, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
    return [float(score) for score in predicted]


def reader(folder: Path) -> Any:
    """Return what reads for a model."""
    from sentence_transformers import CrossEncoder

    from rerank_core.local.torch.readers import choose_reader

    with quiet():
        return choose_reader(CrossEncoder(str(folder), device="cpu"), instruction=None)


def changed(folder: Path, target: Path, name: str, **values: Any) -> Path:
    """Copy a model, with other values in one of its files."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    path = target / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return target


@pytest.mark.parametrize("options", [{}, {"tokens_per_batch": 1}, {"max_length": 160}, {"device": ["cpu", "cpu"]}])
def test_a_language_model_scores_as_sentence_transformers(causal: Path, options: dict[str, Any]) -> None:
    """Yes less no, after its chat template, on texts that fit and on some that do not."""
    length = {"max_length": options["max_length"]} if "max_length" in options else {}
    wanted = expected(causal, **length)
    assert max(wanted) - min(wanted) > 0.05
    assert scores(causal, **options) == pytest.approx(wanted, abs=TOLERANCE)


def test_a_template_keeps_its_end(causal: Path) -> None:
    """What is too long is cut from the text: the tokens that the answer follows are never cut."""
    read = reader(causal)
    short, long = read.tokenize(QUERY, ["", "memory " * 500])
    assert type(read).__name__ == "_RowReader"
    assert len(short) < len(long) == CAUSAL_LENGTH
    assert long.columns["input_ids"][-8:] == short.columns["input_ids"][-8:]
    assert read.max_text_tokens(QUERY) == pytest.approx(len(long) - len(short), abs=2)


def test_a_language_model_gets_padding_on_the_left(causal: Path) -> None:
    """So that the last position of each row is what it answers to; its positions begin behind the padding."""
    read = reader(causal)
    features = read.features(read.tokenize("?", ["a", "memory leak"]))
    mask = features["attention_mask"].tolist()
    assert [row[-1] for row in mask] == [1, 1]
    assert mask[0][0] == 0
    assert features["position_ids"][0].tolist() == [
        max(0, sum(mask[0][: place + 1]) - 1) for place in range(len(mask[0]))
    ]
    assert features["logits_to_keep"] == 1


def test_an_instruction_replaces_the_usual_one(causal: Path) -> None:
    """As a prompt does in sentence-transformers; another instruction, other scores."""
    found = scores(causal, instruction="Find recipes")
    assert found == pytest.approx(expected(causal, prompt="Find recipes"), abs=TOLERANCE)
    assert found != pytest.approx(scores(causal), abs=1e-3)


def test_an_instruction_replaces_a_saved_prompt(bert: Path, tmp_path: Path) -> None:
    """Of a model without a template, whose prompt stands before the query."""
    with quiet():
        from sentence_transformers import CrossEncoder

        saved = CrossEncoder(str(bert), prompts={"find": "memory: "}, default_prompt_name="find", device="cpu")
        saved.save_pretrained(str(tmp_path))
    found = scores(tmp_path, instruction="weather: ")
    assert found == pytest.approx(expected(bert, query=f"weather: {QUERY}"), abs=TOLERANCE)


def test_an_instruction_that_nothing_reads_is_refused(bert: Path, tmp_path: Path) -> None:
    """By a model without a template and prompts, and by a template that leaves it out."""
    template = "{% for message in messages if message.role != 'system' %}{{ message.content }} {% endfor %}"
    deaf = build_causal(tmp_path, template=template)
    for folder in (bert, deaf):
        with pytest.raises(ConfigurationError, match="follows no instruction: leave out instruction="):
            scores(folder, instruction="Find recipes")
    assert scores(deaf) == pytest.approx(expected(deaf), abs=TOLERANCE)


def test_plain_pairs_are_put_together_from_ids(checkpoint: Build) -> None:
    """With the token types that the model's tokenizer gives, or without."""
    bert, xlmr = reader(checkpoint("bert-1")), reader(checkpoint("xlmr-1"))
    assert {type(read).__name__ for read in (bert, xlmr)} == {"_PairReader"}
    assert bert.features(bert.tokenize("a", ["b"]))["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]
    assert bert.max_text_tokens(QUERY) == 64 - len(bert.tokenize(QUERY, [""])[0])
    assert len(bert.token_ends(["memory leak"], 1)[0]) == 1


def test_padding_on_the_left_changes_no_score_of_an_encoder(bert: Path, tmp_path: Path) -> None:
    """A tokenizer that pads there is read row by row, and scores as sentence-transformers."""
    folder = changed(bert, tmp_path, "tokenizer_config.json", padding_side="left")
    assert type(reader(folder)).__name__ == "_RowReader"
    texts = [TEXTS[0]]
    assert scores(folder, texts) == pytest.approx(expected(folder, texts), abs=TOLERANCE)


def test_a_model_of_other_modules_reads_for_itself(bert: Path, tmp_path: Path) -> None:
    """A first module that knows nothing of rows gets its batches from the model's own ``preprocess``."""
    from sentence_transformers import CrossEncoder

    with quiet():
        model = CrossEncoder(str(bert), device="cpu")
    own = model[0].preprocess
    model[0].preprocess = lambda inputs, prompt=None: own(inputs, prompt=prompt)
    model.tokenizer.padding_side = "left"
    from rerank_core.local.torch.readers import choose_reader

    read = choose_reader(model, instruction=None)
    assert type(read).__name__ == "_LibraryReader"
    items = read.tokenize(QUERY, TEXTS)
    assert max(map(len, items)) == read.features(items)["input_ids"].shape[1] == 64
    assert read.max_text_tokens(QUERY) == 64 - len(read.tokenize(QUERY, [""])[0])
    assert len(read.token_ends(["memory leak"], 1)[0]) == 1


@pytest.mark.parametrize("shape", ["bert-1", "bert-2", "xlmr-1"])
@pytest.mark.parametrize("tokens", [1, 200, None])
def test_several_devices_score_as_one(checkpoint: Build, shape: Shape, tokens: int | None) -> None:
    """The same model twice on one CPU, in batches of one pair, of some, and of all."""
    folder = checkpoint(shape)
    two = scores(folder, device=["cpu", "cpu"], tokens_per_batch=tokens)
    assert two == pytest.approx(scores(folder, device="cpu", tokens_per_batch=tokens), abs=TOLERANCE)


def test_a_failing_device_fails_the_call_and_no_other(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is raised once, nothing hangs, and the next call is served."""
    run = torch_scorer._run

    def fail_on_long(model: Any, features: Any) -> Any:
        if features["input_ids"].shape[1] > 50:
            raise RuntimeError("out of memory")
        return run(model, features)

    monkeypatch.setattr(torch_scorer, "_run", fail_on_long)
    reranker = Reranker(load_scorer(f"cross-encoder:{bert}", device=("cpu", "cpu")))
    long = "memory " * 100

    async def calls() -> list[Any]:
        return await asyncio.wait_for(
            asyncio.gather(
                *(reranker.arerank(QUERY, texts) for texts in ([long, "a"], [long, long])), return_exceptions=True
            ),
            timeout=60,
        )

    assert all(isinstance(outcome, Exception) for outcome in asyncio.run(calls()))
    assert reranker.rerank(QUERY, ["a", "b", "c"]).scores == pytest.approx(scores(bert, ["a", "b", "c"]), abs=1e-6)


def test_a_list_of_devices_is_as_good_as_a_tuple(bert: Path) -> None:
    """Scorers with the one and the other share an engine."""
    listed, tupled = (CrossEncoderScorer(str(bert), device=kind(["cpu", "cpu"])) for kind in (list, tuple))
    assert listed.engine is tupled.engine


def test_attention_is_passed_on(bert: Path) -> None:
    """Another implementation scores the same; one that does not exist is refused, with its name."""
    assert scores(bert, attention="eager") == pytest.approx(scores(bert, attention="sdpa"), abs=1e-5)
    with pytest.raises(ConfigurationError, match="attention='no_such_attention'"):
        scores(bert, attention="no_such_attention")


def test_an_unknown_device_is_refused(bert: Path) -> None:
    """On first use, with its name."""
    with pytest.raises(ConfigurationError, match="device='abacus'"):
        scores(bert, device=["abacus"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": []}, r"device is \(\): give 'cpu'"),
        ({"device": ["cpu", None]}, r"device is \('cpu', None\)"),
        ({"device": ""}, "device is ''"),
        ({"attention": 2}, "attention is 2: give a text that is not blank"),
        ({"instruction": " "}, "instruction is ' ': give a text that is not blank"),
        ({"tokens_per_batch": 0}, "tokens_per_batch is 0"),
    ],
)
def test_an_option_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    """When the scorer is made."""
    with pytest.raises(ConfigurationError, match=message):
        load_scorer("cross-encoder:some/model", **options)


def test_the_cpu_gets_small_batches(bert: Path) -> None:
    """1,024 tokens, times the devices, unless the options say otherwise."""
    for options, tokens in (({}, 1024), ({"device": ["cpu", "cpu"]}, 2048), ({"tokens_per_batch": 9}, 9)):
        with quiet():
            model = load_scorer(f"cross-encoder:{bert}", **options).load()  # type: ignore[attr-defined]
        assert model.tokens_per_batch == tokens
