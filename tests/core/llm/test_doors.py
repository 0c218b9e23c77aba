"""What comes of each kind of answer, through all three doors: a ranking of all documents, or an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.chat import DOORS, ChatServer, asked_texts, grades

from rerank_core import (
    AuthenticationError,
    InvalidResponseError,
    RateLimitError,
    Reranker,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
)

QUERY = "find a memory leak"
TEXTS = ["tea", "a leak", "snow", "a memory leak", "Paris"]
GOOD = grades([0, 7, 0, 9, 2])
BEST_FIRST = [3, 1, 4, 0, 2]
FENCED = f"Here is my answer:\n```json\n{GOOD}\n```"
THOUGHT = f'<think>Document 1 is {{"id": 1, "grade": 10}}, or not.</think>{GOOD}'
TWICE = json.dumps({"grades": [*json.loads(GOOD)["grades"], {"id": 1, "grade": 10}]})
LINES = "Doc: 4, Relevance: 9\nDoc: 2, Relevance: 7\nDoc: 5, Relevance: 2\n[1] 0/10\n**Document 3** - 0"


def rows(*pairs: tuple[Any, Any]) -> str:
    """Return an answer of ids and grades."""
    return json.dumps({"grades": [{"id": number, "grade": grade} for number, grade in pairs]})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("answer", "order"),
    [
        (GOOD, BEST_FIRST),
        (FENCED, BEST_FIRST),
        (THOUGHT, BEST_FIRST),
        (TWICE, BEST_FIRST),
        (LINES, BEST_FIRST),
        (json.dumps({"4": 9, "2": 7, "5": 2, "1": 0, "3": 0}), BEST_FIRST),
        (json.dumps(json.loads(GOOD)["grades"]), BEST_FIRST),
        (GOOD[: GOOD.index("3}") if "3}" in GOOD else len(GOOD) - 20], BEST_FIRST),  # cut off within the last row
        (rows((4, 9), (2, 7), (-1, 10), (5, 2), (1, 0)), BEST_FIRST),
        (rows((4, 9), (2, 7), (17, 10), (5, 2), (1, 0)), BEST_FIRST),
        (rows(("4", "9"), (2.0, 7.0), (5, 2), (1, 0), (3, 0)), BEST_FIRST),
        (rows((4, 9), (2, 7), (5, 2), (1, 99), (1, 0)), BEST_FIRST),
    ],
    ids=[
        "good",
        "fenced",
        "thought",
        "duplicate",
        "prose",
        "map",
        "list",
        "truncated",
        "minus-1",
        "out-of-range",
        "strings",
        "grade-out-of-range",
    ],
)
def test_an_answer_ranks_every_document(chat: ChatServer, door: str, answer: str, order: list[int]) -> None:
    """One question; ids that do not exist count for nothing, the missing ones come last in input order."""
    chat.plan(answer)
    ranking = Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
    assert [ranked.index for ranked in ranking] == order
    assert ranking.scores[3] == 0.9
    assert ranking.usage.requests == len(chat.requests) == 1
    assert (ranking.usage.tokens, ranking.usage.output_tokens) == (100, 10)
    assert not ranking.usage.estimated


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I would rather not say.",
        rows((4, 9), (2, 7)),
        rows((0, 9), (1, 7), (2, 5), (3, 3), (4, 1)),
        rows((-1, 9), (-2, 7), (-3, 5), (-4, 3), (-5, 1)),
        json.dumps({"grades": []}),
        "null",
    ],
    ids=["empty", "prose", "partial", "counts-from-0", "negative", "no-rows", "null"],
)
def test_an_answer_that_leaves_out_too_much_is_repaired_or_an_error(
    chat: ChatServer, door: str, answer: str
) -> None:
    """It is asked for once more, with what was missing; a second one like it is an error that keeps the scores."""
    chat.plan([answer, GOOD])
    ranking = Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
    assert [ranked.index for ranked in ranking] == BEST_FIRST
    assert ranking.usage.requests == 2
    assert "could not be used: it left out" in chat.requests[1]["messages"][-1]["content"]
    chat.plan(answer)
    with pytest.raises(InvalidResponseError, match="of 5 documents, twice asked") as caught:
        Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
    assert caught.value.partial == ({3: 0.9, 1: 0.7} if answer == rows((4, 9), (2, 7)) else {})
    assert caught.value.usage is not None
    assert caught.value.usage.requests == 2


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 429}, RateLimitError),
        ({"status": 401}, AuthenticationError),
        ({"status": 500}, ScorerUnavailableError),
        ({"status": 403}, AuthenticationError),
    ],
    ids=["429", "401", "500", "403"],
)
def test_a_refused_request_is_the_error_that_its_status_means(
    chat: ChatServer, door: str, answer: Any, kind: type[ScorerError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for all doors, so that fallbacks and breakers do their work."""
    monkeypatch.setattr("rerank_core.remote.sending._backoff", lambda attempt: 0.0)
    chat.plan(answer)
    with pytest.raises(kind) as caught:
        Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
    assert type(caught.value) is kind
    chat.plan([answer, GOOD])
    if door == "llm" and answer["status"] in (429, 500):
        ranking = Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
        assert (ranking.usage.requests, ranking.usage.retries) == (2, 1)


@pytest.mark.parametrize("door", DOORS)
def test_a_slow_answer_ends_with_the_deadline(chat: ChatServer, door: str) -> None:
    """The call says how far it came."""
    chat.plan({"text": GOOD, "delay": 0.6})
    with pytest.raises(ScorerTimeoutError, match="timeout"):
        Reranker(chat.scorer(door), timeout=0.2).rerank(QUERY, TEXTS)


@pytest.mark.parametrize("door", DOORS)
def test_a_refusal_halves_the_window_once_to_find_the_document(chat: ChatServer, door: str) -> None:
    """Where the halves are answered, their grades make the ranking; else the error names the texts."""

    def refuse(body: dict[str, Any]) -> Any:
        texts = asked_texts(body)
        if "snow" in texts and len(texts) > limit:
            return {"text": None, "finish": "content_filter"}
        return grades([0.0 if "leak" not in text else 8 for text in texts])

    limit = 3
    chat.plan(refuse)
    ranking = Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
    assert [ranked.index for ranked in ranking][:2] == [1, 3]
    assert ranking.usage.requests == 3
    limit = 0
    chat.plan(refuse)
    with pytest.raises(ScorerError, match=r"refused to judge the texts 3 to 5 .*content_filter") as caught:
        Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)
    assert caught.value.partial == {0: 0.0, 1: 0.8}


@pytest.mark.parametrize("door", DOORS)
def test_an_answer_cut_off_for_its_length_says_so(chat: ChatServer, door: str) -> None:
    """Where the cut leaves too little to rank by."""
    chat.plan({"text": GOOD[:40], "finish": "length"})
    with pytest.raises(InvalidResponseError, match="cut off for its length"):
        Reranker(chat.scorer(door)).rerank(QUERY, TEXTS)


@pytest.mark.parametrize("door", DOORS)
def test_missing_usage_is_estimated(chat: ChatServer, door: str) -> None:
    """And said to be an estimate."""
    chat.plan({"text": GOOD, "usage": None})
    usage = Reranker(chat.scorer(door)).rerank(QUERY, TEXTS).usage
    assert usage.estimated
    assert usage.tokens > 100
    assert usage.output_tokens == 60
