"""What other packages make of unusual answers, by the issue that reports it, and what comes of them here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.chat import ChatServer

from rerank_core import InvalidResponseError, Reranker, Selection

QUERY = "find a memory leak"
TEXTS = ["tea", "a leak", "a memory leak"]


def rank(chat: ChatServer, answer: Any, **options: Any) -> list[int]:
    """Return the ranking that an answer gives."""
    chat.plan(answer)
    return [ranked.index for ranked in Reranker(chat.scorer("llm", **options)).rerank(QUERY, TEXTS)]


def test_langchain_31192_no_documents(chat: ChatServer) -> None:
    """LLMListwiseRerank raises IndexError where nothing was retrieved; here nothing is asked."""
    assert len(Reranker(chat.scorer("llm")).rerank(QUERY, [])) == 0
    assert not chat.requests


def test_langchain_an_empty_answer_loses_all_documents(chat: ChatServer) -> None:
    """LLMListwiseRerank returns nothing; here it is asked again, and then an error."""
    with pytest.raises(InvalidResponseError, match="judged 0 of 3"):
        rank(chat, '{"order": []}', mode="order")


def test_langchain_minus_1_is_the_last_document(chat: ChatServer) -> None:
    """LLMListwiseRerank takes -1 as an index into the list; here it names no document."""
    assert rank(chat, '{"order": [-1, 2, 3, 1]}', mode="order") == [1, 2, 0]


def test_langchain_duplicates_and_omissions(chat: ChatServer) -> None:
    """LLMListwiseRerank returns the second document twice and loses the first."""
    assert rank(chat, '{"order": [2, 2, 3]}', mode="order", min_coverage=0.6) == [1, 2, 0]


def test_langchain_5_of_3_raises_an_index_error(chat: ChatServer) -> None:
    """Here the id counts for nothing."""
    assert rank(chat, '{"order": [5, 3, 2, 1]}', mode="order") == [2, 1, 0]


REASONED = "Doc: 2, Relevance: 9 (it mentions a leak)\nDoc: 3, Relevance: 8\nDoc: 1, Relevance: 1"
REFUSED = (
    'The question "great!" is not clear and does not relate to any of the documents. Therefore, none is relevant.'
)
REMARK = "\n\nThe document with the highest relevance score is Doc: 2, as it directly answers the question."


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        pytest.param(REASONED, 1, id="11045: a reason behind the relevance"),
        pytest.param(REFUSED, 2, id="11092 and 11093: prose, where no document fits the question"),
        pytest.param(REASONED + "\nI judged by the words they share.", 1, id="16736: lines that explain"),
        pytest.param(REASONED + REMARK, 1, id="17352: a remark with a comma"),
        pytest.param(
            "Document 2, Relevance: 9\nDocument 3, Relevance: 8\nDocument 1, Relevance: 1", 1, id="words"
        ),
        pytest.param("**Doc: 2**, Relevance: 9\n**Doc: 3**, Relevance: 8\n**Doc: 1**, Relevance: 1", 1, id="bold"),
        pytest.param("Doc: 2, Relevance: 9/10\nDoc: 3, Relevance: 8/10\nDoc: 1, Relevance: 1/10", 1, id="of ten"),
        pytest.param("", 2, id="nothing"),
    ],
)
def test_llamaindex_answers_of_another_wording_lose_nodes(chat: ChatServer, answer: str, asked: int) -> None:
    """LLMRerank reads "Doc: n, Relevance: m" and raises, or drops nodes, on these; here nothing is lost."""
    good = json.dumps({"grades": [{"id": 2, "grade": 9}, {"id": 3, "grade": 8}, {"id": 1, "grade": 1}]})
    assert rank(chat, [answer, good]) == [1, 2, 0]
    assert len(chat.requests) == asked


def test_llamaindex_16736_doc_0_is_the_last_node(chat: ChatServer) -> None:
    """LLMRerank takes "Doc: 0" as index -1; an answer that counts from 0 is asked for again here."""
    with pytest.raises(InvalidResponseError, match="judged 0 of 3"):
        rank(chat, "Doc: 0, Relevance: 1\nDoc: 1, Relevance: 8\nDoc: 2, Relevance: 9", min_coverage=0.5)


def test_llamaindex_structured_rerank_takes_0_and_negative_ids(chat: ChatServer) -> None:
    """StructuredLLMRerank checks only the upper end."""
    rows = [{"id": number, "grade": grade} for number, grade in ((-2, 10), (0, 10), (3, 9), (2, 5), (1, 0))]
    with pytest.raises(InvalidResponseError):
        rank(chat, json.dumps({"grades": rows[:2]}))
    del rows[1]
    assert rank(chat, json.dumps({"grades": rows})) == [2, 1, 0]


def test_llamaindex_rankgpt_keeps_the_old_scores_in_the_new_order(chat: ChatServer) -> None:
    """So thresholds cut the best; here scores descend with the ranking."""
    chat.plan(json.dumps({"grades": [{"id": 3, "grade": 9}, {"id": 2, "grade": 6}, {"id": 1, "grade": 0}]}))
    ranking = Reranker(chat.scorer("llm"), selection=Selection(score_threshold=0.5)).rerank(QUERY, TEXTS)
    assert [(ranked.index, ranked.score) for ranked in ranking] == [(2, 0.9), (1, 0.6)]


def test_rankllms_client_asks_for_ever(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RankLLM repeats a failed request without end; here ``max_retries`` and the deadline end it."""
    monkeypatch.setattr("rerank_core.remote.sending._backoff", lambda attempt: 0.0)
    with pytest.raises(Exception, match="3 attempts"):
        rank(chat, {"status": 503})
    assert len(chat.requests) == 3
