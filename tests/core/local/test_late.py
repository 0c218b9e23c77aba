"""ColBERT checkpoints: sentence-transformers' own scores in every layout and runtime, stored vectors, refusals."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support.colbert
from support.colbert import LAYOUTS, WIDTH, Layout, build_colbert, export_colbert, library_scores
from support.models import QUERY, TEXTS, quiet
from support.scripts import run_script

from rerank_core import ConfigurationError, Ranking, Reranker, load_scorer
from rerank_core.local.late.encoding import TextForm
from rerank_core.local.late.scorer import ColbertScorer
from rerank_core.policies import Windowed
from rerank_core.serialization import dump_reranker, restore_reranker
from rerank_core.vectors import VectorFile

Build = Callable[[Layout], Path]
LONG_QUERY = "memory leak in Python, found by tracing " * 3


def rank(folder: Path, query: str = QUERY, **options: Any) -> Ranking[str]:
    """Return the ranking of a checkpoint."""
    with quiet():
        return Reranker(load_scorer(f"late:{folder}", **options)).rerank(query, TEXTS)


def cosines(ranking: Ranking[str]) -> list[float]:
    """Return the mean best matches that scores were made of, in the order of the texts."""
    scores = {row.index: row.score for row in ranking}
    return [2 * float(scores[index] or 0) - 1 for index in range(len(scores))]


@pytest.mark.parametrize("query", [QUERY, LONG_QUERY])
@pytest.mark.parametrize("options", [{}, {"device": "cpu"}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_the_library(
    colbert: Build, layout: Layout, options: dict[str, Any], query: str
) -> None:
    """Its mean MaxSim, with markers, expansion, skiplist and lengths as the files say; without torch and on it."""
    assert cosines(rank(colbert(layout), query, **options)) == pytest.approx(
        library_scores(colbert(layout), query, TEXTS), abs=1e-4
    )


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("stanford", {"attend_to_mask_tokens": True, "mask_punctuation": False, "query_maxlen": 40}),
        ("stanford", {"query_token_id": None, "doc_maxlen": 12}),
        ("pylate", {"attend_to_expansion_tokens": True, "skiplist_words": None, "document_prefix": "passage: "}),
        ("pylate", {"do_query_expansion": False, "model_type": "ColBERT", "prompts": {"document": "[D] read: "}}),
        ("pylate", {"query_prefix": "", "model_type": "ColBERT"}),
        ("pylate-modernbert", {"do_query_expansion": True}),
        ("native", {"prompts": {}}),
    ],
)
def test_every_setting_counts(tmp_path: Path, layout: Layout, settings: dict[str, Any]) -> None:
    """As it does in the library."""
    folder = build_colbert(tmp_path, layout, **settings)
    assert cosines(rank(folder)) == pytest.approx(library_scores(folder, QUERY, TEXTS), abs=1e-4)


def test_texts_are_put_into_lower_case_where_the_files_say_so(tmp_path: Path) -> None:
    """Also where the tokenizer alone would not."""
    folder = build_colbert(tmp_path, "native")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps({**settings, "do_lower_case": True}))
    assert cosines(rank(folder)) == cosines(rank(folder, QUERY.upper()))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layout", ["stanford", "pylate-modernbert"])
def test_an_onnx_file_with_the_projection_is_used(
    colbert: Build, tmp_path: Path, layout: Layout, runtime: str
) -> None:
    """As the vendors export it; the checkpoint's weights are not needed."""
    folder = tmp_path / "model"
    shutil.copytree(colbert(layout), folder)
    export_colbert(folder, folder / "vespa_colbert.onnx")
    expected = library_scores(folder, QUERY, TEXTS)
    (folder / "model.safetensors").unlink()
    assert cosines(rank(folder, runtime=runtime)) == pytest.approx(expected, abs=1e-4)


def test_an_export_of_pylate_needs_no_other_files(colbert: Build, tmp_path: Path) -> None:
    """``pylate-onnx-export`` writes the graph, the tokenizer and ``onnx_config.json``."""
    folder = colbert("pylate")
    export_colbert(folder, tmp_path / "model.onnx")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    mask = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "[MASK]")
    saved = json.loads((folder / "config_sentence_transformers.json").read_text())
    shutil.copy(folder / "tokenizer.json", tmp_path)
    (tmp_path / "onnx_config.json").write_text(
        json.dumps({**saved, "model_type": "ColBERT", "mask_token_id": mask, "embedding_dim": WIDTH})
    )
    assert cosines(rank(tmp_path)) == pytest.approx(library_scores(folder, QUERY, TEXTS), abs=1e-4)


