"""Windowed with real models and services: what a bare scorer cuts away is found, and the rest stays as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loopback import Loopback
from support.models import MAX_LENGTH, QUERY, TEXTS, Shape
from support.providers import scorer_of

from rerank_core import (
    ConfigurationError,
    Passage,
    RankedDocument,
    Ranking,
    Reranker,
    Scored,
    Scorer,
    ScorerUnavailableError,
    Usage,
    load_scorer,
)
from rerank_core.policies import Cached, Cascade, Fallback, Hedged, Windowed
from rerank_core.policies.caches import MemoryCache
from rerank_core.testing import FakeScorer, ScorerContract

FILLER = (
    "The harbour master wrote down every ship that came in that year. The weather was mild, and trade went well. "
)
NEEDLE = "tracemalloc shows where a Python program leaks memory."
LATE = FILLER * 20 + NEEDLE + " " + FILLER * 5
DULL = FILLER * 25


class Recording(Scorer):
    """Hands everything on to a scorer of a model, and keeps what it was given."""

    def __init__(self, scorer: Any) -> None:
        self.inner = scorer
        self.name, self.scale = scorer.name, scorer.scale
        self.read_tokens = scorer.read_tokens
        self.calls: list[list[str]] = []

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Score with the model."""
        self.calls.append(list(texts))
        scored: Scored = await self.inner.score(query, texts)
        return scored


def by_index(ranking: Ranking[str]) -> list[RankedDocument[str]]:
    """Return the ranked documents in the order of the input."""
    return sorted(ranking, key=lambda ranked: ranked.index)


@functools.cache
def embedded() -> Scorer:
    """Return the embedded scorer, with one model for all tests."""
    return load_scorer("embedded")


class TestContract(ScorerContract):
    """Small windows of a scorer of logits."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Windowed(FakeScorer(scale="logit"), window=20)


class TestContractOfTheMean(ScorerContract):
    """The mean of the best two."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Windowed(FakeScorer(), window=20, aggregate="mean", best=2)


class TestEmbedded:
    """The embedded scorer reads 256 tokens."""

    def test_a_needle_late_in_a_document_is_found(self) -> None:
        """The bare scorer cuts it away and cannot tell the documents apart; its window is the passage."""
        bare = Reranker(embedded()).rerank(QUERY, [DULL, LATE]).scores
        assert bare[0] == pytest.approx(bare[1], abs=0.02)
        ranking = Reranker(Windowed(embedded())).rerank(QUERY, [DULL, LATE])
        assert [ranked.index for ranked in ranking] == [1, 0]
        assert (ranking[0].score or 0.0) > 3 * (ranking[1].score or 0.0)
        assert NEEDLE in ranking[0].passage_text
        assert ranking.usage.requests == 1
        assert ranking.usage.truncated == 0

    def test_smaller_windows_give_shorter_passages(self) -> None:
        """Whole sentences around the needle."""
        (ranked,) = Reranker(Windowed(embedded(), window=32)).rerank(QUERY, [LATE])
        assert NEEDLE in ranked.passage_text
        assert len(ranked.passage_text) < 200
        assert ranked.passage_text[-1] == "."

    def test_what_fits_is_sent_as_it_is(self) -> None:
        """Blanks at its ends too; the scores are the bare scorer's, and no passage is named."""
        texts = [f"  {NEEDLE}\n", FILLER, "x"]
        recording = Recording(embedded())
        ranking = Reranker(Windowed(recording)).rerank(QUERY, texts)
        assert recording.calls == [texts]
        assert ranking.scores == Reranker(embedded()).rerank(QUERY, texts).scores
        assert {ranked.passage for ranked in ranking} == {None}

    def test_equal_windows_are_scored_once(self) -> None:
        """In one call, across documents."""
        recording = Recording(embedded())
        ranking = Reranker(Windowed(recording, overlap=0.0)).rerank(QUERY, [LATE, LATE + "More.", LATE * 2])
        (sent,) = recording.calls
        assert len(sent) == len(set(sent)) == ranking.usage.documents

    def test_the_first_window_decides(self) -> None:
        """FirstP scores no other, and says that something was left out."""
        recording = Recording(embedded())
        ranking = Reranker(Windowed(recording, aggregate="first")).rerank(QUERY, [DULL, NEEDLE + " " + DULL])
        assert len(recording.calls[0]) == 2
        assert ranking[0].index == 1
        assert ranking[0].passage is not None
        assert ranking[0].passage.start == 0
        assert ranking.usage.truncated == 2

    def test_windows_after_the_last_that_is_paid_for_are_left_out(self) -> None:
        """The needle is not found, and the documents are counted as cut."""
        numbered = " ".join(f"Ship {number} was late." for number in range(200))
        ranking = Reranker(Windowed(embedded(), max_windows=2)).rerank(QUERY, [numbered + LATE, NEEDLE])
        assert NEEDLE not in by_index(ranking)[0].passage_text
        assert ranking.usage.truncated == 1
        assert ranking.usage.documents == 3


