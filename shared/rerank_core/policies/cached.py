"""Remember scores, so that nothing is scored twice."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, TypeVar

import anyio

from rerank_core._call.asking import Consumption, add_consumption, call_scorer
from rerank_core._call.event_loop import run_text_work, run_work
from rerank_core._support.checks import check_seconds
from rerank_core.errors import ConfigurationError, RerankError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.policies.caches import Cache, MemoryCache
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Passage, Scored
from rerank_core.usage import Usage

__all__ = ["Cached"]

T = TypeVar("T")

_logger = logging.getLogger("rerank_core")

_MAX_SHARED = 500
_STEPS_PER_KEY = 4


class Cached(Policy):
    """Remembers scores by scorer, options, query and text; equal calls at the same time are scored once.

    Only texts that are missing go to the scorer. The scores of a listwise scorer are remembered by the whole call:
    the query and all texts, in order. A cache that fails or is slow fails no call: the call goes on without it,
    and one warning is logged. Answers for which an earlier scorer failed (``attempts``) are not remembered, nor is
    the score of a text that a service left out of its answer. A call that lacks more than 500 scores waits
    for no other call's.

    The cache holds digests, no text. It cannot tell that a model was replaced under its name: then give another
    ``version``.

    Args:
        scorer: a scorer or its name.
        cache: by default a :class:`rerank_core.policies.caches.MemoryCache` of its own.
        version: any text that tells apart scores which the scorer's name and options do not.
        cache_timeout: seconds that the cache may take to look up, and again to store; above 0.

    Raises:
        ConfigurationError: an option is out of its range, or the scorer's options cannot be told apart (see
            :meth:`rerank_core.Scorer.cache_key`).

    >>> from rerank_core import Reranker
    >>> from rerank_core.testing import FakeScorer
    >>> model = FakeScorer()
    >>> reranker = Reranker(Cached(model))
    >>> _ = reranker.rerank("leak", ["a leak", "tea"])
    >>> usage = reranker.rerank("leak", ["tea", "snow", "a leak"]).usage
    >>> usage.cached, usage.documents, model.seen
    (2, 1, ['a leak', 'tea', 'snow'])
    """

    options_without_effect_on_scores = frozenset({"cache", "cache_timeout"})

    def __init__(
        self, scorer: Scorer | str, cache: Cache | None = None, *, version: str = "", cache_timeout: float = 1.0
    ) -> None:
        super().__init__("cached", [scorer])
        if not (cache is None or isinstance(cache, Cache)):
            raise ConfigurationError(f"cache is a {type(cache).__name__}: give a MemoryCache or a DiskCache")
        if not isinstance(version, str):
            raise ConfigurationError(f"version is {version!r}: give a text")
        self.cache = MemoryCache() if cache is None else cache
        self.version = version
        self.cache_timeout = check_seconds("cache_timeout", cache_timeout)
        self._digest = blake2b(f"{version}\0{self.scorer.cache_key()}".encode(), digest_size=32).digest()
        self._flights: dict[bytes, _Flight] = {}
        self._lookups: set[_Lookup] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_failing = False
        self._is_ordinal = False

    @property
    def ordinal(self) -> bool:  # type: ignore[override]
        """Whether the scorer's scores only say the order, or what was remembered of it did."""
        return self._is_ordinal or super().ordinal

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return scores from the cache, and the scorer's for what is not there."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # in a forked child, where the parent's calls will never end
            self._loop, self._flights, self._lookups = loop, {}, set()
        keys, work = await run_text_work(self._make_keys, texts, query)
        steps = _STEPS_PER_KEY * len(keys)
        lookup = _Lookup(query)
        self._lookups.add(lookup)
        try:
            found = await self._use_cache(self.cache.get, list(work)) or {}
            known, missing = await run_work(steps, _read_entries, found, work)
        finally:
            self._lookups.discard(lookup)
        self._is_ordinal = self._is_ordinal or any(entry.ordinal for entry in known.values())
        flights = self._join(work if missing and self.listwise else missing, lookup)
        with Consumption() as consumed:
            try:
                if flights:
                    tasks = [flight.task for flight in flights]
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                reporting = await self._leave(flights)
            return await run_work(steps, _merge, keys, known, flights, reporting, consumed.usage)

    async def knows(self, query: str, texts: Sequence[str]) -> bool:
        """Return whether the cache has all scores of texts, which are distinct and not blank."""
        _, work = await run_text_work(self._make_keys, texts, query)
        found = await self._use_cache(self.cache.get, list(work)) or {}
        return not _read_entries(found, work)[1]

    async def aclose(self) -> None:
        """Release the scorer's connections and the cache's."""
        try:
            await super().aclose()
        finally:
            await self.cache.aclose()

    def _make_keys(self, texts: Sequence[str], query: str) -> tuple[list[bytes], dict[bytes, str]]:
        """Return the key of each text, and the text of each key; those of a listwise call depend on all texts."""
        shared = blake2b(self._digest, digest_size=20)
        for text in (query, *(texts if self.listwise else ())):
            _add_text(shared, text)
        hashes = [shared.copy() for _ in texts]
        for hashed, text in zip(hashes, texts, strict=True):
            _add_text(hashed, text)
        keys = [hashed.digest() for hashed in hashes]
        return keys, dict(zip(keys, texts, strict=True))

    def _join(self, work: Mapping[bytes, str], lookup: _Lookup) -> set[_Flight]:
        """Return the flights of these keys: those under way or ended during the lookup, and one for the others."""
        is_shared = len(work) <= _MAX_SHARED
        mine, joined = dict(work), set[_Flight]()
        for key in work if is_shared else ():
            if (found := self._flights.get(key) or lookup.find(key)) is not None:
                joined.add(found)
                del mine[key]
        if mine:
            flight = _Flight(mine)
            flight.task = asyncio.get_running_loop().create_task(self._fly(flight, lookup.query))
            # If every call has gone, nobody else asks how it ended, and asyncio would log that.
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            if is_shared:
                self._flights.update(dict.fromkeys(mine, flight))
            joined.add(flight)
        for flight in joined:
            flight.waiting += 1
        return joined

    async def _leave(self, joined: Set[_Flight]) -> list[_Flight]:
        """Cancel what nobody else waits for, wait until it has ended, and return what this call reports."""
        for flight in joined:
            flight.waiting -= 1
        ending = [flight for flight in joined if not flight.waiting and not flight.task.done()]
        for flight in ending:
            self._close(flight)
            flight.task.cancel()
        try:
            if ending:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([flight.task for flight in ending])
        finally:
            reporting = [flight for flight in joined if flight.task.done() and flight.report()]
        return reporting

    def _close(self, flight: _Flight) -> None:
        """Let no further call join: it starts its own."""
        for key in flight.work if len(flight.work) <= _MAX_SHARED else ():
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def _fly(self, flight: _Flight, query: str) -> None:
        """Score and store, for all calls that wait."""
        steps = _STEPS_PER_KEY * len(flight.work)
        try:
            with Consumption(pass_on=False) as flight.consumed:  # the call that began it may have gone
                scored = await call_scorer(self.scorer, query, list(flight.work.values()))
                values = await run_work(steps, flight.take_answer, scored, self.scorer)
                if values:
                    await self._use_cache(self.cache.put, values)
        except ScorerError as exc:
            if not self.listwise:
                await run_work(steps, flight.take_partial, exc.partial)
            raise
        finally:
            self._close(flight)
            for lookup in self._lookups:
                if lookup.query == query:
                    lookup.ended.update(dict.fromkeys(flight.work, flight))

    async def _use_cache(self, use: Callable[[Any], Awaitable[T]], given: Any) -> T | None:
        """Return what the cache returns; None where it fails, which is logged once until it works again."""
        try:
            with anyio.fail_after(self.cache_timeout):
                result = await use(given)
        except Exception as exc:
            if not self._is_failing:
                # The message of a foreign exception may hold an address with a password.
                known = isinstance(exc, RerankError)
                reason = exc if known else f"{type(exc).__name__} from {type(self.cache).__name__}"
                _logger.warning("%s goes on without its cache: %s", self.name, reason)
            self._is_failing = True
            return None
        self._is_failing = False
        return result


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one text; all but the last is remembered.

    Some scorers know only by their answers whether these are ordinal.
    """

    score: float
    passage: Passage | None = None
    tier: int = 0
    model: str | None = None
    ordinal: bool = False
    left_out: bool = False

    def to_bytes(self) -> bytes:
        """Return JSON, which gives every float back exactly."""
        values = [self.score, self.passage, self.tier, self.model, *([True] if self.ordinal else [])]
        return json.dumps(values, separators=(",", ":")).encode()


def _read_entries(
    found: Mapping[bytes, bytes], work: Mapping[bytes, str]
) -> tuple[dict[bytes, _Entry], dict[bytes, str]]:
    """Return what is known of the keys that a cache has, and the texts of all others."""
    entries = {key: _read_entry(found[key], text) for key, text in work.items() if key in found}
    known = {key: entry for key, entry in entries.items() if entry is not None}
    return known, {key: text for key, text in work.items() if key not in known}


def _read_entry(value: bytes, text: str) -> _Entry | None:
    """Return the entry of this text; None if the value is no such entry, which counts as missing."""
    try:
        score, span, tier, model, *ordinal = json.loads(value)
        passage = None if span is None else Passage(*span)
        is_valid = (
            type(score) in (int, float)
            and 0.0 <= score <= 1.0
            and (passage is None or 0 <= passage.start <= passage.end <= len(text))
            and type(tier) is int
            and (model is None or isinstance(model, str))
            and ordinal in ([], [True])
        )
    except (TypeError, ValueError):
        return None
    return _Entry(float(score), passage, tier, model, bool(ordinal)) if is_valid else None


@dataclass(slots=True, eq=False)
class _Flight:
    """One call of the scorer, for all calls that wait for its keys.

    Attributes:
        work: the text of each key.
        waiting: how many calls wait.
        entries: what was answered, also before the scorer failed.
        consumed: what that took, until a call has reported it.
    """

    work: Mapping[bytes, str]
    waiting: int = 0
    entries: dict[bytes, _Entry] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    consumed: Consumption = field(default_factory=Consumption)
    task: asyncio.Task[None] = field(init=False)

    def take_answer(self, scored: Scored, scorer: Scorer) -> dict[bytes, bytes]:
        """Take a scorer's answer, and return what is to be remembered of it."""
        count = len(self.work)
        passages, tiers = scored.passages or [None] * count, scored.tiers or [0] * count
        rows = zip(self.work, scored.scores, passages, tiers, strict=True)
        for slot, (key, score, passage, tier) in enumerate(rows):
            left_out = slot in scored.left_out
            self.entries[key] = _Entry(score, passage, tier, scored.model, scorer.ordinal, left_out)
        self.attempts = scored.attempts
        kept = {} if scored.attempts else self.entries
        return {key: entry.to_bytes() for key, entry in kept.items() if not entry.left_out}

    def take_partial(self, scores: Mapping[int, float]) -> None:
        """Take the scores that arrived before the scorer failed."""
        self.entries.update({key: _Entry(scores[slot]) for slot, key in enumerate(self.work) if slot in scores})

    def report(self) -> bool:
        """Add what was consumed to the call that asks first; return whether that is this one."""
        usage, self.consumed.usage = self.consumed.usage, Usage()
        add_consumption(usage)
        return usage != Usage()


