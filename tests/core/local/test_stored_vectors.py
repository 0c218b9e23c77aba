"""The embedded scorer with a vector file: equal scores before and after, what is stored, and broken files."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_core import ConfigurationError, InvalidResponseError, Reranker, ScorerUnavailableError, load_scorer
from rerank_core.local.embedded.encoder import Encoder
from rerank_core.local.embedded.scorer import EmbeddedScorer
from rerank_core.local.late.encoding import TokenVectors
from rerank_core.local.late.token_records import RecordProduct, pack_record, pool_tokens
from rerank_core.policies import Cached, Cascade, Windowed
from rerank_core.serialization import dump_reranker, restore_reranker
from rerank_core.vectors import VectorFile

QUERY = "How to fix Python memory leak"
TEXTS = [
    "Memory leak in Python applications",
    "Debugging memory issues in Python",
    "Python memory management basics",
    "Python programming tutorial",
    "The weather in Paris is lovely this time of year.",
]


def reranker(path: Path, **options: object) -> Reranker:
    """Return a reranker with a vector file."""
    return Reranker(load_scorer("embedded", vectors=str(path), **options))


def unit(generator: np.random.Generator, count: int) -> np.ndarray:
    """Return unit vectors of 384 numbers."""
    vectors = generator.standard_normal((count, 384)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", [1, 2, 3])
def test_a_text_scores_alike_just_encoded_and_stored(tmp_path: Path, pooling: int) -> None:
    """What is encoded for a query goes through the stored form too; the file outlives the scorer."""
    plain = Reranker("embedded").rerank(QUERY, TEXTS)
    with reranker(tmp_path / "a", pooling=pooling) as model:
        first = model.rerank(QUERY, TEXTS)
        some = model.rerank(QUERY, [*TEXTS[:3], "new"])
    again = reranker(tmp_path / "a", pooling=pooling).rerank(QUERY, TEXTS)
    assert [ranking.usage.stored for ranking in (plain, first, some, again)] == [0, 0, 3, 5]
    assert first.scores == pytest.approx(again.scores, abs=1e-6)
    assert first.scores[:3] == pytest.approx(some.scores[:3], abs=1e-6)
    assert first.scores == pytest.approx(plain.scores, abs=1e-3 if pooling == 1 else 0.05)
    assert [row.index for row in first] == [row.index for row in plain]


def test_scores_without_a_file_stay_as_they_are(tmp_path: Path) -> None:
    """Also where a scorer with a file shares the engine, and its memory of encoded texts."""
    plain, stored = EmbeddedScorer(), EmbeddedScorer(vectors=tmp_path / "a")
    before = Reranker(plain).rerank(QUERY, TEXTS).scores
    assert Reranker(stored).rerank(QUERY, TEXTS).scores != before
    assert Reranker(plain).rerank(QUERY, TEXTS).scores == before


def test_engines_are_shared_and_files_are_not(tmp_path: Path) -> None:
    """One model in memory, and each scorer fills its own file."""
    first, second = EmbeddedScorer(vectors=tmp_path / "a"), EmbeddedScorer(vectors=VectorFile(tmp_path / "b"))
    Reranker(first).warm_up()  # stores nothing
    Reranker(first).precompute(TEXTS)
    assert Reranker(second).rerank(QUERY, TEXTS[:2]).usage.stored == 0
    assert [VectorFile(tmp_path / name).stats().documents for name in "ab"] == [5, 2]
    assert len({id(scorer.engine) for scorer in (first, second, EmbeddedScorer())}) == 1


def test_what_changes_vectors_changes_the_key(tmp_path: Path) -> None:
    """Length, precision and pooling; an edited text is another one."""
    for options in ({}, {"max_length": 32}, {"pooling": 1}, {"precision": "int8"}):
        assert reranker(tmp_path / "a", **options).rerank(QUERY, TEXTS).usage.stored == 0
    assert reranker(tmp_path / "a", precision="fp32").rerank(QUERY, TEXTS).usage.stored == 5
    assert reranker(tmp_path / "a").rerank(QUERY, [TEXTS[0] + "."]).usage.stored == 0
    assert VectorFile(tmp_path / "a").stats().documents == 21
    assert VectorFile(tmp_path / "a").forget(TEXTS) == 20


def test_precompute_reads_pieces_and_reports_what_it_did(tmp_path: Path) -> None:
    """Blank and repeated texts take nothing; a generator is read as it goes; wrong positions are named."""
    model = reranker(tmp_path / "a")
    documents = [{"body": f"document {number % 300}"} for number in range(600)]
    usage = model.precompute(iter([*documents, {"body": " "}]), text_fn=lambda document: document["body"])
    assert (usage.documents, usage.stored) == (300, 300)
    assert asyncio.run(model.aprecompute(["document 1", "", "new"])).to_dict().items() >= {
        ("documents", 1),
        ("stored", 1),
    }
    assert model.precompute([]).documents == 0
    with pytest.raises(ConfigurationError, match=r"documents\[601\]"):
        model.precompute([*("x" * 601), 5])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="single str"):
        model.precompute("text")


def test_only_scorers_with_a_file_precompute(tmp_path: Path) -> None:
    """A policy passes texts on to those of its scorers that do; windows are no documents."""
    stored = EmbeddedScorer(vectors=tmp_path / "a")
    with pytest.raises(ConfigurationError, match="embedded: stores no vectors"):
        Reranker("embedded").precompute(TEXTS)
    for policy in (Cached("embedded"), Windowed(stored)):
        with pytest.raises(ConfigurationError, match="stores no vectors"):
            Reranker(policy).precompute(TEXTS)
    assert Reranker(Cached(Cascade([stored, "embedded"], keep=[5]))).precompute(TEXTS).documents == 5
    assert VectorFile(tmp_path / "a").stats().documents == 5


def test_copies_pickles_and_dumps_keep_the_file(tmp_path: Path) -> None:
    """A cache tells scores by the pooling, not by where the file is."""
    model = reranker(tmp_path / "a")
    model.precompute(TEXTS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), restore_reranker(dump_reranker(model))):
        assert other.rerank(QUERY, TEXTS).usage.stored == 5
    keys = [
        EmbeddedScorer(**options).cache_key()
        for options in ({}, {"vectors": "a"}, {"vectors": VectorFile("b")}, {"vectors": "a", "pooling": 1})
    ]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_a_damaged_record_is_encoded_anew(tmp_path: Path) -> None:
    """And stored again, with the same score."""
    with reranker(tmp_path / "a") as model:
        before = model.rerank(QUERY, TEXTS)
    connection = sqlite3.connect(tmp_path / "a")
    with connection:
        connection.execute("UPDATE vectors SET record = zeroblob(length(record)) WHERE id = 3")
    connection.close()
    after, again = (model.rerank(QUERY, TEXTS) for _ in range(2))
    assert (after.usage.stored, again.usage.stored) == (4, 5)
    assert after.scores == pytest.approx(before.scores, abs=1e-6)


def test_a_file_that_cannot_be_used_costs_time_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Filling it fails, though: that is what it is for."""
    (tmp_path / "a").write_text("a file, where a folder is needed")
    expected = reranker(tmp_path / "b").rerank(QUERY, TEXTS).scores
    model = reranker(tmp_path / "a" / "rerank.vectors")
    for _ in range(2):
        ranking = model.rerank(QUERY, TEXTS)
        assert ranking.scores == pytest.approx(expected, abs=1e-6)
        assert ranking.usage.stored == 0
    assert [record.message.count("documents are encoded for each query") for record in caplog.records] == [1]
    with pytest.raises(ScorerUnavailableError, match="embedded: the vector file .* cannot be used"):
        model.precompute(TEXTS)


