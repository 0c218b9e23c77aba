"""One call of a service's scorer: split, send, retry, count."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from time import perf_counter

import anyio
from pydantic import SecretStr

from rerank_core._call.asking import Consumption, add_consumption, answer_deadline
from rerank_core._call.event_loop import run_text_work, run_work
from rerank_core._call.scores import validate_scores
from rerank_core.errors import InvalidResponseError, RequestTooLargeError, ScorerError, ScorerTimeoutError
from rerank_core.reading import estimate_tokens, least_tokens, max_tokens
from rerank_core.remote.failure import RequestFailure, quotes_key
from rerank_core.remote.response import ParsedReply, scores_by_index
from rerank_core.remote.sending import ClientSession
from rerank_core.remote.service import RemoteModel
from rerank_core.remote.splitting import count_search_units, split
from rerank_core.types import Passage, Scale, Scored
from rerank_core.usage import Usage

_logger = logging.getLogger("rerank_core")

_LOWEST: Mapping[Scale, float] = {"probability": 0.0, "logit": -1000.0, "cosine": -1.0}
_LOST = ParsedReply(())
"""Reports nothing, like a reply that was lost."""
_MIN_SCORES_TO_DOUBT = 3
_COUNTED_IF_NEEDED = 1000
_BATCHES_PER_SLOT = 2
"""Of a call at once: one that waits for its repetition holds no slot, and other calls' requests come between."""


