"""Measure rerankers behind a first stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from rerank_core._call import event_loop
from rerank_core._call.request import separate_distinct
from rerank_core._support.checks import check_count
from rerank_core._support.extras import check_installed, require
from rerank_core._support.files import digest
from rerank_core.errors import ConfigurationError, RerankError
from rerank_core.policies.cached import Cached
from rerank_core.policies.caches import DiskCache
from rerank_core.registry import as_scorer
from rerank_core.reranker import Reranker
from rerank_core.scorer import Scorer
from rerank_core.usage import Usage
from rerank_tools.evaluation import measures as measuring
from rerank_tools.evaluation.dataset import Dataset, load_dataset
from rerank_tools.evaluation.first_stage import FirstStage, retrieve
from rerank_tools.evaluation.results import EvaluationResult, QueryResult, SystemResult, make_file_name

_UNLIMITED_BYTES = 2**50
_CACHE_SECONDS = 60.0


def evaluate(
    rerankers: Mapping[str, Reranker | Scorer | str] | Sequence[Scorer | str],
    dataset: Dataset | str | Path,
    *,
    first_stage: FirstStage = "bm25",
    candidates: int = 100,
    top_n: int = 10,
    measures: Sequence[str] | None = None,
    save_to: str | Path | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Measure rerankers behind a first stage, and compare each with the first stage alone.

    Queries are sent one at a time, so that the seconds are those of a single user. From async code, call it
    with ``asyncio.to_thread``. What a :class:`Reranker`'s selection drops is not in its ranking.

    Args:
        rerankers: scorers' names, or a mapping from a name of one's own to a reranker, a scorer or its name.
        dataset: a :class:`Dataset`, or a folder in BEIR layout, which is read in place.
        first_stage: ``"bm25"`` (English), the path of a TREC run file, a run as mappings (query id, document
            id, score), or a function of a query and a number of documents that returns ids, best first.
        candidates: how many candidates the first stage returns.
        top_n: depth of the default measures: nDCG, recall and precision of the best ``top_n``; the others are
            reciprocal rank and average precision. It cuts no ranking.
        measures: names for ``ir_measures``, such as ``"nDCG@10"``, instead of the default ones.
        save_to: folder that keeps each reranker's scores as they come, so that a second evaluation sends only
            what is new; None to keep nothing. Usage and cost are those of this evaluation; a call that found
            scores there has no seconds, and those of others include keeping them, a few milliseconds. Not on a
            network drive.
        progress: show a tqdm bar on the standard error stream, one step per call.

    Raises:
        ConfigurationError: an option or the data set is not usable; nothing is sent then.
        MissingExtraError: the extra ``eval`` is not installed.
        ScorerError: a reranker failed, unless it passes failures through; what was answered is kept.

    >>> from rerank_core.testing import FakeScorer
    >>> data = Dataset({"d1": "Paris in spring", "d2": "a memory leak"}, {"q1": "memory leak"}, {"q1": {"d2": 1}})
    >>> found = evaluate({"fake": FakeScorer()}, data, first_stage=lambda query, candidates: ["d1", "d2"])
    >>> found.baseline.measures["RR"], found["fake"].measures["RR"]
    (0.5, 1.0)
    """
    check_installed("ir_measures", "numpy", "scipy", extra="eval", purpose="evaluate")
    tqdm = require("tqdm.auto", extra="eval", purpose="evaluate").tqdm
    top_n = check_count("top_n", top_n)
    default = (f"nDCG@{top_n}", "RR", "AP", f"R@{top_n}", f"P@{top_n}")
    parsed = measuring.parse_measures(default if measures is None else measures)
    named = _name_rerankers(rerankers)
    data = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    name, found = retrieve(first_stage, data, check_count("candidates", candidates))
    if name in named:
        raise ConfigurationError(f"a reranker is called {name!r}, as the first stage is: give it another name")
    answers = {name: found}
    with ExitStack() as stack:
        if save_to is not None:
            named = {
                key: stack.enter_context(_keep_scores(reranker, _locate_scores(Path(save_to), key)))
                for key, reranker in named.items()
            }
        calls = len(named) * len(found)
        bar = stack.enter_context(tqdm(total=calls, desc="evaluating", unit="call", disable=not progress))
        for key, reranker in named.items():
            answers[key] = _ask_all(reranker, data, found, bar.update, is_kept=save_to is not None)
    qrels = {query: dict(data.qrels[query]) for query in data.judged}
    return EvaluationResult(
        dataset=data.name,
        first_stage=name,
        measures=tuple(map(str, parsed)),
        candidates=candidates,
        qrels=qrels,
        systems=_compare(answers, parsed, qrels, {key: reranker.scorer for key, reranker in named.items()}),
    )


def _name_rerankers(rerankers: object) -> dict[str, Reranker]:
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