@pytest.mark.parametrize("shape", ["bert-1", "xlmr-1"])
@pytest.mark.parametrize("provider", ["onnx", "cross-encoder"])
class TestCheckpoints:
    """Cross-encoders count in their own tokens, with the query beside the text."""

    def test_every_window_is_read_to_its_end(
        self, provider: str, shape: Shape, checkpoint: Callable[[Shape], Path]
    ) -> None:
        """Nothing is sent that the model would cut, and what it reads whole scores as ever."""
        from transformers import AutoTokenizer

        folder = checkpoint(shape)
        recording = Recording(load_scorer(f"{provider}:{folder}"))
        ranking = Reranker(Windowed(recording)).rerank(QUERY, TEXTS)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        (sent,) = recording.calls
        lengths = [len(tokenizer(QUERY, text)["input_ids"]) for text in sent]
        assert max(lengths) <= MAX_LENGTH
        bare = Reranker(recording.inner).rerank(QUERY, TEXTS)
        for ranked in ranking:
            if ranked.passage is None:
                assert ranking.scores[ranked.index] == pytest.approx(bare.scores[ranked.index], abs=1e-5)
            else:
                assert len(tokenizer(QUERY, ranked.text)["input_ids"]) > MAX_LENGTH
                alone = Reranker(recording.inner).rerank(QUERY, [ranked.passage_text]).scores
                assert ranking.scores[ranked.index] == pytest.approx(alone[0], abs=1e-5)

    def test_a_query_that_fills_the_model_leaves_half_of_it(
        self, provider: str, shape: Shape, checkpoint: Callable[[Shape], Path]
    ) -> None:
        """As much as the model itself leaves for the text, because it cuts the longer one."""
        from transformers import AutoTokenizer

        folder = checkpoint(shape)
        scorer = load_scorer(f"{provider}:{folder}")
        numbered = " ".join(f"Ship {number}." for number in range(90))
        recording = Recording(scorer)
        ranking = Reranker(Windowed(recording)).rerank(QUERY * 20, [numbered])
        assert ranking[0].passage is not None
        tokenizer = AutoTokenizer.from_pretrained(folder)
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in recording.calls[0]]
        assert len(lengths) > 3
        assert MAX_LENGTH // 4 < max(lengths) <= (MAX_LENGTH - 3) // 2


class TestServices:
    """A service's tokens are estimated."""

    def test_windows_of_a_service(self, loopback: Loopback) -> None:
        """All in one request; the best one is the passage."""
        loopback.plan()
        with Reranker(Windowed(scorer_of("cohere", loopback), window=60)) as reranker:
            ranking = reranker.rerank("memory leaks", [DULL, LATE, "a short one"])
        (request,) = loopback.stats()["requests"]
        assert len(request["body"]["documents"]) == ranking.usage.documents
        assert all(len(text) <= 180 for text in request["body"]["documents"])
        assert ranking[0].index == 1
        assert NEEDLE in ranking[0].passage_text

    @pytest.mark.parametrize(
        ("provider", "model", "characters"),
        [("cohere", "rerank-v3.5", 3 * 4096), ("voyage", "rerank-2-lite", 3 * 8000), ("http", "any", 3 * 512)],
    )
    def test_windows_are_what_the_service_reads(
        self, loopback: Loopback, provider: str, model: str, characters: int
    ) -> None:
        """Of a document, or of a pair less the query; 512 tokens where nothing is known."""
        loopback.plan()
        with Reranker(Windowed(scorer_of(provider, loopback, model))) as reranker:
            reranker.rerank("memory leaks", [LATE * 20])
        lengths = [len(text) for request in loopback.stats()["requests"] for text in request["body"]["documents"]]
        assert 0.9 * characters < max(lengths) <= characters