class RemoteCall:
    """Scores texts in as many requests as the limits ask for, all under the session's limiter.

    Each request is repeated on its own, so texts that were scored are never sent again. When one request fails
    for good, no further request starts; those already sent are awaited, because they are paid for.
    """

    def __init__(self, scorer: RemoteModel, session: ClientSession, query: str, texts: Sequence[str]) -> None:
        self._scorer = scorer
        self._limits = scorer.model_facts.limits
        self._session = session
        self._query = scorer.full_query(query)
        self._texts = texts
        self._scores: dict[int, float] = {}
        self._passages: dict[int, Passage] = {}
        self._left_out: set[int] = set()
        self._error: ScorerError | None = None
        self._truncated = 0

    async def run(self) -> Scored:
        """Return the scores in the order of the texts; an error carries what there is."""
        batches = await run_text_work(self._prepare, self._texts)
        with Consumption() as consumed:
            add_consumption(Usage(truncated=self._truncated))
            with anyio.CancelScope(deadline=answer_deadline()) as scope:
                waiting = iter(batches)
                if len(batches) == 1:
                    await self._score(waiting)
                else:
                    at_once = min(len(batches), _BATCHES_PER_SLOT * self._scorer.options.max_concurrency)
                    async with anyio.create_task_group() as group:
                        for _ in range(at_once):
                            group.start_soon(self._score, waiting)
            if scope.cancelled_caught:
                self._error = self._error or ScorerTimeoutError(
                    f"the call's timeout passed with {len(self._scores)} of {len(self._texts)} "
                    "texts scored: give it longer, or send fewer documents"
                )
            if self._error is not None:
                self._error.partial = self._scores
                raise self._error
            return await run_work(len(self._texts), self._make_scored, consumed.usage)

    def _make_scored(self, usage: Usage) -> Scored:
        positions = range(len(self._texts))
        passages = [self._passages.get(position) for position in positions] if self._passages else []
        scores = [self._scores[position] for position in positions]
        return Scored(scores, usage, passages=passages, left_out=frozenset(self._left_out))

    def _prepare(self, texts: Sequence[str]) -> list[range]:
        """Count what depends on all texts, and return the batches."""
        if len(texts) > _COUNTED_IF_NEEDED:
            _ = self._lengths
        self._truncated = self._count_truncated()
        return self._split()

    @cached_property
    def _lengths(self) -> list[int]:
        return [estimate_tokens(text) for text in self._texts]

    @cached_property
    def _query_length(self) -> int:
        return estimate_tokens(self._query)

    def _split(self) -> list[range]:
        limits = self._limits
        if self._scorer.listwise and not self._scorer.options.allow_split:
            least = least_tokens(self._query) + sum(map(least_tokens, self._texts))
            if len(self._texts) > limits.documents or (limits.tokens is not None and least > limits.tokens):
                raise RequestTooLargeError(
                    f"takes {limits.documents} texts and {limits.tokens} tokens in a request, and got "
                    f"{len(self._texts)} texts of at least {least} tokens: its scores depend on the other texts, "
                    "so send fewer, or allow several requests with allow_split=True"
                )
            return [range(len(self._texts))]
        if limits.tokens is None:
            return split(0, [0] * len(self._texts), limits)
        return split(self._query_length, self._lengths, limits)

    async def _score(self, batches: Iterator[range]) -> None:
        for batch in batches:
            if self._error is not None:
                return
            reply, attempts = await self._session.send(
                self._scorer,
                partial(self._send, batch),
                tokens=0 if self._scorer.options.tokens_per_minute is None else self._estimate_tokens(batch),
                private=lambda: [self._query, *self._texts],
                begin_retry=self._begin_retry,
            )
            if isinstance(reply, ScorerError):
                self._error = self._error or reply
            else:
                await self._accept(batch, reply, attempts)

    async def _send(self, batch: range, key: SecretStr) -> ParsedReply | RequestFailure:
        """Send a request once, and count what it consumes, whatever becomes of it."""
        outcome: ParsedReply | RequestFailure = RequestFailure("timeout")
        if self._error is not None:
            return outcome  # a sibling failed while this one waited for its turn; its error is the call's
        add_consumption(Usage(requests=1))
        started = perf_counter()
        try:
            texts = self._texts[batch.start : batch.stop]
            outcome = await self._session.transport.send(key, self._query, texts)
        finally:  # where it is cancelled, the service may answer all the same
            add_consumption(Usage(requests=outcome.requests - 1))
            if isinstance(outcome, RequestFailure) and outcome.may_be_billed:
                add_consumption(self._measure(batch, _LOST))
            if outcome.request_id and quotes_key(outcome.request_id, key.get_secret_value()):
                outcome = replace(outcome, request_id=None)
            _logger.debug(
                "%s: %d texts, %s, %.0f ms, request id %s",
                self._scorer.name,
                len(batch),
                "answered" if isinstance(outcome, ParsedReply) else outcome.short,
                (perf_counter() - started) * 1000.0,
                outcome.request_id,
            )
        return outcome

    def _begin_retry(self) -> bool:
        if self._error is not None:
            return False
        add_consumption(Usage(retries=1))
        return True

    async def _accept(self, batch: range, reply: ParsedReply, attempts: int) -> None:
        try:
            measured = await run_work(2 * len(batch), self._measure, batch, reply)
        except BaseException:  # cancelled, but it is paid for
            add_consumption(self._measure(batch, reply))
            raise
        add_consumption(measured)
        try:
            with anyio.CancelScope(shield=True):
                self._scores.update(await run_work(2 * len(batch), self._read_scores, batch, reply.rows))
        except InvalidResponseError as exc:
            exc.attempts, exc.status, exc.request_id = attempts, 200, reply.request_id
            self._error = self._error or exc
        else:
            add_consumption(Usage(documents=len(batch)))
            self._passages.update((batch[index], passage) for index, passage in reply.passages.items())

    def _read_scores(self, batch: range, rows: Sequence[tuple[object, object]]) -> dict[int, float]:
        """Return an answer's scores by the position of the text, if it can be trusted."""
        if self._scorer.options.missing == "lowest":
            rows = self._fill_in(batch, rows)
        scores = scores_by_index(rows, expected=len(batch))
        self._doubt_scale(scores)
        validate_scores(scores, expected=len(batch), scale=self._scorer.scale)
        return {position: float(score) for position, score in zip(batch, scores, strict=True)}  # type: ignore[arg-type]

    def _fill_in(self, batch: range, rows: Sequence[tuple[object, object]]) -> list[tuple[object, object]]:
        """Return the rows of a reply and, for each text that it leaves out, one with the lowest score."""
        there = {index for index, _ in rows if isinstance(index, int)}
        missing = [index for index in range(len(batch)) if index not in there] if there else []
        if missing:
            self._left_out.update(batch[index] for index in missing)
            _logger.warning(
                "%s: left out %d of %d texts: placed last", self._scorer.name, len(missing), len(batch)
            )
        return [*rows, *((index, _LOWEST[self._scorer.scale]) for index in missing)]

    def _doubt_scale(self, scores: Sequence[object]) -> None:
        """Warn once where a server of logits returns what looks like probabilities."""
        if self._scorer.scale != "logit" or self._session.scale_doubted or len(scores) < _MIN_SCORES_TO_DOUBT:
            return
        if all(isinstance(score, (int, float)) and 0 <= score <= 1 for score in scores):
            self._session.scale_doubted = True
            _logger.warning(
                "%s: all scores of an answer lie in [0, 1], which is rare for logits: "
                "if they are probabilities, give score_scale='probability'",
                self._scorer.name,
            )

    def _measure(self, batch: range, reply: ParsedReply) -> Usage:
        """Return what a request cost: as the reply reports, else an estimate of the unit that the price is in."""
        tokens, units, price = reply.tokens, reply.search_units, self._scorer.price
        by_tokens = price is not None and price.per_1m_tokens is not None
        by_units = price is not None and price.per_1k_search_units is not None
        estimated = False
        if tokens is None and (by_tokens or (units is None and not by_units)):
            tokens, estimated = self._estimate_tokens(batch), True
        if units is None and by_units:
            units = count_search_units(self._query_length + self._lengths[position] for position in batch)
            estimated = True
        usage = Usage(tokens=tokens or 0, search_units=units or 0.0, cost=reply.cost, estimated=estimated)
        if price is None or reply.cost is not None:
            return usage
        cost = price.cost(search_units=usage.search_units, tokens=usage.tokens)
        read = self._max_tokens(batch) if estimated else []
        most_units = units if reply.search_units is not None else count_search_units(read)
        most_tokens = tokens if reply.tokens is not None else sum(read)
        most = price.cost(search_units=most_units or 0.0, tokens=most_tokens or 0)
        return replace(usage, cost=cost, cost_margin=max(0.0, most - cost))

    def _estimate_tokens(self, batch: range) -> int:
        return sum(self._limits.tokens_read(self._query_length, self._lengths[position]) for position in batch)

    def _max_tokens(self, batch: range) -> list[int]:
        """Return for each pair the most tokens that may be billed."""
        query = max_tokens(self._query)
        return [self._limits.tokens_read(query, max_tokens(self._texts[position])) for position in batch]

    def _count_truncated(self) -> int:
        """Return how many texts are certainly longer than what the model reads: a word is a token at least."""
        limits = self._limits
        most = min(limits.pair or math.inf, limits.document or math.inf)
        if most == math.inf:
            return 0
        query = least_tokens(self._query)
        # A word takes two characters with its space: most texts need no counting.
        candidates = [text for text in self._texts if query + len(text) / 2 > most]
        return sum(limits.tokens_read(query, words) < query + words for words in map(least_tokens, candidates))
