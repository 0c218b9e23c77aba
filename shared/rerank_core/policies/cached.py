"""Remember scores, so that nothing is scored twice."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b

import anyio

from rerank_core._call.asking import call_scorer
from rerank_core._call.consumption import Consumption, add_consumption, count_consumption
from rerank_core._support.checks import check_seconds
from rerank_core.errors import ConfigurationError, RerankError, ScorerError
from rerank_core.policies.base import Policy
from rerank_core.policies.caches import Cache, MemoryCache
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Passage, Scored
from rerank_core.usage import Usage

__all__ = ["Cached"]

_logger = logging.getLogger("rerank_core")


class Cached(Policy):
    """Remembers scores by scorer, options, query and text; equal calls at the same time are scored once.

    Only texts that are missing go to the scorer. The scores of a listwise scorer are remembered by the whole call:
    the query and all texts, in order. A cache that fails or is slow fails no call: the call goes on without it,
    and one warning is logged. Answers for which an earlier scorer failed (``attempts``) are not remembered,
    nor is the score of a text that a service left out of its answer.

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_failing = False

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return scores from the cache, and the scorer's for what is not there."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # in a forked child, where the parent's calls will never end
            self._loop, self._flights = loop, {}
        parts = [tuple(texts)] if self.listwise else [(text,) for text in texts]
        keys = [self._key(query, part) for part in parts]
        work = dict(zip(keys, parts, strict=True))
        joined = {self._flights[key] for key in work if key in self._flights}
        mine = {key: part for key, part in work.items() if key not in self._flights}
        if mine:
            flight = _Flight(mine)
            flight.task = loop.create_task(self._fly(flight, query))
            # If every call has gone, nobody else asks how it ended, and asyncio would log that.
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._flights.update(dict.fromkeys(mine, flight))
            joined.add(flight)
        for flight in joined:
            flight.waiting += 1
        with count_consumption() as consumed:
            try:
                await asyncio.wait([flight.task for flight in joined], return_when=asyncio.FIRST_EXCEPTION)
            finally:
                await self._leave(joined)
            return _merge(keys, joined, consumed)

    async def aclose(self) -> None:
        """Release the scorer's connections and the cache's."""
        try:
            await super().aclose()
        finally:
            await self.cache.aclose()

    def _key(self, query: str, texts: Iterable[str]) -> bytes:
        digest = blake2b(self._digest, digest_size=20)
        for text in (query, *texts):
            content = text.encode(errors="surrogatepass")
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
        return digest.digest()

    async def _fly(self, flight: _Flight, query: str) -> None:
        """Look up, score what is missing, and store it, for all calls that wait."""
        try:
            with count_consumption(pass_on=False) as flight.consumed:  # the call that began it may have gone
                flight.entries.update(await self._look_up(flight.work))
                missing = {key: part for key, part in flight.work.items() if key not in flight.entries}
                if missing:
                    await self._score_missing(flight, query, missing)
                    if not flight.attempts:
                        kept = missing.keys() - flight.left_out
                        await self._store({key: _to_bytes(flight.entries[key]) for key in kept})
        finally:
            self._end(flight)

    async def _score_missing(self, flight: _Flight, query: str, missing: Mapping[bytes, tuple[str, ...]]) -> None:
        keys = [key for key, part in missing.items() for _ in part]
        try:
            scored = await call_scorer(self.scorer, query, [text for part in missing.values() for text in part])
        except ScorerError as exc:
            if not self.listwise:
                flight.partial = {keys[slot]: score for slot, score in exc.partial.items()}
            raise
        flight.attempts, flight.fresh = scored.attempts, frozenset(missing)
        flight.left_out = frozenset(keys[slot] for slot in scored.left_out)
        start = 0
        for key, part in missing.items():
            flight.entries[key] = _Entry.slice(scored, start, start + len(part))
            start += len(part)

    async def _look_up(self, work: Mapping[bytes, tuple[str, ...]]) -> dict[bytes, _Entry]:
        try:
            with anyio.fail_after(self.cache_timeout):
                found = await self.cache.get(list(work))
            self._is_failing = False
            entries = {key: _from_bytes(found[key], work[key]) for key in work if key in found}
        except Exception as exc:
            self._warn(exc)
            return {}
        return {key: entry for key, entry in entries.items() if entry is not None}

    async def _store(self, values: Mapping[bytes, bytes]) -> None:
        try:
            with anyio.fail_after(self.cache_timeout):
                await self.cache.put(values)
        except Exception as exc:
            self._warn(exc)

    def _warn(self, exc: Exception) -> None:
        if not self._is_failing:
            # The message of a foreign exception may hold an address with a password.
            known = isinstance(exc, RerankError)
            reason = exc if known else f"{type(exc).__name__} from {type(self.cache).__name__}"
            _logger.warning("%s goes on without its cache: %s", self.name, reason)
        self._is_failing = True

    async def _leave(self, joined: Set[_Flight]) -> None:
        """Stop waiting; cancel what nobody else waits for, and return when it has ended."""
        for flight in joined:
            flight.waiting -= 1
        ending = [flight for flight in joined if not flight.waiting and not flight.task.done()]
        for flight in ending:
            self._end(flight)  # a call that comes now starts its own
            flight.task.cancel()
        if ending:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([flight.task for flight in ending])
            for flight in ending:
                flight.report()

    def _end(self, flight: _Flight) -> None:
        """Let no further call join."""
        for key in flight.work:
            if self._flights.get(key) is flight:
                del self._flights[key]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is remembered under one key: the answer for one text, or for a whole listwise call.

    Attributes:
        scores: in [0, 1].
        passages: one per score, None for the whole text.
        tiers: one per score.
        model: name of the scorer that answered.
    """

    scores: Sequence[float]
    passages: Sequence[Passage | None]
    tiers: Sequence[int]
    model: str | None

    @classmethod
    def slice(cls, scored: Scored, start: int, stop: int) -> _Entry:
        """Return the part of a checked answer that is about these texts."""
        return cls(
            list(scored.scores[start:stop]),
            list(scored.passages[start:stop]) if scored.passages else [None] * (stop - start),
            list(scored.tiers[start:stop]) if scored.tiers else [0] * (stop - start),
            scored.model,
        )


def _to_bytes(entry: _Entry) -> bytes:
    """Return an entry as JSON, which gives every float back exactly."""
    return json.dumps(list(asdict(entry).values()), separators=(",", ":")).encode()


def _from_bytes(value: bytes, texts: Sequence[str]) -> _Entry | None:
    """Return the entry of these texts; None if the value is no such entry, which counts as missing."""
    try:
        scores, passages, tiers, model = json.loads(value)
        spans = [None if span is None else Passage(*span) for span in passages]
        is_valid = (
            len(scores) == len(spans) == len(tiers) == len(texts)
            and all(type(score) in (int, float) and 0.0 <= score <= 1.0 for score in scores)
            and all(type(tier) is int for tier in tiers)
            and all(
                span is None or 0 <= span.start <= span.end <= len(text)
                for span, text in zip(spans, texts, strict=True)
            )
            and (model is None or isinstance(model, str))
        )
    except (TypeError, ValueError):
        return None
    return _Entry([float(score) for score in scores], spans, tiers, model) if is_valid else None


@dataclass(slots=True, eq=False)
class _Flight:
    """One lookup and at most one call of the scorer, for all calls that wait for its keys.

    Attributes:
        work: the texts of each key.
        waiting: how many calls wait.
        entries: what was found or scored.
        fresh: keys that the scorer was asked for.
        partial: scores that arrived before the scorer failed.
        left_out: keys of texts that the answer left out.
        attempts: the answer's.
        consumed: what the scorer consumed, until a call has reported it.
        task: does the work.
    """

    work: Mapping[bytes, tuple[str, ...]]
    waiting: int = 0
    entries: dict[bytes, _Entry] = field(default_factory=dict)
    fresh: frozenset[bytes] = frozenset()
    partial: Mapping[bytes, float] = field(default_factory=dict)
    left_out: frozenset[bytes] = frozenset()
    attempts: tuple[Attempt, ...] = ()
    consumed: Consumption = field(default_factory=Consumption)
    task: asyncio.Task[None] = field(init=False)

    def report(self) -> bool:
        """Add what was consumed to the call that asks first; return whether that is this one."""
        is_first = self.consumed.usage != Usage()
        add_consumption(self.consumed.usage)
        self.consumed.usage = Usage()
        return is_first

    @property
    def error(self) -> BaseException | None:
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None


def _merge(keys: Sequence[bytes], flights: Set[_Flight], consumed: Consumption) -> Scored:
    """Return the answer to a call from the flights that it joined; the first call to ask reports their usage.

    Raises:
        ScorerError: one of them failed. Each call gets a copy, because calls add to it.
    """
    entries: dict[bytes, _Entry] = {}
    paid: set[bytes] = set()
    left_out: set[bytes] = set()
    attempts: list[Attempt] = []
    for flight in flights:
        entries.update(flight.entries)
        left_out |= flight.left_out
        if flight.report():
            attempts += flight.attempts
            paid |= flight.fresh
    for flight in flights:
        if flight.error is not None:
            raise _copy_error(flight.error, flight, keys, entries, consumed.usage)
    if any(key not in entries for key in keys):
        raise ScorerError("the scoring that this call waited for was cancelled: try again")
    found = [entries[key] for key in keys]
    slots = [key for key, entry in zip(keys, found, strict=True) for _ in entry.scores]
    cached = sum(len(entries[key].scores) for key in keys if key not in paid)
    passages = [passage for entry in found for passage in entry.passages]
    tiers = [tier for entry in found for tier in entry.tiers]
    return Scored(
        [score for entry in found for score in entry.scores],
        replace(consumed.usage, cached=consumed.usage.cached + cached),
        found[0].model,
        tuple(attempts),
        passages if any(passages) else (),
        tiers if any(tiers) else (),
        frozenset(slot for slot, key in enumerate(slots) if key in left_out),
    )


def _copy_error(
    error: BaseException, flight: _Flight, keys: Sequence[bytes], entries: Mapping[bytes, _Entry], usage: Usage
) -> BaseException:
    if not isinstance(error, RerankError):
        return error
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    if isinstance(copied, ScorerError):
        known = {key: entry.scores[0] for key, entry in entries.items() if len(entry.scores) == 1}
        known.update(flight.partial)
        copied.partial = {slot: known[key] for slot, key in enumerate(keys) if key in known}
        copied.usage = usage
    return copied
