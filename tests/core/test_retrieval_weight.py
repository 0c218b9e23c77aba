"""A first stage's opinion counts: the order mixes its scores with the relevance."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scorers import Answers

from rerank_core import ConfigurationError, Ranking, Reranker, ScorerUnavailableError, Selection, two_stage_search
from rerank_core.diversity import diversify
from rerank_core.fusion import fuse
from rerank_core.policies import Cascade
from rerank_core.serialization import dump_reranker, restore_reranker
from rerank_core.testing import FakeScorer

QUERY = "memory leak"
TEXTS = ["a", "b", "c", "d"]
SCORES = [0.9, 0.8, 0.7, 0.1]

FLOATS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))


def rank(weight: float, retrieval: Any = None, scores: Any = SCORES, **options: Any) -> Ranking[str]:
    """Return the ranking of one text per score."""
    texts = [f"text {number}" for number in range(len(scores))]
    reranker = Reranker(Answers(list(scores)), retrieval_weight=weight, **options)
    return reranker.rerank(QUERY, texts, retrieval_scores=retrieval)


def order(ranking: Ranking[Any]) -> list[int]:
    """Return the positions in the input, best first."""
    return [ranked.index for ranked in ranking]


def scaled(values: Any) -> Any:
    """Return values min-max scaled, zeros where they are equal."""
    numbers = np.asarray(values, dtype=float)
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span else np.zeros(len(numbers))


@given(
    pairs=st.lists(st.tuples(st.integers(0, 1000), FLOATS), min_size=1, max_size=20),
    weight=st.floats(0.01, 1.0),
    top_n=st.none() | st.integers(1, 9),
)
def test_the_order_follows_the_mixture(pairs: list[tuple[int, float]], weight: float, top_n: int | None) -> None:
    """It falls by (1 − w) × relevance + w × first-stage score, both min-max scaled, and is cut by ``top_n``."""
    relevance, retrieval = [score / 1000 for score, _ in pairs], [score for _, score in pairs]
    ranking = rank(weight, retrieval, relevance, selection=Selection(top_n=top_n))
    mixed = (1 - weight) * scaled(relevance) + weight * scaled(retrieval)
    best = sorted(mixed, reverse=True)[:top_n]
    assert [mixed[index] for index in order(ranking)] == pytest.approx(best)
    assert ranking.scores == tuple(relevance)
    assert [(ranked.score, ranked.retrieval_score) for ranked in ranking] == [
        (relevance[ranked.index], retrieval[ranked.index]) for ranked in ranking
    ]
    shown = [ranking.mixed_scores[index] or 0.0 for index in order(ranking)]
    assert shown == sorted(shown, reverse=True)
    assert all(min(relevance) - 1e-9 <= score <= max(relevance) + 1e-9 for score in shown)


def test_without_a_weight_scores_change_nothing() -> None:
    """They are kept beside the documents, and no mixture is shown."""
    ranking = rank(0.0, [1, 2, 3, 4])
    assert order(ranking) == [0, 1, 2, 3]
    assert [ranked.retrieval_score for ranked in ranking] == [1.0, 2.0, 3.0, 4.0]
    assert ranking.mixed_scores == ()


def test_equal_scores_throughout_weigh_nothing() -> None:
    """Neither equal first-stage scores nor equal relevance has a say."""
    assert order(rank(0.9, [5, 5, 5, 5])) == [0, 1, 2, 3]
    assert order(rank(0.1, [1, 4, 2, 3], [0.5] * 4)) == [1, 3, 2, 0]
    assert order(rank(0.5, [5, 5, 5, 5], [0.5] * 4)) == [0, 1, 2, 3]


def test_without_scores_the_rank_counts() -> None:
    """As −log2(1 + rank), scaled, by the documents' order; so it does where every score is None."""
    scores = [0.1, 0.2, 0.3, 0.4]
    places = [-math.log2(1 + rank) for rank in (1, 2, 3, 4)]
    for weight in (0.2, 0.5, 0.55, 0.8):
        expected = order(rank(weight, places, scores))
        assert order(rank(weight, None, scores)) == order(rank(weight, [None] * 4, scores)) == expected
    assert order(rank(1.0, None, scores)) == [0, 1, 2, 3]