@dataclass(slots=True, eq=False)
class _Lookup:
    """One call's question to the cache, and the flights that ended meanwhile: the answer may be older."""

    query: str
    ended: dict[bytes, _Flight] = field(default_factory=dict)

    def find(self, key: bytes) -> _Flight | None:
        """Return the flight that scored this key; None if there is none, or it was cancelled."""
        flight = self.ended.get(key)
        return flight if flight is not None and flight.task.done() and not flight.task.cancelled() else None


def _merge(
    keys: Sequence[bytes],
    known: Mapping[bytes, _Entry],
    flights: Set[_Flight],
    reporting: Sequence[_Flight],
    usage: Usage,
) -> Scored:
    """Return the answer to a call from what was known and from its flights, some of whose usage it reports."""
    entries = {**known}
    done = [flight for flight in flights if flight.task.done()]
    for flight in done:
        entries.update(flight.entries)
    for flight in done:
        if not flight.task.cancelled() and (error := flight.task.exception()) is not None:
            raise _copy_error(error, keys, entries, usage)
    if any(key not in entries for key in keys):
        raise ScorerError("the scoring that this call waited for was cancelled: try again")
    found = [entries[key] for key in keys]
    paid = {key for flight in reporting for key in flight.work}
    passages = [entry.passage for entry in found]
    tiers = [entry.tier for entry in found]
    return Scored(
        [entry.score for entry in found],
        replace(usage, cached=usage.cached + sum(key not in paid for key in keys)),
        found[0].model,
        tuple(attempt for flight in reporting for attempt in flight.attempts),
        passages if any(passages) else (),
        tiers if any(tiers) else (),
        frozenset(slot for slot, entry in enumerate(found) if entry.left_out),
    )


def _copy_error(
    error: BaseException, keys: Sequence[bytes], entries: Mapping[bytes, _Entry], usage: Usage
) -> BaseException:
    if not isinstance(error, RerankError):
        return error
    copied = copy.copy(error)  # because calls add to it
    copied.__cause__ = error.__cause__
    if isinstance(copied, ScorerError):
        copied.partial = {slot: entries[key].score for slot, key in enumerate(keys) if key in entries}
        copied.usage = usage
    return copied


def _add_text(hashed: blake2b, text: str) -> None:
    content = text.encode(errors="surrogatepass")
    hashed.update(len(content).to_bytes(8, "big"))
    hashed.update(content)