def test_another_programs_file_is_an_error(tmp_path: Path) -> None:
    """It is a wrong option, not a fault to work around."""
    (tmp_path / "a").write_text("some text, which is no database at all" * 10)
    with pytest.raises(ConfigurationError, match="no vector file"):
        reranker(tmp_path / "a").rerank(QUERY, TEXTS)
    with pytest.raises(ConfigurationError, match="pooling is 4"):
        reranker(tmp_path / "a", pooling=4)


def test_a_text_without_tokens_has_the_mean_alone(tmp_path: Path) -> None:
    """A control character is not blank, and the tokenizer leaves nothing of it."""
    odd = [TEXTS[0], "\x01", TEXTS[1]]
    expected = Reranker("embedded").rerank(QUERY, odd).scores
    assert reranker(tmp_path / "a", pooling=1).rerank(QUERY, odd).scores == pytest.approx(expected, abs=1e-3)
    only = Reranker("embedded").rerank("\x01", odd).scores
    assert reranker(tmp_path / "a", pooling=1).rerank("\x01", odd).scores == pytest.approx(only, abs=1e-3)


def test_one_product_gives_each_records_best_matches() -> None:
    """Against numpy, on records of several lengths, one of them without tokens."""
    generator = np.random.default_rng(0)
    mean, tokens = unit(generator, 1)[0], unit(generator, 7)
    records = [(unit(generator, 1)[0], unit(generator, count)) for count in (5, 1, 0, 40)]
    cosines, best = RecordProduct(1).compare(mean, tokens, [pack_record(*record) for record in records])
    assert cosines == pytest.approx([float(mean @ each) for each, _ in records], abs=2e-3)
    for row, (_, stored) in zip(best.T, records, strict=True):
        expected = (tokens @ stored.T).max(axis=1) if len(stored) else np.zeros(7)
        assert row == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("pooling", [1, 2])
