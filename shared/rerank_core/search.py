"""Two-stage search for programs without a framework: their own first stage, then a reranker."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Real
from operator import attrgetter
from typing import Any, Generic, TypeVar

import anyio.to_thread

from rerank_core._call.request import TEXT_NAMES, check_query
from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection
from rerank_core.types import Passage, Ranking

__all__ = ["SearchResult", "atwo_stage_search", "two_stage_search"]

D = TypeVar("D")
_Candidates = Iterable[D | tuple[D, float]]


@dataclass(frozen=True, slots=True)
class SearchResult(Generic[D]):
    """One result of a two-stage search.

    Attributes:
        document: the object that the first stage returned.
        text: what the model read.
        rank: position among the results, from 1, best first.
        original_index: position in what the first stage returned, from 0.
        score: the reranker's relevance score in [0, 1]; None where nothing was scored (passthrough).
        retrieval_score: the first stage's score on its own scale; None where it gave none.
        metadata: the first stage's fields besides text and score.
        passage: the passage of ``text`` that the score is about, None for the whole text.
    """

    document: D
    text: str
    rank: int
    original_index: int
    score: float | None
    retrieval_score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    passage: Passage | None = None


def two_stage_search(
    query: str,
    search: Callable[[str, int], _Candidates[D]],
    reranker: Reranker | Scorer | str,
    candidates: int = 100,
    top_n: int | None = 10,
    *,
    text_fn: Callable[[D], str] | None = None,
) -> list[SearchResult[D]]:
    """Search with any first stage, rerank its candidates, and return the best.

    Args:
        query: the user's question; not blank.
        search: the first stage, ``search(query, candidates)``, best first. It returns strings; mappings or objects
            with ``text``, ``page_content`` or ``content``, and optionally ``score`` and ``metadata``; or pairs of
            one of these and its score. The other keys of a mapping become metadata.
        reranker: the second stage: a reranker, whose thresholds, deadline and ``retrieval_weight`` apply, a
            scorer, or a scorer's name.
        candidates: how many documents the first stage is asked for, at least 1; any beyond are not read.
        top_n: how many results are returned at most, at least 1; None for all.
        text_fn: returns a document's text, where it is kept under another name.

    Raises:
        ConfigurationError: the query is blank, a number is out of its range, ``search`` is asynchronous, or a
            document's text or score cannot be found.
        ScorerError: the scorer failed, and the reranker's ``on_error`` is ``"raise"``.

    >>> from rerank_core.testing import FakeScorer
    >>> rows = [{"text": "Paris in spring", "score": 7.1}, {"text": "memory leak", "score": 6.8, "page": 3}]
    >>> [best] = two_stage_search("memory leak", lambda query, candidates: rows, FakeScorer(), top_n=1)
    >>> best.text, best.original_index, best.retrieval_score, best.metadata
    ('memory leak', 1, 6.8, {'page': 3})
    """
    stage, selection = _second_stage(reranker, candidates, top_n)
    found: Any = search(check_query(query), candidates)
    if inspect.isawaitable(found):
        if inspect.iscoroutine(found):
            found.close()
        raise ConfigurationError("search is asynchronous: call atwo_stage_search")
    documents = _read_candidates(found, candidates, text_fn)
    scores = _list_scores(stage, documents)
    return _build_results(
        stage.rerank(query, documents, text_fn=_read_text, selection=selection, retrieval_scores=scores)
    )


async def atwo_stage_search(
    query: str,
    search: Callable[[str, int], _Candidates[D] | Awaitable[_Candidates[D]]],
    reranker: Reranker | Scorer | str,
    candidates: int = 100,
    top_n: int | None = 10,
    *,
    text_fn: Callable[[D], str] | None = None,
) -> list[SearchResult[D]]:
    """Search as :func:`two_stage_search` does, with a synchronous or asynchronous first stage.

    A synchronous ``search`` runs in a thread, so that the event loop goes on.
    """
    stage, selection = _second_stage(reranker, candidates, top_n)
    query = check_query(query)
    call = getattr(search, "__call__", search)  # noqa: B004 - an object whose __call__ is asynchronous
    if inspect.iscoroutinefunction(search) or inspect.iscoroutinefunction(call):
        found = search(query, candidates)
    else:
        found = await anyio.to_thread.run_sync(search, query, candidates)
    documents = _read_candidates(await found if inspect.isawaitable(found) else found, candidates, text_fn)
    scores = _list_scores(stage, documents)
    return _build_results(
        await stage.arerank(query, documents, text_fn=_read_text, selection=selection, retrieval_scores=scores)
    )


_read_text = attrgetter("text")


def _second_stage(
    reranker: Reranker | Scorer | str, candidates: object, top_n: int | None
) -> tuple[Reranker, Selection]:
    check_count("candidates", candidates)
    stage = reranker if isinstance(reranker, Reranker) else Reranker(reranker)
    return stage, replace(stage.selection, top_n=top_n)


def _read_candidates(
    found: _Candidates[D], count: int, text_fn: Callable[[D], str] | None
) -> list[SearchResult[D]]:
    if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
        raise ConfigurationError(f"search returned a {type(found).__name__}: it must return a list of documents")
    return [_read_candidate(position, given, text_fn) for position, given in enumerate(islice(found, count))]


def _read_candidate(position: int, given: Any, text_fn: Callable[[D], str] | None) -> SearchResult[D]:
    where = f"the first stage's document {position}"
    document, score = given if isinstance(given, tuple) and len(given) == 2 else (given, None)

    def read(name: str) -> Any:
        if isinstance(document, Mapping):
            return document.get(name)
        return None if isinstance(document, str) else getattr(document, name, None)

    name = next((name for name in TEXT_NAMES if read(name) is not None), "")
    text: object = document if isinstance(document, str) else read(name)
    if text_fn is not None:
        text, name = text_fn(document), ""
    if not isinstance(text, str):
        raise ConfigurationError(
            f"{where}, a {type(document).__name__}, has no string as {', '.join(TEXT_NAMES)}: give text_fn="
        )
    if score is None:
        score = read("score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, Real)):
        raise ConfigurationError(f"{where} has a {type(score).__name__} as its score: give a number or None")
    metadata = read("metadata")
    result = dict(metadata) if isinstance(metadata, Mapping) else {}
    if isinstance(document, Mapping):
        result.update((key, value) for key, value in document.items() if key not in ("score", "metadata", name))
    return SearchResult(document, text, 0, position, None, None if score is None else float(score), result)


def _list_scores(stage: Reranker, found: Iterable[SearchResult[Any]]) -> list[float | None] | None:
    return [each.retrieval_score for each in found] if stage.retrieval_weight else None


def _build_results(ranking: Ranking[SearchResult[D]]) -> list[SearchResult[D]]:
    return [
        replace(each.document, text=each.text, rank=each.rank, score=each.score, passage=each.passage)
        for each in ranking
    ]
