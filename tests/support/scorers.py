"""Small scorers for tests: each misbehaves, waits or looks in one way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from rerank_core import Scored, Scorer, Usage
from rerank_core.scorer import Scale


class Answers(Scorer):
    """Returns the answer it was given, whatever the texts; its counters are those of FakeScorer."""

    def __init__(self, scores: Any, *, scale: Scale = "probability", model: str | None = None) -> None:
        self.name = "answers"
        self.scale = scale
        self.answer = scores
        self.model = model
        self.seen: list[str] = []

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the answer."""
        self.seen.extend(texts)
        return Scored(self.answer, Usage(requests=1, tokens=7), self.model)


class Calls(Scorer):
    """Scores every text with what an async function of query and texts returns."""

    name = "calls"

    def __init__(self, function: Callable[[str, Sequence[str]], Awaitable[float]]) -> None:
        self.function = function
        self.active = 0

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Await the function, and give each text the number."""
        self.active += 1
        try:
            return Scored([await self.function(query, texts)] * len(texts))
        finally:
            self.active -= 1


class Endless(Scorer):
    """Waits until it is cancelled."""

    name = "endless"

    def __init__(self) -> None:
        self.active = 0
        self.calls = 0

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Wait for ever."""
        self.calls += 1
        self.active += 1
        try:
            await anyio.sleep_forever()
        finally:
            self.active -= 1
        raise AssertionError("unreachable")
