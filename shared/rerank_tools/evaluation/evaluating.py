"""Measure rerankers behind a first stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rerank_tools.evaluation._comparing import measured
from rerank_tools.evaluation._measures import default_measures, parse_measures
from rerank_tools.evaluation._statistics import TEST
from rerank_tools.evaluation._store import Store, question
from rerank_tools.evaluation.dataset import Dataset, load_dataset
from rerank_tools.evaluation.first_stage import Candidates, FirstStage, retrieve
from rerank_tools.evaluation.results import EvaluationResult, QueryResult

from rerank_core._support.checks import checked_count
from rerank_core._support.extras import check_installed, require
from rerank_core.errors import ConfigurationError
from rerank_core.registry import as_scorer
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.types import Ranking
from rerank_core.usage import Usage

__all__ = ["evaluate"]


def evaluate(
    rerankers: Mapping[str, Reranker | Scorer | str] | Sequence[Scorer | str],
    dataset: Dataset | str | Path,
    *,
    first_stage: FirstStage = "bm25",
    k: int = 10,
    top_k: int = 100,
    measures: Sequence[str] | None = None,
    save_to: str | Path | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Measure rerankers behind a first stage, and compare each with the first stage alone.

    Queries are sent one at a time, so that the seconds are those of a single user; from async code, call it
    by ``asyncio.to_thread``. What a :class:`Reranker`'s selection drops is not in its ranking.

    Args:
        rerankers: scorers' names, or a mapping from a name of one's own to a reranker, a scorer or its name.
        dataset: a :class:`Dataset`, or a folder in BEIR layout, which is read in place.
        first_stage: ``"bm25"`` (English), the path of a TREC run file, a run as mappings (query id, document
            id, score), or a function of a query and a number of documents that returns ids, best first.
        k: depth of the default measures: nDCG, recall and precision of the best ``k``, besides reciprocal
            rank and average precision.
        top_k: how many candidates the first stage gives.
        measures: names for ``ir_measures``, such as ``"nDCG@10"``, instead of the default ones.
        save_to: folder that keeps each answer as it comes, so that a second evaluation sends only what is
            new; None to keep nothing. The seconds of a kept answer are those that it took then.
        progress: show a tqdm bar on the standard error stream, one step a call.

    Raises:
        ConfigurationError: an option or the data set is not usable; nothing is sent then.
        MissingExtraError: the extra ``eval`` is not installed.
        ScorerError: a reranker failed, unless it passes failures through; what was answered is kept.

    >>> from rerank_core.testing import FakeScorer
    >>> data = Dataset({"d1": "Paris in spring", "d2": "a memory leak"}, {"q1": "memory leak"}, {"q1": {"d2": 1}})
    >>> found = evaluate({"fake": FakeScorer()}, data, first_stage=lambda query, top_k: ["d1", "d2"])
    >>> found.baseline.measures["RR"], found["fake"].measures["RR"]
    (0.5, 1.0)
    """
    check_installed("ir_measures", "numpy", "scipy", extra="eval", purpose="evaluate")
    parsed = parse_measures(default_measures(checked_count("k", k, least=1)) if measures is None else measures)
    named = _named(rerankers)
    data = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    name, found = retrieve(first_stage, data, checked_count("top_k", top_k, least=1))
    if name in named:
        raise ConfigurationError(f"a reranker is called {name!r}, as the first stage is: give it another name")
    stores = {key: Store(None if save_to is None else Path(save_to), key, named[key]) for key in named}
    answers: dict[str, dict[str, QueryResult]] = {name: _first_stage_answers(name, found)}
    resumed = 0
    with _progress(len(named) * len(found), shown=progress) as step:
        for key, reranker in named.items():
            answers[key], again = _ask_all(reranker, stores[key], data, found, step)
            resumed += again
    qrels = {query: dict(data.qrels[query]) for query in data.judged}
    listwise = frozenset(key for key, reranker in named.items() if reranker.scorer.listwise)
    return EvaluationResult(
        dataset=data.name,
        first_stage=name,
        measures=tuple(map(str, parsed)),
        top_k=top_k,
        qrels=qrels,
        systems=measured(answers, parsed, qrels, listwise),
        test=TEST,
        resumed=resumed,
    )


def _named(rerankers: object) -> dict[str, Reranker]:
    if isinstance(rerankers, Mapping):
        pairs = list(rerankers.items())
    elif isinstance(rerankers, Sequence) and not isinstance(rerankers, str):
        pairs = [(getattr(item, "name", item), item) for item in rerankers]
    else:
        raise ConfigurationError(
            f"rerankers is a {type(rerankers).__name__}: give a list of scorers' names, or a mapping"
        )
    named: dict[str, Reranker] = {}
    for name, item in pairs:
        if not isinstance(name, str) or not name.strip() or name in named:
            raise ConfigurationError(
                f"a reranker is called {name!r}: give each a name, a string that no other has"
            )
        named[name] = item if isinstance(item, Reranker) else Reranker(as_scorer(item))
    return named


def _first_stage_answers(name: str, found: Mapping[str, Candidates]) -> dict[str, QueryResult]:
    answers = {}
    for query, candidates in found.items():
        ids, scores = tuple(candidates.scores), tuple(candidates.scores.values())
        answers[query] = QueryResult(ids, scores, ids, scores, candidates.seconds, Usage(), name)
    return answers


def _ask_all(
    reranker: Reranker, store: Store, data: Dataset, found: Mapping[str, Candidates], step: Callable[[], object]
) -> tuple[dict[str, QueryResult], int]:
    """Return the answer to each query, and how many of them were kept from an earlier evaluation."""
    answers: dict[str, QueryResult] = {}
    resumed = 0
    warm = False
    for query, candidates in found.items():
        texts = {document: data.documents[document] for document in candidates.scores}
        key = question(data.queries[query], texts)
        answer = store.get(key)
        if answer is None:
            if not warm:
                reranker.warm_up()  # loading a model is no query's latency
                warm = True
            answer = _answer(tuple(texts), reranker.rerank(data.queries[query], texts, text_fn=texts.__getitem__))
            store.put(key, answer)
        else:
            resumed += 1
        answers[query] = answer
        step()
    return answers, resumed


def _answer(candidates: tuple[str, ...], ranking: Ranking[str]) -> QueryResult:
    return QueryResult(
        candidates=candidates,
        scores=ranking.scores,
        ranked=tuple(ranked.document for ranked in ranking),
        ranked_scores=tuple(ranked.score for ranked in ranking),
        seconds=ranking.usage.seconds if candidates else None,
        usage=ranking.usage,
        model=ranking.model,
        error=None if ranking.error is None else type(ranking.error).__name__,
    )


@contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[], object]]:
    """Give a function that is called after each step."""
    if not shown:
        yield lambda: None
        return
    tqdm = require("tqdm.auto", extra="eval", purpose="progress=True")
    with tqdm.tqdm(total=total, desc="evaluating", unit="call") as bar:
        yield bar.update
