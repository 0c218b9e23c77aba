"""Reranker: checks the input, calls the scorer, selects and ranks. Every call flows through here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from operator import length_hint
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, TypeVar, get_args

import anyio

from rerank_core import telemetry
from rerank_core._call import event_loop
from rerank_core._call.asking import call_scorer, translate_errors
from rerank_core._call.consumption import count_consumption
from rerank_core._call.event_loop import run_work
from rerank_core._call.fan_out import fan_out, show_progress
from rerank_core._call.request import Request, read_texts, separate_distinct
from rerank_core._support.checks import check_choice, check_seconds
from rerank_core.errors import ConfigurationError, RerankError, ScorerError, ScorerTimeoutError, name_scorer
from rerank_core.registry import as_scorer
from rerank_core.scorer import Scorer
from rerank_core.selection import Selection, check_selection
from rerank_core.types import Ranking, Scored
from rerank_core.usage import Usage

__all__ = ["OnError", "Reranker"]

D = TypeVar("D")
OnError = Literal["raise", "passthrough"]

_PRECOMPUTED_AT_ONCE = 256

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
    ) -> None:
        self.scorer = as_scorer(scorer)
        check_choice("on_error", on_error, get_args(OnError))
        self.selection = self._check_thresholds(check_selection(selection))
        self.timeout = None if timeout is None else check_seconds("timeout", timeout)
        self.on_error = on_error
        self._total_usage = Usage()

    @property
    def total_usage(self) -> Usage:
        """What all calls of this reranker consumed so far, failed ones too; a copy starts at zero."""
        return self._total_usage

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_total_usage": Usage()}

    def __repr__(self) -> str:
        return f"Reranker({self.scorer.name!r}, {self.selection!r})"

    def rerank(
        self,
        query: str,
        documents: Iterable[D],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
    ) -> Ranking[D]:
        """Rank documents for a query.

        Args:
            query: what the user asks; not blank.
            documents: strings, or any objects with ``text_fn``, in the first stage's order. They are returned
                as they are, never copied or changed. Blank texts are not sent to the model and score 0.0.
            text_fn: returns the text of a document, which the model reads.
            selection: replaces the reranker's own.

        Raises:
            ConfigurationError: the query is blank (with documents to rank, without passthrough), or a text is no
                string.
            ScorerError: the scorer failed, and ``on_error`` is ``"raise"``.
        """
        request = self._make_request(query, documents, text_fn, selection)
        return event_loop.run(self._rank(request)) if request.texts else self._empty(request)

    async def arerank(
        self,
        query: str,
        documents: Iterable[D],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
    ) -> Ranking[D]:
        """Rank documents for a query, as :meth:`rerank` does; cancelling it cancels the work."""
        request = self._make_request(query, documents, text_fn, selection)
        return await event_loop.arun(self._rank(request)) if request.texts else self._empty(request)

    def rerank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
        progress: bool = False,
    ) -> list[Ranking[D]]:
        """Rank each query's documents, as a loop of :meth:`rerank` would, but faster.

        Args:
            queries: as many as there are lists of documents.
            documents_per_query: one collection of documents per query.
            text_fn: as in :meth:`rerank`.
            selection: as in :meth:`rerank`.
            progress: show a tqdm bar with one step per query.

        Raises:
            ConfigurationError: the lengths differ, or as :meth:`rerank`; nothing is sent then.
            ScorerError: the first failure; the rest is cancelled.
            MissingExtraError: ``progress`` without tqdm installed.
        """
        requests = self._make_requests(queries, documents_per_query, text_fn, selection)
        return event_loop.run(fan_out(self._rank_in_turn, requests, progress=progress))

    async def arerank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        *,
        text_fn: Callable[[D], str] | None = None,
        selection: Selection | None = None,
        progress: bool = False,
    ) -> list[Ranking[D]]:
        """Rank each query's documents, as :meth:`rerank_many` does."""
        requests = self._make_requests(queries, documents_per_query, text_fn, selection)
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
        for texts in _read_pieces(documents, text_fn, progress=progress):
            usage += event_loop.run(translate_errors(self.scorer, self.scorer.precompute, texts))
        return replace(usage, seconds=perf_counter() - started)

    async def aprecompute(
        self, documents: Iterable[D], *, text_fn: Callable[[D], str] | None = None, progress: bool = False
    ) -> Usage:
        """Encode documents before anybody asks, as :meth:`precompute` does."""
        started, usage = perf_counter(), Usage()
        for texts in _read_pieces(documents, text_fn, progress=progress):
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

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Reranker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _make_request(
        self,
        query: str,
        documents: Iterable[D],
        text_fn: Callable[[D], str] | None,
        selection: Selection | None,
    ) -> Request[D]:
        chosen = self.selection if selection is None else self._check_thresholds(selection)
        return Request.of(query, documents, text_fn, chosen, allow_blank=self.on_error == "passthrough")

    def _make_requests(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[D]],
        text_fn: Callable[[D], str] | None,
        selection: Selection | None,
    ) -> list[Request[D]]:
        if isinstance(queries, str):
            raise ConfigurationError("queries is a single string: give a list of queries")
        if len(queries) != len(documents_per_query):
            raise ConfigurationError(
                f"{len(queries)} queries but {len(documents_per_query)} collections of documents: give one each"
            )
        pairs = zip(queries, documents_per_query, strict=True)
        return [self._make_request(query, documents, text_fn, selection) for query, documents in pairs]

    def _check_thresholds(self, selection: Selection) -> Selection:
        """Refuse thresholds on scores that only say the order."""
        for name in ("score_threshold", "adaptive_ratio"):
            if self.scorer.ordinal and getattr(selection, name) is not None:
                raise ConfigurationError(
                    f"{name} means nothing for {self.scorer.name}: its scores only say the order, not how "
                    "relevant a document is; use top_n, or a scorer that grades"
                )
        return selection

    def _empty(self, request: Request[D]) -> Ranking[D]:
        return Ranking(request.query, self.scorer.name, selection=request.selection)

    async def _rank_in_turn(self, request: Request[D]) -> Ranking[D]:
        return await self._rank(replace(request, started=perf_counter()))

    async def _rank(self, request: Request[D]) -> Ranking[D]:
        if not request.texts:
            return self._empty(request)
        if not request.query.strip():
            _logger.warning("not reranked, first-stage order returned: the query is empty")
            return self._passthrough(request, Usage(), ConfigurationError("the query is empty"))
        steps = 3 * len(request.texts)
        with telemetry.start_span(self.scorer.name, len(request.texts)) as span:
            try:
                with count_consumption() as consumed:
                    ranking = await self._score(request)
            except ScorerError as exc:
                exc.partial = await run_work(steps, request.spread_some, exc.partial)
                exc.usage = consumed.usage
                usage = self._report(span, request, self.scorer.name, consumed.usage, exc)
                ranking = await run_work(steps, self._passthrough, request, usage, exc)
                if self.on_error == "raise":
                    telemetry.describe_ranking(span, replace(ranking, documents=()), request.texts)
                    raise
                await run_work(steps, telemetry.describe_ranking, span, ranking, request.texts)
                _logger.warning("not reranked, first-stage order returned: %s", exc)
                return ranking
            except BaseException:
                self._total_usage += consumed.usage
                raise
            ranking = replace(ranking, usage=self._report(span, request, ranking.model, consumed.usage))
            await run_work(steps, telemetry.describe_ranking, span, ranking, request.texts)
        return ranking

    def _make_ranking(self, request: Request[D], scored: Scored) -> Ranking[D]:
        scores = request.spread(scored.scores, blank=0.0)
        tiers = request.spread(scored.tiers, blank=max(scored.tiers) + 1) if scored.tiers else ()
        passages = request.spread(scored.passages, blank=None) if scored.passages else ()
        return Ranking(
            request.query,
            scored.model or self.scorer.name,
            request.rank_documents(request.selection.select(scores, tiers), scores, passages),
            tuple(scores),
            attempts=scored.attempts,
            selection=request.selection,
        )

    def _report(
        self, span: Any, request: Request[D], model: str, usage: Usage, error: ScorerError | None = None
    ) -> Usage:
        """Add a call's usage to the total, report it, and return it with the call's time."""
        usage = replace(usage, seconds=perf_counter() - request.started)
        self._total_usage += usage  # only ever in the background loop's thread, so no addition is lost
        failed = None if error is None else type(error).__name__
        telemetry.report(telemetry.CallReport(model, len(request.texts), usage, failed), span)
        return usage

    async def _score(self, request: Request[D]) -> Ranking[D]:
        """Return the ranking, without its usage.

        Raises:
            ScorerError: the scorer failed, or the deadline passed before the ranking was there.
        """
        if not request.distinct:
            return self._make_ranking(request, Scored(()))
        limit = None if self.timeout is None else self.timeout - (perf_counter() - request.started)
        with anyio.move_on_after(limit) as scope:
            scored = await call_scorer(self.scorer, request.query, request.distinct)
            ranking = await run_work(3 * len(request.texts), self._make_ranking, request, scored)
            if anyio.current_time() < scope.deadline:
                return ranking
        with name_scorer(self.scorer.name):
            raise ScorerTimeoutError(
                f"did not answer within timeout={self.timeout} s ({len(request.distinct)} texts): "
                "give it longer, send fewer documents, or use on_error='passthrough'"
            )

    def _passthrough(self, request: Request[D], usage: Usage, error: RerankError) -> Ranking[D]:
        order = range(len(request.texts))[: request.selection.top_n]
        none: list[float | None] = [None] * len(request.texts)
        ranked = request.rank_documents(order, none)
        return Ranking(
            request.query, self.scorer.name, ranked, tuple(none), usage, error, selection=request.selection
        )


def _read_pieces(
    documents: Iterable[D], text_fn: Callable[[D], str] | None, *, progress: bool
) -> Iterator[list[str]]:
    """Return the distinct texts of documents, some hundred at a time, without blank ones."""
    if isinstance(documents, (str, bytes)):
        raise ConfigurationError(f"documents is a single {type(documents).__name__}: give a list of documents")
    waiting = iter(documents)
    first = 0
    with show_progress("encoding", "document", length_hint(documents) or None, wanted=progress) as bar:
        while piece := list(islice(waiting, _PRECOMPUTED_AT_ONCE)):
            yield separate_distinct(read_texts(piece, text_fn, first=first))[0]
            first += len(piece)
            if bar is not None:
                bar.update(len(piece))
