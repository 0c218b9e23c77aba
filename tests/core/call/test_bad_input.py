"""Bad input, each with its clear error or its defined result."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.scorers import Answers

from rerank_core import ConfigurationError, InvalidResponseError, Ranking, Reranker, ScorerError, Selection
from rerank_core.testing import FakeScorer

QUERY = "memory leak"
Door = Callable[..., Ranking[Any]]


@pytest.fixture
def scorer() -> FakeScorer:
    """Return a scorer that counts its calls."""
    return FakeScorer()


@pytest.fixture(params=["rerank", "arerank", "rerank_many", "arerank_many"])
def door(request: pytest.FixtureRequest, scorer: FakeScorer) -> Door:
    """Return one of the four ways to rank one list, around the scorer unless the call brings another one."""

    def call(
        query: Any, documents: Any, *, by: Any = scorer, on_error: Any = "raise", **options: Any
    ) -> Ranking[Any]:
        method = getattr(Reranker(by, on_error=on_error), request.param)
        many = request.param.endswith("many")
        result = method([query], [documents], **options) if many else method(query, documents, **options)
        if request.param.startswith("a"):
            result = asyncio.run(result)
        return result[0] if many else result

    return call


@pytest.mark.parametrize("query", [QUERY, "", "  "])
def test_an_empty_list_gives_an_empty_ranking(door: Door, scorer: FakeScorer, query: str) -> None:
    """Without a call of the scorer, and even with an empty query: there is nothing to ask."""
    ranking = door(query, [], selection=Selection(min_keep=3))
    assert (len(ranking), ranking.scores, ranking.query, ranking.model) == (0, (), query, "fake")
    assert scorer.calls == 0


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r\f", "\u3000\u2003"])
def test_a_blank_text_scores_0_and_is_never_sent(door: Door, scorer: FakeScorer, blank: str) -> None:
    """It comes last, and stays in the ranking unless a threshold drops it."""
    ranking = door(QUERY, [blank, "a memory leak", blank])
    assert scorer.seen == ["a memory leak"]
    assert [document.index for document in ranking] == [1, 0, 2]
    assert (ranking.scores[0], ranking.scores[2]) == (0.0, 0.0)


def test_nothing_but_blanks_needs_no_call(door: Door, scorer: FakeScorer) -> None:
    """All score 0.0, in the order of the input."""
    ranking = door(QUERY, ["", " ", ""])
    assert [(document.index, document.score) for document in ranking] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert (scorer.calls, ranking.usage.requests, ranking.usage.documents) == (0, 0, 0)


@pytest.mark.parametrize(
    ("query", "documents", "options", "message"),
    [
        (None, ["a"], {}, "the query is a NoneType"),
        (QUERY, ["a", None], {}, r"documents\[1\] is None"),
        (QUERY, ["a", None], {"text_fn": str}, r"documents\[1\] is None"),
        (QUERY, ["a", 3], {}, r"documents\[1\] is a int, not a string: pass text_fn="),
        (QUERY, [b"a"], {}, r"documents\[0\] is a bytes, not a string"),
        (QUERY, ["a"], {"text_fn": len}, r"text_fn returned a int for documents\[0\]"),
        (QUERY, ["a"], {"text_fn": lambda _: None}, r"text_fn returned a NoneType for documents\[0\]"),
        (QUERY, "a single string", {}, "documents is a single str: give a list of documents"),
        (QUERY, b"bytes", {}, "documents is a single bytes: give a list of documents"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    door: Door, scorer: FakeScorer, query: Any, documents: Any, options: dict[str, Any], message: str
) -> None:
    """The error names the position or the type, and ``on_error="passthrough"`` does not hide it."""
    for on_error in ("raise", "passthrough"):
        with pytest.raises(ConfigurationError, match=message):
            door(query, documents, on_error=on_error, **options)
    assert scorer.calls == 0


@pytest.mark.parametrize("query", ["", " \n"])
def test_a_blank_query_is_refused_or_passed_through(door: Door, scorer: FakeScorer, query: str) -> None:
    """It is bad input, but an application that asked for passthrough goes on."""
    with pytest.raises(ConfigurationError, match="the query is empty"):
        door(query, ["a", "b"])
    ranking = door(query, ["a", "b"], on_error="passthrough")
    assert [(ranked.document, ranked.score) for ranked in ranking] == [("a", None), ("b", None)]
    assert "the query is empty" in str(ranking.error)
    assert scorer.calls == 0


def test_text_fn_makes_texts_of_other_objects(door: Door) -> None:
    """Numbers, say."""
    assert door("3", [1, 3, 2], text_fn=str)[0].document == 3


@pytest.mark.parametrize("top_n", [0, -1, -100])
def test_top_n_below_1_is_refused(top_n: int) -> None:
    """There is no ranking of nothing; leave the call out instead."""
    with pytest.raises(ConfigurationError, match=f"top_n is {top_n}: give a whole number of at least 1"):
        Selection(top_n=top_n)


def test_top_n_above_the_number_of_documents_returns_all(door: Door) -> None:
    """It is a limit, not a promise."""
    assert len(door(QUERY, ["a", "b"], selection=Selection(top_n=10))) == 2


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, "0.5", True, None, np.float32("nan"), 1.5, -0.5])
def test_a_scorers_bad_score_is_refused(door: Door, score: Any) -> None:
    """No ranking is built from it; the error names the scorer and the text's number, not the text."""
    with pytest.raises(InvalidResponseError, match="answers: returned .* for text 1") as caught:
        door(QUERY, ["first", "a secret"], by=Answers([0.5, score]))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_and_too_many_scores_are_refused(door: Door, count: int) -> None:
    """Scores that cannot be matched to texts are worth nothing."""
    with pytest.raises(InvalidResponseError, match=f"answers: returned {count} scores for 2 texts"):
        door(QUERY, ["a", "b"], by=Answers([0.5] * count))


