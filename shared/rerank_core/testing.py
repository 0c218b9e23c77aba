"""For tests: a scorer without a model, and the contract that every scorer keeps.

The author of a scorer tests it by subclassing the contract::

    class TestMyScorer(ScorerContract):
        def make_scorer(self) -> Scorer:
            return MyScorer()
"""

from __future__ import annotations

import asyncio
import math
import pickle
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import anyio

from rerank_core.reranker import Reranker
from rerank_core.scorer import Scale, Scorer
from rerank_core.types import Ranking, Scored
from rerank_core.usage import Usage

__all__ = ["FakeScorer", "ScorerContract"]


def _share_words(query: str, text: str) -> float:
    """Return mostly the share of the query's words found in the text, plus a little that only this text has."""
    words = query.lower().split()
    lowered = text.lower()
    shared = sum(word in lowered for word in words) / max(1, len(words))
    peculiar = zlib.crc32(text.encode(errors="replace")) / 2**32
    return 0.01 + 0.88 * shared + 0.1 * peculiar


class FakeScorer(Scorer):
    """A scorer without a model: a pure function of query and text, and counters to look at.

    Args:
        relevance: returns the score in (0, 1) of a query and a text; by default mostly the share of words found.
        scale: ``"logit"`` returns log-odds of the same scores.
        latency: seconds that a call takes.
        error: raised by every call instead of an answer.
        name: the scorer's name.

    Attributes:
        calls: how many calls have begun.
        active: how many calls are under way.
        seen: the texts scored, of all calls.
    """

    options_without_effect_on_scores = frozenset({"error", "latency"})

    def __init__(
        self,
        relevance: Callable[[str, str], float] = _share_words,
        *,
        scale: Scale = "probability",
        latency: float = 0.0,
        error: Exception | None = None,
        name: str = "fake",
    ) -> None:
        self.name = name
        self.scale = scale
        self.relevance = relevance
        self.latency = latency
        self.error = error
        self.calls = 0
        self.active = 0
        self.seen: list[str] = []

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the relevance of each text."""
        self.calls += 1
        self.active += 1
        try:
            if self.latency:
                await anyio.sleep(self.latency)
            if self.error is not None:
                raise self.error
            self.seen.extend(texts)
            scores = [self.relevance(query, text) for text in texts]
        finally:
            self.active -= 1
        if self.scale == "logit":
            scores = [math.log(score / (1.0 - score)) for score in scores]
        return Scored(scores, Usage(requests=1))


class ScorerContract(ABC):
    """What every scorer must do, as tests that pytest collects from a subclass.

    Attributes:
        tolerance: how far two scores of the same text may differ, for models whose arithmetic depends on what
            else is in the batch.
        query: a query that ``texts`` answer more or less well.
        texts: distinct texts, not blank.
    """

    tolerance: float = 1e-6
    query: str = "How do I find a memory leak in Python?"
    texts: tuple[str, ...] = (
        "tracemalloc traces memory blocks allocated by Python and finds what is leaking memory.",
        "The weather in Paris is lovely this time of year.",
        "gc.get_objects() returns the objects tracked by the collector; useful to find a leak.",
        "A list is a mutable sequence. " * 40,
        "Grüße aus München: naïve café, 日本語のテキスト, emoji 🐍.",
    )

    @abstractmethod
    def make_scorer(self) -> Scorer:
        """Return the scorer under test."""

    def rank(self, texts: Sequence[str]) -> Ranking[str]:
        """Rank texts with a new reranker around the scorer."""
        return Reranker(self.make_scorer()).rerank(self.query, texts)

    def assert_close(self, left: Sequence[float | None], right: Sequence[float | None]) -> None:
        """Fail where two lists of scores differ by more than the tolerance."""
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert one is not None
            assert other is not None
            assert abs(one - other) <= self.tolerance, (left, right)

    def test_it_declares_a_name_and_a_scale(self) -> None:
        """The name is not blank, and the scale is one that there is."""
        scorer = self.make_scorer()
        assert scorer.name.strip()
        assert scorer.scale in get_args(Scale)

    def test_it_scores_every_text_within_0_and_1(self) -> None:
        """Each text gets one Python float in [0, 1]."""
        scores = self.rank(self.texts).scores
        assert len(scores) == len(self.texts)
        assert all(type(score) is float and 0.0 <= score <= 1.0 for score in scores)

    def test_scores_follow_the_texts_when_they_are_permuted(self) -> None:
        """The order of the input decides no score."""
        forwards = self.rank(self.texts).scores
        backwards = self.rank(self.texts[::-1]).scores
        self.assert_close(forwards, backwards[::-1])

    def test_a_text_scores_the_same_alone(self) -> None:
        """What else is in the request decides no score, unless the scorer says that it is listwise."""
        if self.make_scorer().listwise:
            return
        together = self.rank(self.texts).scores
        alone = [self.rank([text]).scores[0] for text in self.texts]
        self.assert_close(together, alone)

    def test_it_leaves_the_callers_list_alone(self) -> None:
        """The scorer gets a list and leaves it as it was."""
        texts = list(self.texts)
        self.rank(texts)
        assert texts == list(self.texts)

    def test_it_takes_odd_texts(self) -> None:
        """NULs, lone surrogates, control characters and a text without words get scores too."""
        scores = self.rank(["a\x00b", "lone \ud800 surrogate", "\x07", "…", "x" * 5000]).scores
        assert all(score is not None and 0.0 <= score <= 1.0 for score in scores)

    def test_sync_and_async_give_the_same(self) -> None:
        """Both doors lead to the same scores."""
        reranker = Reranker(self.make_scorer())
        first = asyncio.run(reranker.arerank(self.query, self.texts)).scores
        second = asyncio.run(reranker.arerank(self.query, self.texts)).scores
        self.assert_close(first, second)
        self.assert_close(first, reranker.rerank(self.query, self.texts).scores)

    def test_threads_share_one_scorer(self) -> None:
        """Calls from eight threads at once score as one call does."""
        reranker = Reranker(self.make_scorer())
        expected = reranker.rerank(self.query, self.texts).scores
        with ThreadPoolExecutor(8) as pool:
            rankings = list(pool.map(lambda _: reranker.rerank(self.query, self.texts), range(16)))
        for ranking in rankings:
            self.assert_close(ranking.scores, expected)

    def test_it_can_be_cancelled_and_used_again(self) -> None:
        """A call that is cancelled leaves the scorer fit for the next one."""
        reranker = Reranker(self.make_scorer())

        async def cancelled() -> None:
            call = asyncio.ensure_future(reranker.arerank(self.query, self.texts * 4))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})

        asyncio.run(cancelled())
        assert len(reranker.rerank(self.query, self.texts)) == len(self.texts)

    def test_it_can_be_closed_and_used_again(self) -> None:
        """Closing releases connections, not the scorer."""
        with Reranker(self.make_scorer()) as reranker:
            before = reranker.rerank(self.query, self.texts).scores
        self.assert_close(reranker.rerank(self.query, self.texts).scores, before)

    def test_it_survives_pickling(self) -> None:
        """A copy scores as the original does, used or not."""
        scorer = self.make_scorer()
        expected = Reranker(scorer).rerank(self.query, self.texts).scores
        copy = pickle.loads(pickle.dumps(scorer))  # noqa: S301 - our own bytes
        assert copy.name == scorer.name
        self.assert_close(Reranker(copy).rerank(self.query, self.texts).scores, expected)
