"""How applications use the core, for the type checker: this file is checked, not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerank_core import RankedDocument, Ranking, Reranker, Scored, Scorer, Selection, Usage
from rerank_core.scorer import Scorer as BaseScorer


@dataclass(frozen=True)
class Page:
    """A document of an application's own."""

    number: int
    body: str


class ByLength(Scorer):
    """A scorer of an application's own."""

    name = "by-length"

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return a score a text."""
        return Scored([1 / (1 + len(text)) for text in texts], Usage(requests=1))


def read(page: Page) -> str:
    """Return what the model reads of a page."""
    return page.body


def wrong(page: Page) -> int:
    """Return no text."""
    return page.number


def sync(reranker: Reranker, pages: list[Page]) -> None:
    """Check that a ranking carries the type of its documents."""
    ranking: Ranking[Page] = reranker.rerank("query", pages, text_fn=read)
    first: RankedDocument[Page] = ranking[0]
    few: tuple[RankedDocument[Page], ...] = ranking[:2]
    number: int = first.document.number
    score: float | None = first.score
    scores: tuple[float | None, ...] = ranking.scores
    numbers: list[int] = [ranked.document.number for ranked in ranking]
    strings: Ranking[str] = reranker.rerank("query", (page.body for page in pages))
    title: str = strings[0].document.title()
    many: list[Ranking[Page]] = reranker.rerank_many(["a"], [pages], text_fn=read, selection=Selection(top_n=1))
    print(few, number, score, scores, numbers, title, many)


async def asynchronous(reranker: Reranker, pages: tuple[Page, ...]) -> None:
    """Check that the async calls return what the sync ones do."""
    ranking: Ranking[Page] = await reranker.arerank("query", pages, text_fn=read, selection=Selection(top_n=3))
    many: list[Ranking[Page]] = await reranker.arerank_many(["a"], [pages], text_fn=read, progress=True)
    print(ranking, many)


def mistakes(reranker: Reranker, pages: list[Page]) -> None:
    """Check that mistakes are seen: each ignored error must be one, or the checker complains of the comment."""
    strings: Ranking[str] = reranker.rerank("query", pages, text_fn=read)  # type: ignore[arg-type]
    body: int = reranker.rerank("query", pages, text_fn=read)[0].document.body  # type: ignore[assignment]
    reranker.rerank("query", pages, text_fn=wrong)  # type: ignore[arg-type]
    reranker.rerank("query", pages, read)  # type: ignore[call-arg]
    reranker.rerank(b"query", pages)  # type: ignore[arg-type]
    Reranker("embedded", on_error="ignore")  # type: ignore[arg-type]
    Reranker("embedded", top_n=3)  # type: ignore[call-arg]
    Selection(top_n="3")  # type: ignore[arg-type]
    reranker.rerank("query", pages)[0].score + 1.0  # type: ignore[operator]
    print(strings, body)


def application() -> Reranker:
    """Check what a Reranker is made of."""
    scorer: BaseScorer = ByLength()
    with Reranker(scorer, selection=Selection(score_threshold=0.5), timeout=3, on_error="passthrough") as reranker:
        return reranker