@pytest.mark.parametrize("answer", [None, 0.5, iter([0.5, 0.5])])
def test_scores_that_are_no_sequence_are_refused(door: Door, answer: Any) -> None:
    """A scorer of one's own may forget what it promised."""
    with pytest.raises(InvalidResponseError, match="answers: returned"):
        door(QUERY, ["a", "b"], by=Answers(answer))


def test_an_answer_that_is_no_scored_is_refused(door: Door) -> None:
    """The likeliest slip of a scorer of one's own: a bare list."""

    class Bare(FakeScorer):
        async def score(self, query: str, texts: Any) -> Any:
            return [0.5] * len(texts)

    with pytest.raises(InvalidResponseError, match="fake: returned a list: a Scored was expected"):
        door(QUERY, ["a", "b"], by=Bare())


def test_a_bad_answer_degrades_with_passthrough(door: Door) -> None:
    """An answer that cannot be trusted is a scorer's failure like any other."""
    ranking = door(QUERY, ["a", "b"], by=Answers([0.5, math.nan]), on_error="passthrough")
    assert [document.index for document in ranking] == [0, 1]
    assert isinstance(ranking.error, InvalidResponseError)


def test_numpy_scores_are_taken(door: Door) -> None:
    """In single precision too, as Python floats."""
    ranking = door(QUERY, ["a", "b"], by=Answers(np.array([0.25, 0.75], dtype=np.float32)))
    assert ranking.scores == (0.25, 0.75)
    assert {type(score) for score in ranking.scores} == {float}


def test_nuls_and_lone_surrogates_are_ranked(door: Door, scorer: FakeScorer) -> None:
    """What no encoding carries is replaced before the scorer sees it; the caller's object stays as it was."""
    ranking = door("leak\ud800", ["a\x00leak", "lone \udfff leak", "\x00"])
    assert scorer.seen == ["a\x00leak", "lone \ufffd leak", "\x00"]
    assert {document.document for document in ranking} == {"a\x00leak", "lone \udfff leak", "\x00"}
    assert ranking.query.encode()


def test_a_document_of_10_megabytes_is_ranked(door: Door) -> None:
    """Like any other."""
    ranking = door(QUERY, ["x" * 10_000_000 + " memory leak", "short"])
    assert [document.index for document in ranking] == [0, 1]


def test_100_000_documents_are_ranked() -> None:
    """In one call, all of them scored, the best of them returned."""
    documents = [f"document {number}" for number in range(100_000)]
    scorer = FakeScorer(lambda _, text: int(text[9:]) / 100_001)
    ranking = Reranker(scorer).rerank(QUERY, documents, selection=Selection(top_n=3))
    assert [document.index for document in ranking] == [99_999, 99_998, 99_997]
    assert len(ranking.scores) == 100_000
    assert scorer.calls == 1


def test_a_foreign_exception_keeps_its_text_out_of_the_message(door: Door) -> None:
    """It becomes a ScorerError whose cause it is: its own message may quote a document or a key."""
    error = KeyError("a secret document")
    with pytest.raises(ScorerError, match="fake: failed with KeyError: see the cause") as caught:
        door(QUERY, ["a secret document"], by=FakeScorer(error=error))
    assert type(caught.value) is ScorerError
    assert caught.value.__cause__ is error
    assert "secret" not in str(caught.value)