def test_vectors_that_are_no_numbers_are_an_error_and_are_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: int
) -> None:
    """Instead of a middling score, now and whenever they are found again."""
    finish = Encoder.finish

    def spoilt(self: Encoder, item: Any, vectors: Any) -> TokenVectors:
        if len(item) > 6:
            vectors = np.where(np.arange(len(item))[:, None] == 2, np.nan, vectors)
        return finish(self, item, vectors)

    monkeypatch.setattr(Encoder, "finish", spoilt)
    model = reranker(tmp_path / "a", pooling=pooling, cache_bytes=0)
    with pytest.raises(InvalidResponseError, match="no numbers for text 1$"):
        model.rerank("leak", ["tea", "a text of more than six tokens"])
    assert VectorFile(tmp_path / "a").stats().documents == 0
    with pytest.raises(InvalidResponseError, match="no numbers for the query"):
        model.rerank("a query of more than six tokens", ["tea"])


def test_a_text_is_forgotten_as_it_was_given(tmp_path: Path) -> None:
    """Also where a lone surrogate was replaced before it was encoded."""
    with reranker(tmp_path / "a") as model:
        model.precompute(["a leak\ud800"])
    assert VectorFile(tmp_path / "a").forget(["a leak\ud800"]) == 1
    with pytest.raises(ConfigurationError, match=r"documents\[0\] is None"):
        VectorFile(tmp_path / "a").forget([None])  # type: ignore[list-item]


def test_similar_tokens_are_pooled() -> None:
    """Three bundles of vectors become three unit vectors, each within its bundle."""
    generator = np.random.default_rng(0)
    centres = unit(generator, 3)
    bundle = np.repeat(centres, 4, axis=0) + 0.01 * generator.standard_normal((12, 384)).astype(np.float32)
    pooled = pool_tokens(bundle, 4)
    assert np.linalg.norm(pooled, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert (pooled @ centres.T).max(axis=0) == pytest.approx(np.ones(3), abs=0.05)
    assert pool_tokens(bundle, 1) is bundle
    assert [len(pool_tokens(bundle[:count], 2)) for count in (0, 1, 2, 3)] == [0, 1, 1, 2]


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_a_killed_precomputation_goes_on_where_it_was(tmp_path: Path) -> None:
    """Nothing that was stored is encoded again, and all of it scores as if nothing had happened."""
    texts = [f"document {number} about the number {number * 7}" for number in range(300)]
    source = """
import sys
from rerank_core import Reranker, load_scorer
texts = [f"document {number} about the number {number * 7}" for number in range(300)]
print(Reranker(load_scorer("embedded", vectors=sys.argv[1], tokens_per_batch=128)).precompute(texts).stored)
"""
    path = tmp_path / "a"
    stored = 0
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", source, str(path)], stdout=subprocess.PIPE, text=True)
        file = VectorFile(path)
        while writer.poll() is None and file.stats().documents < stored + 40:
            time.sleep(0.005)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert file.stats().documents >= stored
        stored = file.stats().documents
        file.close()
    usage = reranker(path).precompute(texts)
    assert (usage.documents, usage.stored) == (300 - stored, stored)
    expected = reranker(tmp_path / "b").rerank("the number 77", texts).scores
    assert reranker(path).rerank("the number 77", texts).scores == pytest.approx(expected, abs=1e-2)