def test_a_missing_score_counts_as_the_lowest() -> None:
    """A document that only another first stage found is neither refused nor preferred."""
    ranking = rank(0.6, [None, 3, 1, None], [0.5, 0.5, 0.5, 0.6])
    assert order(ranking) == order(rank(0.6, [1, 3, 1, 1], [0.5, 0.5, 0.5, 0.6]))
    assert [ranking.documents[place].retrieval_score for place in (0, 1)] == [3.0, None]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, math.nan, 2, 3], r"retrieval_scores\[1\] is nan: give a finite number"),
        ([1, 2, math.inf, 3], r"retrieval_scores\[2\] is inf"),
        ([-math.inf, 2, 1, 3], r"retrieval_scores\[0\] is -inf"),
        ([1, "7", 2, 3], r"retrieval_scores\[1\] is '7'"),
        ([1, True, 2, 3], r"retrieval_scores\[1\] is True"),
        ([1, 2], "retrieval_scores has 2 scores for 4 documents"),
        ("1234", "retrieval_scores is a str"),
        (7, "retrieval_scores is a int"),
    ],
)
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_unusable_scores_are_refused(scores: Any, message: str, weight: float) -> None:
    """The error names the position, whatever the weight, before anything is sent."""
    with pytest.raises(ConfigurationError, match=message):
        rank(weight, scores)


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, True, "x", None])
def test_unusable_weights_are_refused(weight: Any) -> None:
    """It is a number from 0 to 1."""
    with pytest.raises(ConfigurationError, match="retrieval_weight is"):
        Reranker(FakeScorer(), retrieval_weight=weight)


def test_numbers_of_any_kind_and_size_are_scores() -> None:
    """numpy's become Python's, and the widest range of floats does not overflow."""
    ranking = rank(0.5, np.array([1, 2, 3, 4], dtype=np.float32))
    assert {type(ranked.retrieval_score) for ranked in ranking} == {float}
    assert order(rank(1.0, [-1.7e308, 0.0, 1.7e308, 1.0])) == [2, 1, 3, 0]


def test_thresholds_judge_relevance_alone() -> None:
    """A favourite of the first stage does not pass one, and an outsider is not dropped by one."""
    retrieval = [1, 200, 3, 400]
    assert order(rank(0.9, retrieval, selection=Selection(score_threshold=0.75))) == [1, 0]
    assert order(rank(0.9, retrieval, selection=Selection(adaptive_ratio=0.85))) == [1, 0]
    assert rank(0.9, retrieval, selection=Selection(adaptive_ratio=0.5)).cut_score == pytest.approx(0.45)


def test_min_keep_adds_the_first_of_the_order() -> None:
    """What passes the thresholds survives; of the rest the mixture chooses, and orders all."""
    assert order(rank(0.9, [1, 200, 3, 400], selection=Selection(score_threshold=0.75, min_keep=3))) == [3, 1, 0]
    assert order(rank(0.9, [1, 200, 3, 400], selection=Selection(score_threshold=0.75, min_keep=1))) == [1, 0]
    assert order(rank(0.9, [1, 200, 3, 400], selection=Selection(score_threshold=1.0, min_keep=2, top_n=1))) == [3]


def test_blank_texts_stay_below_all_others() -> None:
    """Nothing was read of them, so their scores neither count nor stretch the others'."""
    reranker = Reranker(Answers([0.8, 0.7, 0.6]), retrieval_weight=0.6)
    ranking = reranker.rerank(QUERY, ["a", " ", "b", "c"], retrieval_scores=[1, 1000, 2, 5])
    assert order(ranking) == [3, 0, 2, 1]
    assert [ranked.score for ranked in ranking] == [0.6, 0.8, 0.7, 0.0]
    assert order(reranker.rerank(QUERY, ["", " "], retrieval_scores=[1, 2])) == [0, 1]


def test_equal_texts_keep_their_own_first_stage_scores() -> None:
    """They are scored once, and ordered by what the first stage said of each."""
    ranking = Reranker(Answers([0.5, 0.4]), retrieval_weight=0.2).rerank(
        QUERY, ["a", "b", "a"], retrieval_scores=[1, 2, 3]
    )
    assert [(ranked.index, ranked.retrieval_score) for ranked in ranking] == [(2, 3.0), (0, 1.0), (1, 2.0)]


def test_ordinal_scores_count_by_their_rank() -> None:
    """Where scores only say the order, their distances do not count."""
    near, far = Answers([0.9, 0.89, 0.88, 0.1]), Answers([0.9, 0.5, 0.2, 0.1])
    near.ordinal = far.ordinal = True
    for weight in (0.2, 0.5, 0.8):
        one = Reranker(near, retrieval_weight=weight).rerank(QUERY, TEXTS, retrieval_scores=[1, 5, 9, 4])
        other = Reranker(far, retrieval_weight=weight).rerank(QUERY, TEXTS, retrieval_scores=[1, 5, 9, 4])
        assert order(one) == order(other)


