"""The Reranker: from query and documents to a ranking, and the options of that call."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scorers import Answers, Calls

from rerank_core import (
    ConfigurationError,
    RankedDocument,
    Reranker,
    Scored,
    Scorer,
    ScorerError,
    ScorerUnavailableError,
    Selection,
    Usage,
)
from rerank_core._call.scores import sigmoid
from rerank_core.testing import FakeScorer

QUERY = "memory leak"
TEXTS = ["Paris in spring", "finding a memory leak", "memory", "a leak in the roof"]

LISTS = st.lists(st.text(max_size=10) | st.sampled_from(["", " ", "memory leak", "memory", "leak"]), max_size=15)


def test_documents_come_back_best_first() -> None:
    """Each with its text, its position in the input, its rank and its score."""
    ranking = Reranker(FakeScorer(lambda _, text: len(text) / 100)).rerank(QUERY, ["aa", "aaaa", "a"])
    assert list(ranking) == [
        RankedDocument("aaaa", "aaaa", 1, 1, 0.04),
        RankedDocument("aa", "aa", 0, 2, 0.02),
        RankedDocument("a", "a", 2, 3, 0.01),
    ]
    assert (ranking.query, ranking.model, ranking.error) == (QUERY, "fake", None)
    assert ranking.scores == (0.02, 0.04, 0.01)


def test_ties_keep_the_first_stages_order() -> None:
    """The order of the input decides between equal scores."""
    ranking = Reranker(FakeScorer(lambda _, text: 0.5)).rerank(QUERY, TEXTS)
    assert [document.index for document in ranking] == [0, 1, 2, 3]


def test_text_fn_reads_objects_which_come_back_untouched() -> None:
    """The very objects that were given, in new order."""
    documents = [{"body": text, "lock": object()} for text in TEXTS]
    before = [dict(document) for document in documents]
    ranking = Reranker(FakeScorer()).rerank(QUERY, documents, text_fn=lambda document: document["body"])
    assert ranking[0].document is documents[1]
    assert ranking[0].text == "finding a memory leak"
    assert documents == before


def test_documents_may_be_any_iterable() -> None:
    """A generator is read once; a tuple and the keys of a dictionary do too."""
    reranker = Reranker(FakeScorer())
    expected = reranker.rerank(QUERY, TEXTS).documents
    assert reranker.rerank(QUERY, (text for text in TEXTS)).documents == expected
    assert reranker.rerank(QUERY, tuple(TEXTS)).documents == expected
    assert reranker.rerank(QUERY, dict.fromkeys(TEXTS)).documents == expected


def test_the_callers_list_is_left_alone() -> None:
    """Neither reordered nor kept."""
    documents = list(TEXTS)
    ranking = Reranker(FakeScorer()).rerank(QUERY, documents)
    assert documents == TEXTS
    documents.clear()
    assert len(ranking) == len(TEXTS)


async def test_async_gives_what_sync_gives() -> None:
    """Both doors lead to the same ranking; a sync call works inside a running loop too, as in a notebook."""
    reranker = Reranker(FakeScorer(latency=0.001), selection=Selection(top_n=2))
    within = reranker.rerank(QUERY, TEXTS)
    awaited = await reranker.arerank(QUERY, TEXTS)
    assert (within.documents, within.scores) == (awaited.documents, awaited.scores)
    assert len(within) == 2


def test_a_call_may_bring_its_own_selection() -> None:
    """Instead of the reranker's, for this call alone; scores of dropped documents stay in ``scores``."""
    reranker = Reranker(FakeScorer(), selection=Selection(top_n=1))
    assert len(reranker.rerank(QUERY, TEXTS)) == 1
    ranking = reranker.rerank(QUERY, TEXTS, selection=Selection(score_threshold=0.4, top_n=3))
    assert [document.index for document in ranking] == [1, 2, 3] or [document.index for document in ranking] == [
        1,
        3,
        2,
    ]
    assert len(ranking.scores) == len(TEXTS)
    assert len(reranker.rerank(QUERY, TEXTS)) == 1


def test_a_threshold_may_leave_nothing() -> None:
    """An empty ranking still tells the scores."""
    ranking = Reranker(FakeScorer()).rerank("zebra", TEXTS, selection=Selection(score_threshold=0.9))
    assert list(ranking) == []
    assert all(score is not None and score < 0.9 for score in ranking.scores)
    assert len(ranking.scores) == len(TEXTS)


def test_logits_become_probabilities_once() -> None:
    """A scorer on the logit scale gives the scores of the same scorer on the probability scale."""
    probabilities = Reranker(FakeScorer()).rerank(QUERY, TEXTS).scores
    logits = Reranker(FakeScorer(scale="logit")).rerank(QUERY, TEXTS).scores
    assert logits == pytest.approx(probabilities)
    assert Reranker(Answers([-3.0, 800.0], scale="logit")).rerank(QUERY, ["a", "b"]).scores == (sigmoid(-3.0), 1.0)


