"""The contract of scorers, kept by a language model that grades by shared words."""

from __future__ import annotations

from typing import Any

import pytest
from support.chat import ChatServer, asked_texts, grades
from support.loopback import score

from rerank_core import Scorer
from rerank_core.testing import ScorerContract


def judge(body: dict[str, Any]) -> str:
    """Grade each document by the words that it shares with the query, whatever stands beside it."""
    return grades([10 * score(ChatContract.query, text) for text in asked_texts(body)])


class ChatContract(ScorerContract):
    """A chat endpoint on loopback."""

    mode = "grades"

    @pytest.fixture(autouse=True)
    def service(self, chat: ChatServer) -> None:
        """Give the tests the server."""
        chat.plan(judge)
        self.chat = chat

    def make_scorer(self) -> Scorer:
        """Return a scorer that asks it."""
        return self.chat.scorer("llm", mode=self.mode)


class TestGrades(ChatContract):
    """One answer for all documents."""