def test_of_equal_mixtures_the_lower_tier_comes_first() -> None:
    """What a cascade's last stage has scored ranks above what it has not, as without a weight."""
    cascade = Cascade([FakeScorer(lambda *_: 0.5), FakeScorer(lambda *_: 0.5)], keep=[1])
    ranking = Reranker(cascade, retrieval_weight=0.0).rerank(QUERY, TEXTS)
    mixed = Reranker(cascade, retrieval_weight=0.3).rerank(QUERY, TEXTS, retrieval_scores=[1, 1, 1, 1])
    assert order(mixed) == order(ranking)


def test_a_passthrough_keeps_the_first_stages_order_and_scores() -> None:
    """The order is that of the documents, whatever their scores."""
    scorer = FakeScorer(error=ScorerUnavailableError("down"))
    reranker = Reranker(scorer, retrieval_weight=0.5, on_error="passthrough")
    ranking = reranker.rerank(QUERY, TEXTS, retrieval_scores=[1, 2, 3, 4])
    assert [(one.index, one.score, one.retrieval_score) for one in ranking] == [
        (index, None, index + 1.0) for index in range(4)
    ]
    assert ranking.mixed_scores == ()


def test_every_way_to_call_takes_the_scores() -> None:
    """Sync and async, one query and many; None among many lists stands for the rank."""
    reranker = Reranker(FakeScorer(), retrieval_weight=0.6)
    lists = [[1, 2, 3, 4], None, [4, None, 2, 1]]
    expected = [order(reranker.rerank(QUERY, TEXTS, retrieval_scores=scores)) for scores in lists]
    queries, documents = [QUERY] * 3, [TEXTS] * 3

    async def call() -> list[Ranking[str]]:
        one = await reranker.arerank(QUERY, TEXTS, retrieval_scores=lists[0])
        return [one, *await reranker.arerank_many(queries, documents, retrieval_scores=lists)]

    assert [order(one) for one in asyncio.run(call())] == [expected[0], *expected]
    assert list(map(order, reranker.rerank_many(queries, documents, retrieval_scores=lists))) == expected
    with pytest.raises(ConfigurationError, match="3 queries but 1 lists of retrieval_scores"):
        reranker.rerank_many(queries, documents, retrieval_scores=[[1, 2, 3, 4]])


def test_diversity_follows_the_mixture() -> None:
    """Maximal marginal relevance weighs what the ranks follow, on the scale of the relevance scores."""
    texts = ["a leak", "a leak!", "snow", "tea"]
    ranking = Reranker(Answers([0.6, 0.59, 0.55, 0.5]), retrieval_weight=0.6).rerank(
        QUERY, texts, retrieval_scores=[1, 2, 3, 9]
    )
    assert order(ranking) == [3, 1, 0, 2]
    assert order(diversify(ranking, weight=1.0)) == [3, 1, 0, 2]
    assert order(diversify(ranking, weight=0.5)) == [3, 1, 2, 0]


def test_a_fused_ranking_keeps_the_first_stages_scores() -> None:
    """Fusing makes new scores, which its ranks follow."""
    fused = fuse(rank(0.5, [1, 2, 3, 4]), [4, 3, 2, 1])
    assert {(one.index, one.retrieval_score) for one in fused} == {(index, index + 1.0) for index in range(4)}
    assert fused.mixed_scores == ()


def test_two_stage_search_gives_the_first_stages_scores() -> None:
    """The scores of what the search found, or their ranks."""
    rows = [{"text": "a leak", "score": 1.0}, {"text": "tea", "score": 9.0}, {"text": "snow"}]
    found = two_stage_search(QUERY, lambda *_: rows, Reranker(FakeScorer(), retrieval_weight=1.0))
    assert [one.text for one in found] == ["tea", "a leak", "snow"]
    bare = two_stage_search(QUERY, lambda *_: ["tea", "a leak"], Reranker(FakeScorer(), retrieval_weight=1.0))
    assert [one.text for one in bare] == ["tea", "a leak"]


def test_the_weight_survives_pickling_and_dumping() -> None:
    """A copy orders as the original does."""
    reranker = Reranker("embedded", retrieval_weight=0.15)
    assert restore_reranker(dump_reranker(reranker)).retrieval_weight == 0.15
    assert pickle.loads(pickle.dumps(reranker)).retrieval_weight == 0.15


def test_a_shown_ranking_says_that_it_is_mixed() -> None:
    """The scores that are shown do not fall from rank to rank, so the note says why."""
    assert "mixed" in rank(0.5, [1, 2, 3, 4])._repr_html_()
    assert "mixed" not in rank(0.0, [1, 2, 3, 4])._repr_html_()