def test_numpys_numbers_become_python_floats() -> None:
    """So that a ranking can be serialised."""
    ranking = Reranker(Answers(np.array([0.25, 0.5], dtype=np.float32))).rerank(QUERY, ["a", "b"])
    assert [type(score) for score in ranking.scores] == [float, float]
    assert json.dumps([document.score for document in ranking]) == "[0.5, 0.25]"


def test_equal_texts_are_scored_once() -> None:
    """And get the same score, each in its place."""
    scorer = FakeScorer()
    ranking = Reranker(scorer).rerank(QUERY, ["b", "a", "b", "b", "a"])
    assert scorer.seen == ["b", "a"]
    assert ranking.scores[0] == ranking.scores[2] == ranking.scores[3]
    assert ranking.scores[1] == ranking.scores[4]
    assert ranking.usage.documents == 2


def test_usage_counts_what_was_scored() -> None:
    """The scorer's requests and tokens; distinct texts; seconds of the whole call."""
    usage = Reranker(Answers([0.5, 0.25])).rerank(QUERY, ["a", "b", "", "a"]).usage
    assert (usage.requests, usage.documents, usage.tokens) == (1, 2, 7)
    assert 0 < usage.seconds < 10


def test_the_model_is_the_one_that_answered() -> None:
    """A scorer made of scorers tells which one it was."""
    assert Reranker(Answers([0.5], model="cohere:rerank-v3.5")).rerank(QUERY, ["a"]).model == "cohere:rerank-v3.5"


@given(LISTS, st.randoms())
def test_permuting_the_input_permutes_the_output(texts: list[str], random: Any) -> None:
    """Each document keeps its score wherever it stands, and distinct scores keep their order."""
    order = list(range(len(texts)))
    random.shuffle(order)
    reranker = Reranker(FakeScorer())
    straight = reranker.rerank(QUERY, texts)
    permuted = reranker.rerank(QUERY, [texts[index] for index in order])
    assert permuted.scores == tuple(straight.scores[index] for index in order)
    assert [document.score for document in permuted] == [document.score for document in straight]
    groups: dict[float | None, tuple[list[int], list[int]]] = {}
    for document in straight:
        groups.setdefault(document.score, ([], []))[0].append(document.index)
    for document in permuted:
        groups[document.score][1].append(order[document.index])
    assert all(sorted(here) == sorted(there) for here, there in groups.values())


@given(LISTS)
def test_duplicates_score_equally(texts: list[str]) -> None:
    """Equal texts have equal scores, and all of them are within [0, 1]."""
    ranking = Reranker(FakeScorer()).rerank(QUERY, texts)
    by_text: dict[str, set[float | None]] = {}
    for text, score in zip(texts, ranking.scores, strict=True):
        assert score is not None
        assert 0.0 <= score <= 1.0
        by_text.setdefault(text, set()).add(score)
    assert all(len(scores) == 1 for scores in by_text.values())


