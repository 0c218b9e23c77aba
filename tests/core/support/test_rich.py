"""A ranking printed by rich."""

from __future__ import annotations

import io

from rich.console import Console

from rerank_core import Reranker, Scored
from rerank_core.errors import ScorerUnavailableError
from rerank_core.scorer import Scorer
from rerank_core.testing import FakeScorer


def printed(renderable: object) -> str:
    """Return what a terminal of 60 columns shows."""
    console = Console(file=io.StringIO(), width=60, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_ranking_is_a_table() -> None:
    """Long texts are cut, and no line is wider than the terminal."""
    ranking = Reranker(FakeScorer()).rerank("memory leak", ["[red]soup[/]", "a memory leak " * 500])
    lines = printed(ranking).splitlines()
    assert lines[0].startswith("memory leak · fake · 2 of 2")
    assert "…" in printed(ranking)
    assert "[red]soup[/]" in lines[-1]
    assert max(map(len, lines)) <= 60
    assert len(lines) < 12


class _Down(Scorer):
    """A service that is down."""

    name = "down"
    scale = "probability"

    async def score(self, query: str, texts: object) -> Scored:
        raise ScorerUnavailableError("no answer")


def test_a_ranking_without_scores_says_why() -> None:
    """As a passthrough returns it."""
    out = printed(Reranker(_Down(), on_error="passthrough").rerank("x", ["one"]))
    assert "–" in out
    assert "not scored: down: no answer" in out