def test_torch_is_not_imported_where_the_files_do_without(colbert: Build, tmp_path: Path) -> None:
    """From the weights of a BERT, and from an ONNX file."""
    folder = tmp_path / "model"
    shutil.copytree(colbert("pylate-modernbert"), folder)
    export_colbert(folder, folder / "model.onnx")
    script = (
        "import sys\nfrom rerank_core import Reranker\n"
        "for folder in sys.argv[1:]:\n    Reranker(f'late:{folder}').rerank('a', ['b', 'c'])\n"
        "print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    )
    assert run_script(script, str(colbert("stanford")), str(folder)).strip() == "set()"


def test_an_onnx_file_without_the_projection_is_left_alone(colbert: Build, tmp_path: Path) -> None:
    """As sentence-transformers exports it: torch runs the model, or it is refused."""
    folder = tmp_path / "model"
    shutil.copytree(colbert("pylate-modernbert"), folder)
    export_colbert(folder, folder / "model.onnx", projected=False)
    assert cosines(rank(folder)) == pytest.approx(library_scores(folder, QUERY, TEXTS), abs=1e-4)
    with pytest.raises(ConfigurationError, match="neither an ONNX file with its projection"):
        rank(folder, runtime="onnxruntime")


def test_int8_is_close_and_does_not_depend_on_the_batch(colbert: Build, tmp_path: Path) -> None:
    """Row by row from a BERT's weights; one text at a time with ONNX Runtime's quantised files."""
    folder = tmp_path / "model"
    shutil.copytree(colbert("stanford"), folder)
    for _ in range(2):
        scores = cosines(rank(folder, precision="int8", runtime="onnxruntime"))
        assert scores == pytest.approx(library_scores(folder, QUERY, TEXTS), abs=0.03)
        one = load_scorer(f"late:{folder}", precision="int8", runtime="onnxruntime", cache_bytes=0)
        alone = [cosines(Reranker(one).rerank(QUERY, [text]))[0] for text in TEXTS]
        assert alone == pytest.approx(scores, abs=1e-4)
        export_colbert(folder, folder / "model.onnx")


@pytest.mark.parametrize("pooling", [1, 2])
def test_stored_vectors_score_alike(colbert: Build, tmp_path: Path, pooling: int) -> None:
    """Just encoded and read again, close to the scores without a file; nothing is encoded twice."""
    options = {"vectors": str(tmp_path / "a"), "pooling": pooling}
    model = Reranker(load_scorer(f"late:{colbert('stanford')}", **options))
    assert model.precompute(TEXTS[:3]).documents == 3
    first, again = model.rerank(QUERY, TEXTS), rank(colbert("stanford"), **options)
    assert (first.usage.stored, again.usage.stored) == (3, len(TEXTS))
    assert cosines(first) == pytest.approx(cosines(again), abs=1e-6)
    assert cosines(first) == pytest.approx(cosines(rank(colbert("stanford"))), abs=0.005 if pooling == 1 else 0.1)


def test_what_changes_vectors_changes_the_key(colbert: Build, tmp_path: Path) -> None:
    """Weights, lengths and markers do; where the folder lies, and how many threads there are, do not."""
    file = VectorFile(tmp_path / "a")
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(colbert("stanford"), moved)
    shutil.copytree(colbert("stanford"), other)
    metadata = json.loads((other / "artifact.metadata").read_text())
    (other / "artifact.metadata").write_text(json.dumps({**metadata, "doc_token_id": "[unused0]"}))
    rank(colbert("stanford"), vectors=file)
    assert rank(moved, vectors=file, threads=1).usage.stored == len(TEXTS)
    assert rank(moved, vectors=file, precision="fp32").usage.stored == len(TEXTS)
    assert rank(moved, vectors=file, max_length=10).usage.stored == 0
    assert rank(other, vectors=file).usage.stored == 0
    assert rank(colbert("pylate"), vectors=file).usage.stored == 0
    (moved / "pytorch_model.bin").write_bytes(b"other weights beside")
    assert rank(moved, vectors=file, threads=2).usage.stored == 0
    (moved / "model.safetensors").write_bytes(
        (colbert("stanford") / "model.safetensors").read_bytes()[:-1] + b"\1"
    )
    assert rank(moved, vectors=file, threads=2, cache_bytes=0).usage.stored == 0


def test_keys_of_stored_records_stay_what_they_were() -> None:
    """How documents are read is part of them, as this text."""
    text = "TextForm(prompt='[D] ', limit=9, filled=0, fill_id=0, attends=False, skipped=(3,))"
    assert repr(TextForm("[D] ", 9, skipped=(3,))) == text


def test_the_query_is_not_taken_for_a_document(colbert: Build) -> None:
    """Their vectors differ by marker and expansion, also where the cache has the same text."""
    model = Reranker(load_scorer(f"late:{colbert('pylate')}"))
    alone = model.rerank(TEXTS[2], [TEXTS[2]]).scores
    model.rerank(QUERY, TEXTS)
    assert model.rerank(TEXTS[2], [TEXTS[2]]).scores == pytest.approx(alone, abs=1e-6)
    assert float(alone[0] or 0) < 0.999


def test_lengths_and_tokens_are_reported(colbert: Build) -> None:
    """A marker and two special tokens beside the text; windows are as long as that leaves them."""
    model = Reranker(load_scorer(f"late:{colbert('pylate')}", max_length=12))
    assert model.rerank(QUERY, ["memory " * 150]).usage.tokens == 12
    windowed = Reranker(Windowed(ColbertScorer(str(colbert("pylate")), max_length=12)))
    passage = windowed.rerank(QUERY, ["weather. " * 30 + "memory leak"])[0].passage
    assert passage is not None
    assert passage.end - passage.start < 60


def test_copies_pickles_and_dumps_score_alike(colbert: Build, tmp_path: Path) -> None:
    """Their file of vectors comes along; a cache tells scores by pooling, not by the file's place."""
    model = Reranker(ColbertScorer(str(colbert("stanford")), vectors=tmp_path / "a"))
    scores = model.rerank(QUERY, TEXTS).scores
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), restore_reranker(dump_reranker(model))):
        ranking = other.rerank(QUERY, TEXTS)
        assert (ranking.scores, ranking.usage.stored) == (pytest.approx(scores, abs=1e-6), len(TEXTS))
    keys = {ColbertScorer("x", vectors=name, pooling=pooling).cache_key() for name in "ab" for pooling in (1, 2)}
    assert len(keys) == 2


