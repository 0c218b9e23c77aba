"""What was scored before is not scored again."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import anyio

from rerank_core._call.asking import call_scorer
from rerank_core._support.checks import checked_seconds
from rerank_core.errors import ConfigurationError, RerankError, ScorerError
from rerank_core.policies._entries import Entry, from_bytes, to_bytes
from rerank_core.policies.base import Policy
from rerank_core.policies.caches import Cache, MemoryCache
from rerank_core.scorer import Scorer
from rerank_core.types import Attempt, Scored
from rerank_core.usage import Usage

__all__ = ["Cached"]

_logger = logging.getLogger("rerank_core")


class Cached(Policy):
    """Remembers scores by scorer, options, query and text; equal calls at the same time are scored once.

    Only texts that are missing go to the scorer. A listwise scorer's scores are remembered by the whole call:
    the query and all texts, in order. A cache that fails or dawdles never fails a call: it is left aside, with
    one warning. What another scorer answered in place of a failing one (``attempts``) is not remembered.

    The cache knows no text, only digests; but it does not notice that a model was replaced under its name:
    then give another ``version``.

    Args:
        scorer: a scorer or its name.
        cache: by default a :class:`rerank_core.policies.caches.MemoryCache` of its own.
        version: anything that tells scores apart which the scorer's name and options do not.
        patience: seconds that the cache may take to look up, and to store; above 0.

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

    options_without_effect_on_scores = frozenset({"cache", "patience"})
    state = ("_flights", "_loop", "_failing")

    def __init__(
        self, scorer: Scorer | str, cache: Cache | None = None, *, version: str = "", patience: float = 1.0
    ) -> None:
        super().__init__("cached", [scorer])
        if not (cache is None or isinstance(cache, Cache)):
            raise ConfigurationError(f"cache is a {type(cache).__name__}: give a MemoryCache or a DiskCache")
        if not isinstance(version, str):
            raise ConfigurationError(f"version is {version!r}: give a text")
        self.cache = MemoryCache() if cache is None else cache
        self.version = version
        self.patience = checked_seconds("patience", patience)
        self._digest = blake2b(f"{version}\0{self.scorers[0].cache_key()}".encode(), digest_size=32).digest()

    def forget(self) -> None:
        """Join no call that is under way; the cache stays as it is."""
        self._flights: dict[bytes, _Flight] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failing = False

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return scores from the cache, and the scorer's of what is not there."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # in a forked child, the parent's calls will never end
            self.forget()
            self._loop = loop
        parts = [tuple(texts)] if self.listwise else [(text,) for text in texts]
        keys = [self._key(query, part) for part in parts]
        work = dict(zip(keys, parts, strict=True))
        joined = {self._flights[key] for key in work if key in self._flights}
        mine = {key: part for key, part in work.items() if key not in self._flights}
        if mine:
            own = _Flight(mine)
            own.start(self._fly(own, query))
            self._flights.update(dict.fromkeys(mine, own))
            joined.add(own)
        for flight in joined:
            flight.waiting += 1
        try:
            await asyncio.wait([flight.running for flight in joined], return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await self._leave(joined)
        return _merged(keys, joined)

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
        """Look up, score what is missing, and store it, for every call that waits."""
        try:
            found = await self._look_up(flight.work)
            flight.entries.update(found)
            missing = {key: part for key, part in flight.work.items() if key not in found}
            if not missing:
                return
            scored = await self._scored(flight, query, missing)
            if not scored.attempts:
                await self._store({key: to_bytes(flight.entries[key]) for key in missing})
        finally:
            for key in flight.work:
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def _scored(self, flight: _Flight, query: str, missing: Mapping[bytes, tuple[str, ...]]) -> Scored:
        keys = [key for key, part in missing.items() for _ in part]
        try:
            scored = await call_scorer(
                self.scorers[0], query, [text for part in missing.values() for text in part]
            )
        except ScorerError as exc:
            if not self.listwise:
                flight.partial = {keys[slot]: score for slot, score in exc.partial.items()}
            raise
        flight.answer, flight.fresh = scored, frozenset(missing)
        start = 0
        for key, part in missing.items():
            flight.entries[key] = Entry.of(scored, start, start + len(part))
            start += len(part)
        return scored

    async def _look_up(self, work: Mapping[bytes, tuple[str, ...]]) -> dict[bytes, Entry]:
        try:
            with anyio.fail_after(self.patience):
                found = await self.cache.get(list(work))
            self._failing = False
            entries = {key: from_bytes(found[key], work[key]) for key in work if key in found}
        except Exception as exc:
            self._warn(exc)
            return {}
        return {key: entry for key, entry in entries.items() if entry is not None}

    async def _store(self, values: Mapping[bytes, bytes]) -> None:
        try:
            with anyio.fail_after(self.patience):
                await self.cache.put(values)
        except Exception as exc:
            self._warn(exc)

    def _warn(self, exc: Exception) -> None:
        if not self._failing:
            # A foreign exception may quote an address with a password.
            known = isinstance(exc, RerankError)
            reason = exc if known else f"{type(exc).__name__} from {type(self.cache).__name__}"
            _logger.warning("%s goes on without its cache: %s", self.name, reason)
        self._failing = True

    async def _leave(self, joined: Set[_Flight]) -> None:
        """Wait no longer; what nobody waits for ends, and has ended when this returns."""
        for flight in joined:
            flight.waiting -= 1
        ending = [flight for flight in joined if not flight.waiting and not flight.running.done()]
        for flight in ending:
            for key in flight.work:
                if self._flights.get(key) is flight:
                    del self._flights[key]  # a call that comes now starts its own
            flight.running.cancel()
        if ending:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([flight.running for flight in ending])


@dataclass(slots=True, eq=False)
class _Flight:
    """One lookup and at most one call of the scorer, for all calls that wait for its keys.

    Attributes:
        work: the texts of each key.
        waiting: how many calls wait.
        entries: what was found or scored.
        fresh: keys that the scorer was asked for.
        partial: scores that arrived before the scorer failed.
        answer: the scorer's, until a call has reported what it consumed.
    """

    work: Mapping[bytes, tuple[str, ...]]
    waiting: int = 0
    entries: dict[bytes, Entry] = field(default_factory=dict)
    fresh: frozenset[bytes] = frozenset()
    partial: Mapping[bytes, float] = field(default_factory=dict)
    answer: Scored | None = None
    reported: bool = False
    task: asyncio.Task[None] | None = None

    def start(self, coroutine: Coroutine[None, None, None]) -> None:
        self.task = asyncio.get_running_loop().create_task(coroutine)
        # Where every call has gone, nobody else asks how it ended.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def running(self) -> asyncio.Task[None]:
        if self.task is None:
            raise RuntimeError("a flight is joined after it has started")
        return self.task

    @property
    def error(self) -> BaseException | None:
        task = self.running
        return task.exception() if task.done() and not task.cancelled() else None

    def take_answer(self) -> Scored | None:
        """Return the scorer's answer to the first call that asks, which reports its usage."""
        answer, self.answer = self.answer, None
        return answer


def _merged(keys: Sequence[bytes], flights: Set[_Flight]) -> Scored:
    """Return the answer to a call from the flights that it joined.

    Raises:
        ScorerError: one of them failed: a copy for each call, because calls add to it.
    """
    entries: dict[bytes, Entry] = {}
    usage, paid = Usage(), set[bytes]()
    attempts: list[Attempt] = []
    for flight in flights:
        entries.update(flight.entries)
        if (answer := flight.take_answer()) is not None:
            usage += answer.usage
            attempts += answer.attempts
            paid |= flight.fresh
    for flight in flights:
        if flight.error is not None:
            raise _own(flight, keys, entries, usage)
    if any(key not in entries for key in keys):
        raise ScorerError("the scoring that this call waited for was cancelled: try again")
    found = [entries[key] for key in keys]
    cached = sum(len(entries[key].scores) for key in keys if key not in paid)
    passages = [passage for entry in found for passage in entry.passages]
    tiers = [tier for entry in found for tier in entry.tiers]
    return Scored(
        [score for entry in found for score in entry.scores],
        replace(usage, cached=usage.cached + cached),
        found[0].model,
        tuple(attempts),
        passages if any(passages) else (),
        tiers if any(tiers) else (),
    )


def _own(flight: _Flight, keys: Sequence[bytes], entries: Mapping[bytes, Entry], usage: Usage) -> BaseException:
    error = flight.error
    if not isinstance(error, RerankError):
        return error or RuntimeError("there is no error")
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    if isinstance(own, ScorerError):
        known = {key: entry.scores[0] for key, entry in entries.items() if len(entry.scores) == 1}
        known.update(flight.partial)
        own.partial = {slot: known[key] for slot, key in enumerate(keys) if key in known}
        own.usage = usage if flight.reported else usage + (own.usage or Usage())
        flight.reported = True
    return own
