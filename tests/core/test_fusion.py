"""Fusion: several lists of scores make one ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.scorers import Answers

from rerank_core import ConfigurationError, Passage, Ranking, Reranker, Scored, Scorer, ScorerError, Selection
from rerank_core.fusion import FusionMethod, fuse
from rerank_core.testing import FakeScorer

METHODS: tuple[FusionMethod, ...] = ("rrf", "weighted")
fractions = st.floats(0.0, 1.0, width=16)
retrieval = st.one_of(st.none(), st.floats(-1e300, 1e300), st.integers(-5, 5))


def ranked(scores: Sequence[float], selection: Selection | None = None) -> Ranking[str]:
    """Return a ranking with these scores."""
    texts = [f"text {number}" for number in range(len(scores))]
    return Reranker(Answers(list(scores))).rerank("query", texts, selection=selection)


@st.composite
def lists(draw: st.DrawFn, parts: int = 2) -> list[list[Any]]:
    """Return scores in [0, 1] and lists of retrieval scores, all of one length."""
    count = draw(st.integers(1, 8))
    first = draw(st.lists(fractions, min_size=count, max_size=count))
    return [first, *(draw(st.lists(retrieval, min_size=count, max_size=count)) for _ in range(parts - 1))]


@pytest.mark.parametrize("method", METHODS)
@given(
    scores=st.integers(1, 8).flatmap(lambda n: st.lists(st.tuples(fractions, fractions), min_size=n, max_size=n))
)
def test_it_is_symmetric_in_its_lists(method: FusionMethod, scores: list[tuple[float, float]]) -> None:
    """With equal weights no list is the first."""
    left, right = ranked([a for a, _ in scores]), ranked([b for _, b in scores])
    one, other = fuse(left, right, method=method), fuse(right, left, method=method)
    assert one.scores == other.scores
    assert [found.index for found in one] == [found.index for found in other]


@pytest.mark.parametrize("method", METHODS)
@given(scores=lists(parts=3))
def test_scores_are_in_0_and_1_and_nothing_is_lost(method: FusionMethod, scores: list[list[Any]]) -> None:
    """Whatever the first stage's scale is, and whatever it lacks."""
    fused = fuse(ranked(scores[0]), *scores[1:], method=method)
    assert all(score is not None and 0.0 <= score <= 1.0 for score in fused.scores)
    assert sorted(found.index for found in fused) == list(range(len(scores[0])))
    assert [found.score for found in fused] == sorted((found.score for found in fused), reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize("method", METHODS)
@given(scores=lists(), data=st.data())
def test_raising_a_score_never_lowers_the_rank(
    method: FusionMethod, scores: list[list[Any]], data: st.DataObject
) -> None:
    """The fusion is monotone in every score."""
    index = data.draw(st.integers(0, len(scores[0]) - 1))
    raised = [list(scores[0]), list(scores[1])]
    assume(scores[1][index] is not None)
    raised[1][index] = data.draw(st.integers(6, 100)) if abs(scores[1][index]) <= 5 else 1.5e300
    before = fuse(ranked(scores[0]), scores[1], method=method)
    after = fuse(ranked(raised[0]), raised[1], method=method)
    rank = {found.index: found.rank for found in before}[index]
    assert {found.index: found.rank for found in after}[index] <= rank


@given(scores=st.lists(fractions, min_size=1, max_size=8, unique=True))
def test_a_list_with_itself_keeps_its_order(scores: list[float]) -> None:
    """And what is first in all lists has score 1."""
    ranking = ranked(scores)
    for method in METHODS:
        fused = fuse(ranking, ranking, scores, method=method)
        assert [found.index for found in fused] == [found.index for found in ranking]
        assert fused[0].score == 1.0


def test_reciprocal_ranks_are_the_papers() -> None:
    """Σ 1 / (60 + rank), divided by 2 / 61; the missing document gets nothing from that list."""
    fused = fuse(ranked([0.9, 0.5, 0.1]), [None, 2.0, 30.0])
    assert fused.scores == pytest.approx(
        [(1 / 61) * 61 / 2, (1 / 62 + 1 / 62) * 61 / 2, (1 / 63 + 1 / 61) * 61 / 2]
    )
    assert fused.model == "rrf(answers, scores)"


def test_weights_count_lists() -> None:
    """A weight of 0 leaves a list out, and equal scores of a list count in full."""
    ranking = ranked([0.9, 0.1])
    assert fuse(ranking, [1.0, 2.0], method="weighted", weights=[3, 1]).scores == (0.75, 0.25)
    assert fuse(ranking, [1.0, 2.0], method="weighted", weights=[0, 1]).scores == (0.0, 1.0)
    assert fuse(ranking, [5, 5], method="weighted").scores == (1.0, 0.5)


def test_a_ranking_that_lost_documents_keeps_what_is_known_of_them() -> None:
    """Documents come back from another ranking; their scores count in any case."""
    few, all_of_them = ranked([0.9, 0.8, 0.1], Selection(top_n=1)), ranked([0.1, 0.2, 0.9])
    assert sorted(found.index for found in fuse(few, all_of_them)) == [0, 1, 2]
    alone = fuse(few, [0.0, 0.0, 1.0])
    assert [found.index for found in alone] == [0]
    assert len(alone.scores) == 3


def test_a_selection_cuts_the_result() -> None:
    """By the fused scores."""
    fused = fuse(ranked([0.9, 0.5, 0.1]), [3, 2, 1], selection=Selection(score_threshold=0.98, top_n=2))
    assert [found.index for found in fused] == [0, 1]


def test_a_passthrough_counts_for_nothing() -> None:
    """Alone with scores it has their order; where nothing was scored, it stays as it is."""
    broken = Reranker(FakeScorer(error=ScorerError("down")), on_error="passthrough").rerank(
        "query", ["a", "b", "c"]
    )
    fused = fuse(broken, [1.0, 3.0, 2.0])
    assert [found.index for found in fused] == [1, 2, 0]
    assert fused.error is None
    still = fuse(broken, [None, None, None], selection=Selection(top_n=2))
    assert [(found.index, found.score) for found in still] == [(0, None), (1, None)]
    assert still.error is broken.error


def test_documents_passages_and_usage_are_kept() -> None:
    """The caller's own objects come back, with the first passage that a ranking knows."""

    class Spans(Scorer):
        name = "spans"

        async def score(self, query: str, texts: Sequence[str]) -> Scored:
            return Scored([0.5] * len(texts), passages=[Passage(0, 2)] * len(texts))

    objects = [object(), object()]
    plain = Reranker(FakeScorer()).rerank("query", objects, text_fn=lambda _: "some text")
    spans = Reranker(Spans()).rerank("query", objects, text_fn=lambda _: "some text")
    fused = fuse(plain, spans)
    assert {id(found.document) for found in fused} == {id(document) for document in objects}
    assert {found.passage for found in fused} == {Passage(0, 2)}
    assert fused.usage.requests == plain.usage.requests


def test_nothing_to_rank_is_no_error() -> None:
    """No documents fuse to no documents."""
    assert len(fuse(Reranker(FakeScorer()).rerank("query", []), [])) == 0


@pytest.mark.parametrize(
    ("others", "options", "message"),
    [
        ([], {}, "nothing to fuse"),
        ([[1.0]], {}, r"others\[0\] has 1 scores for 2 documents"),
        (["ab"], {}, r"others\[0\] is a str"),
        ([7], {}, r"others\[0\] is a int"),
        ([[1.0, float("nan")]], {}, r"others\[0\]\[1\] is nan"),
        ([[1.0, True]], {}, r"others\[0\]\[1\] is True"),
        ([[1.0, 2.0]], {"method": "best"}, "method is 'best'"),
        ([[1.0, 2.0]], {"rank_constant": 0}, "rank_constant is 0"),
        ([[1.0, 2.0]], {"weights": 3}, "weights is 3"),
        ([[1.0, 2.0]], {"weights": [1.0]}, "1 weights for 2 lists"),
        ([[1.0, 2.0]], {"weights": [0, 0]}, "nor all be 0"),
        ([[1.0, 2.0]], {"weights": [-1, 2]}, "none may be below 0"),
        ([[1.0, 2.0]], {"selection": 3}, "selection is a int"),
    ],
)
def test_bad_options_are_named(others: list[Any], options: dict[str, Any], message: str) -> None:
    """Each message names the value."""
    with pytest.raises(ConfigurationError, match=message):
        fuse(ranked([0.5, 0.4]), *others, **options)


def test_rankings_of_other_things_are_refused() -> None:
    """Another query or other documents cannot be fused."""
    ranking = Reranker(FakeScorer()).rerank("one", ["a", "b"])
    with pytest.raises(ConfigurationError, match="different queries"):
        fuse(ranking, Reranker(FakeScorer()).rerank("two", ["a", "b"]))
    with pytest.raises(ConfigurationError, match="different documents at index"):
        fuse(ranking, Reranker(FakeScorer()).rerank("one", ["b", "a"]))
