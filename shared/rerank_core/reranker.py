"""Reranker: checks the input, calls the scorer, selects and ranks. Every call flows through here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal, TypeVar, get_args

import anyio

from rerank_core import telemetry
from rerank_core._call import event_loop
from rerank_core._call.asking import Consumption, call_scorer, translate_errors
from rerank_core._call.event_loop import run_work
from rerank_core._call.fan_out import fan_out
from rerank_core._call.request import Request, read_pieces
from rerank_core._support.checks import check_choice, check_fraction, check_seconds
from rerank_core.errors import ConfigurationError, ScorerError, ScorerTimeoutError, name_scorer
from rerank_core.registry import as_scorer
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection, check_selection
from rerank_core.types import Ranking
from rerank_core.usage import Usage

__all__ = ["OnError", "Reranker"]

D = TypeVar("D")
OnError = Literal["raise", "passthrough"]

_logger = logging.getLogger("rerank_core")


class Reranker:
    """Ranks documents by their relevance to a query, with any scorer.

    A reranker may be shared by any number of threads and event loops. It is cheap to make, and rerankers of the
    same local model share its weights. Pickling and copying keep the configuration, but no connections.

    Args:
        scorer: a scorer, or a name for :func:`rerank_core.load_scorer` such as ``"embedded"``.
        selection: which documents survive; a call may give another.
        timeout: seconds that a whole call may take, waiting and retries included; None for no limit. In
            ``rerank_many`` it applies to each query, from the moment that its turn comes.
        retrieval_weight: how much the first stage's opinion counts for the order, in [0, 1]: documents are ordered
            by (1 − w) × relevance + w × first-stage score, each scaled to [0, 1] within the call's candidates.
            The scores that are shown, and those that thresholds judge, stay the relevance. 0.15 suits BM25 before
            a small model; :func:`rerank_tools.evaluation.suggest_retrieval_weight` finds it on labelled data.
        on_error: ``"raise"``, or ``"passthrough"``: on a :class:`ScorerError`, such as a timeout, return the
            first stage's order cut to ``top_n``, with scores of None and the error in ``ranking.error``, and log
            one warning; also for a blank query. Other bad input and bad configuration always raise.

    Raises:
        ConfigurationError: an option is out of its range, the scorer's name is unknown, or a threshold is given
            for a scorer whose scores only say the order.
        MissingExtraError: the scorer needs a package that is not installed.

    >>> from rerank_core.testing import FakeScorer
    >>> reranker = Reranker(FakeScorer(), selection=Selection(top_n=1))
    >>> ranking = reranker.rerank("memory leak", ["Paris in spring", "finding a memory leak"])
    >>> ranking[0].document, ranking[0].index, ranking[0].rank
    ('finding a memory leak', 1, 1)
    """

    def __init__(
        self,
        scorer: Scorer | str,
        *,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        timeout: float | None = None,
        on_error: OnError = "raise",
        retrieval_weight: float = 0.0,
    ) -> None:
        self.scorer = as_scorer(scorer)
        check_choice("on_error", on_error, get_args(OnError))
        self.selection = self._check_thresholds(check_selection(selection))
        self.timeout = None if timeout is None else check_seconds("timeout", timeout)
        self.on_error = on_error
        self.retrieval_weight = check_fraction("retrieval_weight", retrieval_weight)
        self.total_usage = Usage()
        """What all calls of this reranker consumed so far, failed ones too; a copy starts at zero."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "total_usage": Usage()}

    def __repr__(self) -> str:
        return f"Reranker({self.scorer.name!r}, {self.selection!r})"

    def rerank(
        self,
        query: str,
        documents: Iterable[D],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
        retrieval_scores: Iterable[float | None] | None = None,
    ) -> Ranking[D]:
        """Rank documents for a query.

        Args:
            query: what the user asks; not blank.
            documents: strings, or any objects with ``text_fn``, in the first stage's order. They are returned
                as they are, never copied or changed. Blank texts are not sent to the model and score 0.0.
            text_fn: returns the text of a document, which the model reads.
            selection: replaces the reranker's own.
            retrieval_scores: the first stage's scores, for ``retrieval_weight``: one per document, higher is
                better, on any scale. A document without one (None) counts as the lowest of them. Without any, the
                order of the documents takes their place, as −log2(1 + rank).

        Raises:
            ConfigurationError: the query is blank (with documents to rank, without passthrough), a text is no
                string, or ``retrieval_scores`` are not one finite number or None per document.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        [request] = self._make_requests([query], [documents], text_fn, selection, [retrieval_scores])
        return event_loop.run(self._rank(request))

    async def arerank(
        self,
        query: str,
        documents: Iterable[D],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
        retrieval_scores: Iterable[float | None] | None = None,
    ) -> Ranking[D]:
        """Rank documents for a query, as :meth:`rerank` does; cancelling it cancels the work."""
        [request] = self._make_requests([query], [documents], text_fn, selection, [retrieval_scores])
        return await event_loop.arun(self._rank(request))

    def rerank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
        retrieval_scores: Sequence[Iterable[float | None] | None] | None = None,
        progress: bool = False,
    ) -> list[Ranking[D]]:
        """Rank each query's documents, as a loop of :meth:`rerank` would, but faster.

        Args:
            queries: as many as there are lists of documents.
            documents_per_query: one collection of documents per query.
            text_fn: as in :meth:`rerank`.
            selection: as in :meth:`rerank`.
            retrieval_scores: for each query the scores of its documents, or None; as in :meth:`rerank`.
            progress: show a tqdm bar with one step per query.

        Raises:
            ConfigurationError: the lengths differ, or as :meth:`rerank`; nothing is sent then.
            ScorerError: the first failure; the rest is cancelled.
            MissingExtraError: ``progress`` without tqdm installed.
        """
        requests = self._make_requests(queries, documents_per_query, text_fn, selection, retrieval_scores)
        return event_loop.run(fan_out(self._rank_in_turn, requests, progress=progress))

    async def arerank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
        retrieval_scores: Sequence[Iterable[float | None] | None] | None = None,
        progress: bool = False,
    ) -> list[Ranking[D]]:
        """Rank each query's documents, as :meth:`rerank_many` does."""
        requests = self._make_requests(queries, documents_per_query, text_fn, selection, retrieval_scores)
        return await event_loop.arun(fan_out(self._rank_in_turn, requests, progress=progress))

    def precompute(
        self, documents: Iterable[D], *, text_fn: Callable[[D], str] | None = None, progress: bool = False
    ) -> Usage:
        """Encode and store documents ahead, for scorers with a vector file: ``embedded`` with ``vectors=``.

        What is stored already is not encoded again, so a run that was interrupted is simply repeated.

        Args:
            documents: as in :meth:`rerank`; also a generator, which is read piece by piece.
            text_fn: as in :meth:`rerank`.
            progress: show a tqdm bar with one step per document.

        Returns:
            How many texts were encoded (``documents``) and how many were stored before (``stored``).

        Raises:
            ConfigurationError: the scorer stores no vectors, or a text is no string.
            ScorerError: encoding or storing failed.
            MissingExtraError: ``progress`` without tqdm installed.
        """
        started, usage = perf_counter(), Usage()
        for texts in read_pieces(documents, text_fn, progress=progress):
            usage += event_loop.run(translate_errors(self.scorer, self.scorer.precompute, texts))
        return replace(usage, seconds=perf_counter() - started)

    async def aprecompute(
        self, documents: Iterable[D], *, text_fn: Callable[[D], str] | None = None, progress: bool = False
    ) -> Usage:
        """Encode documents before anybody asks, as :meth:`precompute` does."""
        started, usage = perf_counter(), Usage()
        for texts in read_pieces(documents, text_fn, progress=progress):
            usage += await event_loop.arun(translate_errors(self.scorer, self.scorer.precompute, texts))
        return replace(usage, seconds=perf_counter() - started)

    def warm_up(self) -> None:
        """Load the model now, so that the first call does not wait for it."""
        event_loop.run(translate_errors(self.scorer, self.scorer.warm_up))

    async def awarm_up(self) -> None:
        """Load the model now, as :meth:`warm_up` does."""
        await event_loop.arun(translate_errors(self.scorer, self.scorer.warm_up))

    def close(self) -> None:
        """Release the scorer's connections; also done by leaving a ``with`` block."""
        event_loop.run(translate_errors(self.scorer, self.scorer.aclose))

    async def aclose(self) -> None:
        """Release the scorer's connections; also done by leaving an ``async with`` block."""
        await event_loop.arun(translate_errors(self.scorer, self.scorer.aclose))

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Reranker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _make_requests(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        text_fn: Callable[[D], str] | None,
        selection: Selection | None,
        retrieval_scores: Sequence[Iterable[float | None] | None] | None,
    ) -> list[Request[D]]:
        if isinstance(queries, str):
            raise ConfigurationError("queries is a single string: give a list of queries")
        scores = [None] * len(queries) if retrieval_scores is None else retrieval_scores
        for name, given in (("documents", documents_per_query), ("retrieval_scores", scores)):
            if len(queries) != len(given):
                raise ConfigurationError(f"{len(queries)} queries but {len(given)} lists of {name}: give one each")
        chosen = self.selection if selection is None else self._check_thresholds(check_selection(selection))
        allow_blank = self.on_error == "passthrough"
        return [
            Request.of(query, documents, text_fn, chosen, known, allow_blank=allow_blank)
            for query, documents, known in zip(queries, documents_per_query, scores, strict=True)
        ]

    def _check_thresholds(self, selection: Selection) -> Selection:
        """Refuse thresholds on scores that only say the order."""
        for name in ("score_threshold", "adaptive_ratio") if self.scorer.ordinal else ():
            if getattr(selection, name) is not None:
                raise ConfigurationError(
                    f"{name} means nothing for {self.scorer.name}: its scores only say the order, not how "
                    "relevant a document is; use top_n, or a scorer that grades"
                )
        return selection

    async def _rank_in_turn(self, request: Request[D]) -> Ranking[D]:
        return await self._rank(replace(request, started=perf_counter()))

    async def _rank(self, request: Request[D]) -> Ranking[D]:
        if not request.texts:
            return request.make_ranking(self.scorer)
        if not request.query.strip():
            _logger.warning("not reranked, first-stage order returned: the query is empty")
            return request.keep_order(self.scorer.name, Usage(), ConfigurationError("the query is empty"))
        steps = 3 * len(request.texts)
        with telemetry.start_span(self.scorer.name, len(request.texts), self.retrieval_weight) as span:
            try:
                with Consumption() as consumed:
                    ranking = await self._score(request)
            except ScorerError as exc:
                exc.partial = await run_work(steps, request.spread_some, exc.partial)
                usage = self._report(span, request, self.scorer.name, consumed.usage, exc)
                ranking = await run_work(steps, request.keep_order, self.scorer.name, usage, exc)
                if self.on_error == "raise":
                    telemetry.describe_ranking(span, replace(ranking, documents=()), request.texts)
                    raise
                await run_work(steps, telemetry.describe_ranking, span, ranking, request.texts)
                _logger.warning("not reranked, first-stage order returned: %s", exc)
                return ranking
            except BaseException:
                self.total_usage += consumed.usage
                raise
            ranking = replace(ranking, usage=self._report(span, request, ranking.model, consumed.usage))
            await run_work(steps, telemetry.describe_ranking, span, ranking, request.texts)
        return ranking

    def _report(
        self, span: Any, request: Request[D], model: str, usage: Usage, error: ScorerError | None = None
    ) -> Usage:
        """Add a call's usage to the total, report it, and return it with the call's time."""
        usage = replace(usage, seconds=perf_counter() - request.started)
        self.total_usage += usage  # only ever in the background loop's thread, so no addition is lost
        failed = None if error is None else type(error).__name__
        telemetry.report(telemetry.CallReport(model, len(request.texts), usage, failed), span)
        return usage

    async def _score(self, request: Request[D]) -> Ranking[D]:
        """Return the ranking, without its usage, within the deadline."""
        if not request.distinct:
            return request.make_ranking(self.scorer)
        limit = None if self.timeout is None else self.timeout - (perf_counter() - request.started)
        with anyio.move_on_after(limit) as scope:
            scored = await call_scorer(self.scorer, request.query, request.distinct)
            self._check_thresholds(request.selection)  # some scorers know only now what their scores mean
            weight = self.retrieval_weight
            ranking = await run_work(3 * len(request.texts), request.make_ranking, self.scorer, scored, weight)
            if anyio.current_time() < scope.deadline:
                return ranking
        with name_scorer(self.scorer.name):
            raise ScorerTimeoutError(
                f"did not answer within timeout={self.timeout} s ({len(request.distinct)} texts): "
                "give it longer, send fewer documents, or use on_error='passthrough'"
            )