def test_a_name_makes_its_scorer() -> None:
    """As ``load_scorer`` does; the default options are the scorer's."""
    assert Reranker("embedded").scorer.name == "embedded"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scorer": 3}, "scorer is a int"),
        ({"scorer": FakeScorer}, "scorer is a "),
        ({"selection": 3}, "selection is a int"),
        ({"selection": None}, "selection is a NoneType"),
        ({"timeout": 0}, "timeout is 0: give seconds above 0"),
        ({"timeout": -1.5}, "timeout is -1.5"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"on_error": "ignore"}, "on_error is 'ignore': give one of raise, passthrough"),
        ({"on_error": None}, "on_error is None"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    """When the reranker is made, with its value and what it may be."""
    with pytest.raises(ConfigurationError, match=message):
        Reranker(**{"scorer": FakeScorer(), **options})


@pytest.mark.parametrize("timeout", [None, 5, 0.5, float("inf"), np.float32(2.0)])
def test_a_timeout_is_any_number_above_0(timeout: Any) -> None:
    """Or None; a fast scorer answers within each."""
    assert len(Reranker(FakeScorer(), timeout=timeout).rerank(QUERY, TEXTS)) == len(TEXTS)


def test_a_calls_selection_must_be_one() -> None:
    """A number or a dictionary is refused before anything is sent."""
    scorer = FakeScorer()
    with pytest.raises(ConfigurationError, match="selection is a int: give a Selection"):
        Reranker(scorer).rerank(QUERY, TEXTS, selection=3)  # type: ignore[arg-type]
    assert scorer.calls == 0


def test_the_repr_tells_scorer_and_selection() -> None:
    """In one line."""
    text = repr(Reranker(FakeScorer(name="cohere:rerank-v3.5"), selection=Selection(top_n=3)))
    assert text.startswith("Reranker('cohere:rerank-v3.5', Selection(")
    assert "top_n=3" in text


class Closing(Scorer):
    """Counts what is asked of it beside scores."""

    name = "closing"

    def __init__(self) -> None:
        self.closed = 0
        self.warmed = 0

    async def score(self, query: str, texts: Any) -> Scored:
        """Return halves."""
        return Scored([0.5] * len(texts))

    async def warm_up(self) -> None:
        """Count."""
        await asyncio.sleep(0)
        self.warmed += 1

    async def aclose(self) -> None:
        """Count."""
        await asyncio.sleep(0)
        self.closed += 1


def test_leaving_a_with_block_closes_the_scorer() -> None:
    """Also after an error; the scorer can be used again."""
    scorer = Closing()
    with Reranker(scorer) as reranker:
        assert len(reranker.rerank(QUERY, TEXTS)) == 4
    assert scorer.closed == 1
    with pytest.raises(KeyError, match="mine"), reranker:
        raise KeyError("mine")
    assert scorer.closed == 2
    assert len(reranker.rerank(QUERY, TEXTS)) == 4


async def test_leaving_an_async_with_block_closes_the_scorer() -> None:
    """As the sync one does."""
    scorer = Closing()
    async with Reranker(scorer) as reranker:
        await reranker.awarm_up()
    assert (scorer.warmed, scorer.closed) == (1, 1)


async def test_warming_up_and_closing_have_two_doors() -> None:
    """And do nothing for a scorer with nothing to load or close."""
    scorer = Closing()
    reranker = Reranker(scorer)
    reranker.warm_up()
    await reranker.awarm_up()
    reranker.close()
    await reranker.aclose()
    assert (scorer.warmed, scorer.closed) == (2, 2)
    with Reranker(FakeScorer()) as plain:
        plain.warm_up()
        assert plain.scorer.calls == 0  # type: ignore[attr-defined]


def test_a_failing_warm_up_is_a_scorer_error() -> None:
    """As a failing call is."""

    class Cold(FakeScorer):
        async def warm_up(self) -> None:
            raise OSError("no space left")

    with pytest.raises(ScorerError, match="fake: failed with OSError"):
        Reranker(Cold()).warm_up()


def test_pickling_keeps_the_configuration() -> None:
    """A copy ranks as the original does, used or not; so does a deep copy."""
    reranker = Reranker(FakeScorer(), selection=Selection(top_n=2), timeout=5, on_error="passthrough")
    expected = reranker.rerank(QUERY, TEXTS).documents
    for twin in (pickle.loads(pickle.dumps(reranker)), copy.deepcopy(reranker)):
        assert (twin.selection, twin.timeout, twin.on_error) == (Selection(top_n=2), 5, "passthrough")
        assert twin.rerank(QUERY, TEXTS).documents == expected


@pytest.mark.parametrize("name", ["embedded", "onnx:some/model", "cross-encoder:some/model"])
def test_scorers_of_local_models_survive_pickling_unloaded(name: str) -> None:
    """A copy is equal to the original, by its options."""
    scorer = Reranker(name).scorer
    assert pickle.loads(pickle.dumps(scorer)) == scorer
    assert copy.deepcopy(scorer) == scorer


async def test_a_scorer_may_call_another_reranker() -> None:
    """By its async door: the work stays on the one loop."""
    inner = Reranker(FakeScorer())

    async def best(query: str, texts: Any) -> float:
        ranking = await inner.arerank(query, texts)
        return ranking[0].score or 0.0

    ranking = await Reranker(Calls(best)).arerank(QUERY, TEXTS)
    assert set(ranking.scores) == {inner.rerank(QUERY, TEXTS)[0].score}


def test_a_sync_call_inside_a_scorer_is_refused() -> None:
    """It would wait for itself for ever; the error says what to do."""
    inner = Reranker(FakeScorer())

    async def wrong(query: str, texts: Any) -> float:
        return inner.rerank(query, texts)[0].score or 0.0

    with pytest.raises(ConfigurationError, match="await the async one"):
        Reranker(Calls(wrong)).rerank(QUERY, TEXTS)

    async def wrong_too(query: str, texts: Any) -> float:
        inner.warm_up()
        return 0.5

    with pytest.raises(ConfigurationError, match="await the async one"):
        Reranker(Calls(wrong_too)).rerank(QUERY, TEXTS)


def test_an_error_of_the_tree_is_raised_as_it_is() -> None:
    """A scorer's own ScorerError needs no wrapping."""
    error = ScorerUnavailableError("fake is down: try later")
    with pytest.raises(ScorerUnavailableError) as caught:
        Reranker(FakeScorer(error=error)).rerank(QUERY, TEXTS)
    assert caught.value is error


def test_the_usage_of_an_empty_ranking_is_nothing() -> None:
    """No request, no text, no time."""
    assert Reranker(FakeScorer()).rerank(QUERY, []).usage == Usage()