def _locate_scores(folder: Path, name: str) -> Path:
    """Return the file of a reranker's own scores: what another one paid for would seem to cost nothing."""
    # Names that differ in case or odd characters alone give the same file name.
    return folder / f"{make_file_name(name)}-{digest(name)[:8]}.scores"


@contextmanager
def _keep_scores(reranker: Reranker, path: Path) -> Iterator[Reranker]:
    """Give a copy that keeps its scores in a file, which is opened now, so that it is known to be usable."""
    cached = Cached(reranker.scorer, DiskCache(path, max_bytes=_UNLIMITED_BYTES), cache_timeout=_CACHE_SECONDS)
    try:
        event_loop.run(cached.cache.get([]))
    except RerankError as exc:
        raise ConfigurationError(f"save_to={str(path.parent)!r} cannot be used: {exc}") from exc
    kept = copy(reranker)
    kept.scorer = cached
    try:
        yield kept
    finally:
        event_loop.run(_end(kept, reranker, cached))


async def _end(kept: Reranker, reranker: Reranker, cached: Cached) -> None:
    """Close the file, and count for the reranker what its copy consumed."""
    reranker.total_usage += kept.total_usage  # in the background loop's thread, as every call does
    await cached.cache.aclose()


def _ask_all(
    reranker: Reranker,
    data: Dataset,
    found: Mapping[str, QueryResult],
    step: Callable[[], object],
    *,
    is_kept: bool,
) -> dict[str, QueryResult]:
    """Return the answer to each query; ``is_kept`` tells that scores may come from an earlier evaluation."""
    answers = {}
    is_warm = False
    for query, first in found.items():
        texts = {document: data.documents[document] for document in first.candidates}
        if not (is_warm or (is_kept and _is_known(reranker.scorer, data.queries[query], texts.values()))):
            reranker.warm_up()  # loading a model is no query's latency
            is_warm = True
        ranking = reranker.rerank(
            data.queries[query], texts, text_fn=texts.__getitem__, retrieval_scores=first.scores
        )
        is_timed = texts and not (is_kept and ranking.usage.cached)
        answers[query] = QueryResult(
            candidates=first.candidates,
            # A blank document's 0.0 is no score of the model's.
            scores=tuple(s if texts[key].strip() else None for key, s in zip(texts, ranking.scores, strict=True)),
            ranked=tuple(ranked.document for ranked in ranking),
            ranked_scores=tuple(ranked.score for ranked in ranking),
            seconds=ranking.usage.seconds if is_timed else None,
            usage=ranking.usage,
            model=ranking.model,
            error=None if ranking.error is None else type(ranking.error).__name__,
        )
        step()
    return answers


def _is_known(scorer: Scorer, query: str, texts: Iterable[str]) -> bool:
    """Return whether an earlier evaluation kept all scores, so that no model has to be loaded for them."""
    return isinstance(scorer, Cached) and event_loop.run(scorer.knows(query, separate_distinct(list(texts))[0]))


def _compare(
    answers: Mapping[str, Mapping[str, QueryResult]],
    measures: Sequence[Any],
    qrels: Mapping[str, Mapping[str, int]],
    scorers: Mapping[str, Scorer],
) -> tuple[SystemResult, ...]:
    """Return one result per system, in order; the first is what the others are compared with."""
    values = {
        name: measuring.measure_run(measures, qrels, {query: answer.run for query, answer in queries.items()})
        for name, queries in answers.items()
    }
    first, *others = answers
    p_values: dict[str, dict[str, float | None]] = {name: {} for name in answers}
    for measure in map(str, measures):
        base = list(values[first][1][measure].values())
        tested = {name: measuring.paired_p_value(list(values[name][1][measure].values()), base) for name in others}
        for name, p_value in measuring.correct_p_values(tested).items():
            p_values[name][measure] = p_value
    systems = []
    for name, queries in answers.items():
        means, per_query = values[name]
        seconds = [answer.seconds for answer in queries.values() if answer.seconds is not None]
        systems.append(
            SystemResult(
                name=name,
                measures=means,
                per_query=per_query,
                intervals={key: measuring.mean_interval(list(each.values())) for key, each in per_query.items()},
                p_values=p_values[name],
                latency_p50=_percentile(seconds, 50.0),
                latency_p95=_percentile(seconds, 95.0),
                usage=reduce(add, (answer.usage for answer in queries.values()), Usage()),
                queries=queries,
                listwise=name in scorers and scorers[name].listwise,
                ordinal=name in scorers and scorers[name].ordinal,  # some know only by their answers
            )
        )
    return tuple(systems)


def _percentile(values: Sequence[float], percent: float) -> float | None:
    numpy = require("numpy", extra="eval", purpose="evaluate")
    return float(numpy.percentile(values, percent)) if values else None