class TestComposition:
    """Policies in policies."""

    def test_the_tokens_are_those_of_the_scorer_inside(self) -> None:
        """Of a policy around one scorer; several may have different ones, so that those are estimated."""
        hedged = Reranker(Windowed(Hedged(embedded()))).rerank(QUERY, [LATE])
        assert hedged[0].passage == Reranker(Windowed(embedded())).rerank(QUERY, [LATE])[0].passage
        fallback = Windowed(Fallback([FakeScorer(error=ScorerUnavailableError("gone")), embedded()]), window=200)
        ranking = Reranker(fallback).rerank(QUERY, [LATE])
        assert NEEDLE in ranking[0].passage_text
        assert len(ranking[0].passage_text) <= 600
        assert [attempt.model for attempt in ranking.attempts] == ["fake"]

    def test_passages_of_windows_within_windows(self) -> None:
        """Are places in the whole text."""
        inner = Windowed(FakeScorer(), window=30)
        (ranked,) = Reranker(Windowed(inner, window=200)).rerank("tracemalloc leaks", [LATE])
        assert NEEDLE in ranked.passage_text
        assert len(ranked.passage_text) <= 90

    def test_a_cache_outside_remembers_passages(self) -> None:
        """By document; other windows are another scorer."""
        cache = MemoryCache()
        first = Reranker(Cached(Windowed(embedded()), cache)).rerank(QUERY, [DULL, LATE])
        again = Reranker(Cached(Windowed(embedded()), cache)).rerank(QUERY, [DULL, LATE])
        assert (first.usage.cached, again.usage.cached) == (0, 2)
        assert [ranked.passage for ranked in again] == [ranked.passage for ranked in first]
        other = Reranker(Cached(Windowed(embedded(), window=32), cache)).rerank(QUERY, [DULL, LATE])
        assert other.usage.cached == 0

    def test_a_cache_inside_remembers_windows(self) -> None:
        """Counted in the tokens of the scorer within it."""
        reranker = Reranker(Windowed(Cached(embedded())))
        first, again = (reranker.rerank(QUERY, [DULL, LATE]) for _ in range(2))
        assert first.usage.documents == again.usage.cached > 2
        assert [ranked.passage for ranked in again] == [ranked.passage for ranked in first]
        assert first[0].passage == Reranker(Windowed(embedded())).rerank(QUERY, [LATE])[0].passage

    def test_a_cascade_inside_prunes_windows(self) -> None:
        """A document is as good as its window that came furthest."""
        cascade = Cascade([FakeScorer(), FakeScorer(lambda query, text: 0.01)], keep=[1])
        ranking = Reranker(Windowed(cascade, window=60)).rerank("tracemalloc leaks", [DULL, LATE, ""])
        assert [ranked.index for ranked in ranking] == [1, 0, 2]
        assert NEEDLE in ranking[0].passage_text

    def test_an_error_keeps_the_documents_that_are_complete(self) -> None:
        """By position in the input, with the usage that the scorer reported."""
        error = ScorerUnavailableError("went away")
        error.partial = {0: 0.25, 1: 0.75, 2: 0.5}
        error.usage = Usage(requests=2)
        with pytest.raises(ScorerUnavailableError) as caught:
            Reranker(Windowed(FakeScorer(error=error), window=12)).rerank("q", ["One. " * 7 + "Two.", "tea", DULL])
        assert caught.value.partial == {0: 0.75, 1: 0.5}
        assert caught.value.usage is not None
        assert caught.value.usage.requests == 2


def test_the_mean_is_of_the_best_windows() -> None:
    """As many as ``best`` says, or as there are, as probabilities."""
    by_word = {"One.": 0.9, "Two.": 0.1, "Three.": 0.5, "Four.": 0.6}
    model = FakeScorer(lambda query, text: by_word[text], scale="logit")
    text = " ".join(by_word)
    for best, expected in [(1, 0.9), (2, 0.75), (9, 0.525)]:
        windowed = Windowed(model, window=4, overlap=0.0, aggregate="mean", best=best)
        (ranked,) = Reranker(windowed).rerank("q", [text])
        assert ranked.score == pytest.approx(expected)
        assert ranked.passage == Passage(0, 4)


@given(
    texts=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=6),
    aggregate=st.sampled_from(["max", "mean", "first"]),
)
def test_with_windows_larger_than_every_text_it_is_the_bare_scorer(texts: list[str], aggregate: Any) -> None:
    """Scores, order and usage, and no passage."""
    scorer = FakeScorer()
    ranking = Reranker(Windowed(scorer, aggregate=aggregate)).rerank("memory leak", texts)
    bare = Reranker(scorer).rerank("memory leak", texts)
    assert ranking.scores == bare.scores
    assert [ranked.index for ranked in ranking] == [ranked.index for ranked in bare]
    assert {ranked.passage for ranked in ranking} == {None}
    assert ranking.usage.documents == bare.usage.documents


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window is 0"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"overlap": True}, "overlap is True"),
        ({"aggregate": "sum"}, "aggregate is 'sum'"),
        ({"best": 0}, "best is 0"),
        ({"max_windows": 0}, "max_windows is 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    """With the value and the fix."""
    with pytest.raises(ConfigurationError, match=message):
        Windowed(FakeScorer(), **options)