@pytest.mark.parametrize("provider", ["cross-encoder", "onnx"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_scorers_name_this_one(colbert: Build, tmp_path: Path, layout: Layout, provider: str) -> None:
    """Given a ColBERT checkpoint, of which transformers would make a classifier with a random head."""
    folder = tmp_path / "model"
    shutil.copytree(colbert(layout), folder)
    if provider == "onnx":
        (folder / "model.onnx").write_bytes(export_colbert(folder, tmp_path / "graph").read_bytes())
    with quiet(), pytest.raises(ConfigurationError, match="for late interaction: use 'late:'"):
        Reranker(f"{provider}:{folder}").warm_up()


def test_what_is_no_colbert_checkpoint_is_refused(colbert: Build, checkpoint: Callable[..., Path]) -> None:
    """With what it looks like."""
    with pytest.raises(ConfigurationError, match="is not for late interaction: it looks like .*'cross-encoder:'"):
        rank(checkpoint("bert-1"))
    with pytest.raises(ConfigurationError, match="names no model: give a"):
        Reranker("late").warm_up()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config_sentence_transformers.json", {"model_type": None, "query_prefix": "[Q] "}, "has no projection"),
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": [5]}, "other tokens than those of its skiplist"),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "min", "length": 9, "token": "[NO]"}},
            "a token that tokenizer.json does not have",
        ),
        ("modules.json", [], "the model's modules are Transformer, Dense, MultiVectorMask: known are"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "in another way than its files say"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, name: str, changes: Any, message: str) -> None:
    """Before it scores otherwise than it was trained."""
    folder = build_colbert(tmp_path, "native")
    content = json.loads((folder / name).read_text())
    modules = json.loads((folder / "modules.json").read_text())
    (folder / name).write_text(json.dumps(modules[:-1] if name == "modules.json" else content | changes))
    if message == "has no projection":
        (folder / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(ConfigurationError, match=message):
        rank(folder, **({"device": "cpu", "max_length": 18} if "truncation" in str(changes) else {}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu", "precision": "int8"}, "device='cpu' is torch's: leave out"),
        ({"device": "cpu", "runtime": "openvino"}, "device='cpu' is torch's"),
        ({"device": "no-such-device"}, "cannot be loaded as a MultiVectorEncoder"),
        ({"pooling": 4}, "pooling"),
        ({"max_length": 0}, "max_length"),
        *(({"max_length": length}, "leaves no token of a document") for length in (1, 2, 3)),
        ({"runtime": "torch"}, "runtime"),
        ({"file_name": "model.onnx"}, "has no model.onnx"),
    ],
)
def test_options_that_cannot_be_are_refused(colbert: Build, options: dict[str, Any], message: str) -> None:
    """With what to do."""
    with pytest.raises(ConfigurationError, match=message):
        rank(colbert("stanford"), **options)


def test_a_hub_id_is_fetched_with_what_it_needs(colbert: Build, tmp_path: Path) -> None:
    """Settings, tokenizer, projection and weights, and nothing else; then it scores as its folder does."""
    folder = tmp_path / "model"
    shutil.copytree(colbert("pylate"), folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "README.md").write_text("")
    script = (
        "import os, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from support.hub import hub\n"
        "with hub('someone/colbert', Path(sys.argv[1])) as (address, asked):\n"
        "    os.environ['HF_ENDPOINT'] = address\n"
        "    from rerank_core import Reranker\n"
        "    for model in (sys.argv[1], 'someone/colbert'):\n"
        "        print(Reranker(f'late:{model}').rerank('memory leak', ['a leak', 'Paris']).scores)\n"
        "print('torch' in sys.modules, *{name.rpartition('/')[2] for name in asked if name.startswith('GET')})"
    )
    tests = str(Path(support.colbert.__file__).parents[1])
    env = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    *scores, fetched = run_script(script, str(folder), tests, env=env).splitlines()[-3:]
    assert scores[0] == scores[1]
    assert "model.safetensors" in fetched
    assert "README" not in fetched
    assert "pytorch_model.bin" not in fetched
    assert fetched.startswith("False")
