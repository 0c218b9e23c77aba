"""Cached: what was scored before is not scored again, and a broken cache breaks nothing."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import logging
import pickle
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scorers import Answers, Calls, Endless
from support.waiting import until

from rerank_core import (
    ConfigurationError,
    InvalidResponseError,
    Passage,
    Reranker,
    Scored,
    Scorer,
    ScorerError,
    ScorerTimeoutError,
    ScorerUnavailableError,
    Usage,
    load_scorer,
)
from rerank_core._call import event_loop
from rerank_core.policies import Cached, Cascade, Fallback, Hedged
from rerank_core.policies.caches import Cache, DiskCache, MemoryCache
from rerank_core.testing import FakeScorer, ScorerContract

QUERY = "memory leak"
TEXTS = ["Paris in spring", "finding a memory leak", "memory", "a leak in the roof"]


class TestCachedContract(ScorerContract):
    """A cache around a scorer on the logit scale."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Cached(FakeScorer(scale="logit"))


class TestCachedListwiseContract(ScorerContract):
    """A cache around a listwise scorer."""

    def make_scorer(self) -> Scorer:
        """Return it."""
        return Cached(Cascade([FakeScorer(), FakeScorer()], keep=[2]))


def rank(policy: Scorer, texts: Sequence[str] = TEXTS, query: str = QUERY) -> Any:
    """Return the ranking of texts by a policy."""
    return Reranker(policy).rerank(query, texts)


class TestHits:
    """What comes from the cache."""

    @given(calls=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=1, max_size=5))
    def test_scores_are_the_bare_scorers(self, calls: list[list[str]]) -> None:
        """To the last digit, whatever was asked before; and no text is scored twice."""
        model = FakeScorer(scale="logit")
        cached = Cached(model)
        for texts in calls:
            assert rank(cached, texts).scores == rank(FakeScorer(scale="logit"), texts).scores
        assert sorted(model.seen) == sorted({text for texts in calls for text in texts})

    def test_only_what_is_missing_is_sent(self) -> None:
        """And the usage says how many texts cost nothing."""
        model = FakeScorer()
        cached = Cached(model)
        first, second, third = rank(cached, TEXTS[:2]), rank(cached), rank(cached)
        assert model.seen == TEXTS
        assert [(r.usage.documents, r.usage.cached, r.usage.requests) for r in (first, second, third)] == [
            (2, 0, 1),
            (2, 2, 1),
            (0, 4, 0),
        ]
        assert third.model == "fake"
        assert cached.name == "cached(fake)"

    def test_another_query_is_another_key(self) -> None:
        """Lengths are part of the key, so that no query runs into a text."""
        model = FakeScorer()
        cached = Cached(model)
        for query, text in (("ab", "c"), ("a", "bc")):
            rank(cached, [text], query)
        assert model.seen == ["c", "bc"]

    def test_listwise_calls_are_remembered_whole(self) -> None:
        """Another order or another text is another call."""
        model = FakeScorer()
        model.listwise = True
        cached = Cached(model)
        for texts in (TEXTS, TEXTS, TEXTS[::-1], TEXTS[:2]):
            assert rank(cached, texts).scores == rank(FakeScorer(), texts).scores
        assert model.calls == 3
        assert rank(cached).usage.cached == 4

    def test_passages_and_tiers_are_remembered(self) -> None:
        """The second ranking is the first one."""

        class Spans(FakeScorer):
            async def score(self, query: str, texts: Sequence[str]) -> Scored:
                scored = await super().score(query, texts)
                return dataclasses.replace(
                    scored, model="inner", passages=[Passage(0, 2)] * len(texts), tiers=[1] * len(texts)
                )

        cached = Cached(Spans())
        first, second = rank(cached), rank(cached)
        assert first.documents == second.documents
        assert second[0].passage == Passage(0, 2)
        assert second.model == "inner"

    def test_texts_given_twice_get_two_scores(self) -> None:
        """Also where a scorer is called without a Reranker."""
        scored = event_loop.run(Cached(FakeScorer()).score(QUERY, ["a", "b", "a"]))
        assert len(scored.scores) == 3
        assert scored.scores[0] == scored.scores[2]

    def test_answers_of_a_stand_in_are_not_remembered(self) -> None:
        """When the first scorer is back, its own scores count."""
        main, spare = FakeScorer(error=ScorerUnavailableError("down")), FakeScorer(name="spare")
        cached = Cached(Fallback([main, spare], breaker=None))
        assert rank(cached).attempts
        main.error = None
        assert rank(cached).model == "fake"
        assert rank(cached).usage.cached == len(TEXTS)
        assert spare.calls == 1

    @pytest.mark.parametrize("answer", [[0.5, 2.0], [0.5, float("nan")], [0.5]])
    def test_answers_that_cannot_be_trusted_are_not_remembered(self, answer: list[float]) -> None:
        """The next call asks again."""
        model = Same(answer)
        cached = Cached(model)
        with pytest.raises(InvalidResponseError):
            rank(cached, ["a", "b"])
        model.answer = [0.5, 0.6]
        assert rank(cached, ["a", "b"]).usage.cached == 0


class Same(Answers):
    """Whatever it is told to answer, it is the same scorer."""

    def cache_key(self) -> str:
        """Return a key."""
        return "same"


class TestKeys:
    """What tells scorers apart."""

    def test_options_that_change_scores_change_the_key(self) -> None:
        """Others do not."""
        key = load_scorer("embedded").cache_key()
        assert load_scorer("embedded", max_length=128).cache_key() != key
        assert load_scorer("embedded", threads=1, cache_bytes=0).cache_key() == key
        cohere = load_scorer("cohere:rerank-v3.5", api_key="one")
        assert load_scorer("cohere:rerank-v3.5", api_key="two", timeout=3.0).cache_key() == cohere.cache_key()
        assert load_scorer("cohere:rerank-v3.5", api_key="one", max_tokens_per_doc=9).cache_key() != key
        assert (
            load_scorer("tei:http://localhost:1").cache_key() != load_scorer("tei:http://localhost:2").cache_key()
        )

    def test_policies_are_told_apart_by_their_scorers(self) -> None:
        """And by their options."""
        one, other = FakeScorer(), FakeScorer(name="other")
        keys = [
            Hedged(one).cache_key(),
            Hedged(other).cache_key(),
            Cascade([one, other], keep=[2]).cache_key(),
            Cascade([one, other], keep=[3]).cache_key(),
            Fallback([one, other]).cache_key(),
            Cached(one).cache_key(),
            Cached(one, version="2").cache_key(),
        ]
        assert len(set(keys)) == len(keys)
        assert Hedged(one, delay=1.0).cache_key() == keys[0]

    def test_the_version_is_part_of_the_key(self) -> None:
        """A model that was replaced under its name is scored anew."""
        cache, model = MemoryCache(), FakeScorer()
        for version in ("", "2", "2"):
            rank(Cached(model, cache, version=version))
        assert model.calls == 2

    def test_kinds_of_options(self) -> None:
        """Every plain value has a key; what means nothing in another process has none."""

        class Options(FakeScorer):
            def __init__(self, option: Any) -> None:
                super().__init__()
                self.option = option

        plain = [1, 1.0, True, "1", b"1", None, (1,), {"a": 1}, {1}, Path("a"), Usage(), len]
        assert len({Options(value).cache_key() for value in plain}) == len(plain)
        assert Options({"a": 1, "b": 2}).cache_key() == Options({"b": 2, "a": 1}).cache_key()
        for value in (lambda: 1, object(), threading.Lock(), "".join):
            with pytest.raises(ConfigurationError, match="option 'option' is a .* let its class define cache_key"):
                Cached(Options(value))

    def test_options_that_cannot_be_read_are_named(self) -> None:
        """A scorer that keeps its options elsewhere says itself what they are."""
        with pytest.raises(ConfigurationError, match="option 'function' is in no attribute of that name"):
            Cached(Hidden(1))
        assert rank(Cached(Keyed(1))).usage.cached == 0


class Hidden(FakeScorer):
    """Keeps its option under another name."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function


class Keyed(Hidden):
    """Says what its option is."""

    def cache_key(self) -> str:
        """Return a key."""
        return "1"


class TestConcurrency:
    """Equal calls at the same time are scored once."""

    def test_many_threads_and_loops(self) -> None:
        """Thirty-two calls of overlapping texts, from threads and from event loops of their own."""
        model = FakeScorer(latency=0.05)
        reranker = Reranker(Cached(model))
        expected = dict(
            zip("abcdefgh", rank(FakeScorer(), "abcdefgh".replace("", " ").split()).scores, strict=True)
        )

        def call(number: int) -> Any:
            texts = ["abcdefgh"[(number + step) % 8] for step in range(4)]
            if number % 2:
                return texts, reranker.rerank(QUERY, texts)
            return texts, asyncio.run(reranker.arerank(QUERY, texts))

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(call, range(32)))
        for texts, ranking in answers:
            assert list(ranking.scores) == [expected[text] for text in texts]
        assert sorted(model.seen) == list("abcdefgh")
        assert sum(ranking.usage.documents for _, ranking in answers) == 8
        assert sum(ranking.usage.cached for _, ranking in answers) == 32 * 4 - 8

    async def test_a_cancelled_call_leaves_the_others_alone(self) -> None:
        """The work goes on for who waits still, and its usage is theirs."""
        model = FakeScorer(latency=0.1)
        reranker = Reranker(Cached(model))
        first = asyncio.ensure_future(reranker.arerank(QUERY, TEXTS))
        await until(lambda: model.active)
        second = asyncio.ensure_future(reranker.arerank(QUERY, TEXTS[:2]))
        await asyncio.sleep(0.02)
        first.cancel()
        ranking = await second
        assert model.calls == 1
        assert ranking.usage.requests == 1
        assert len(ranking) == 2

    async def test_work_that_nobody_waits_for_ends(self) -> None:
        """At the end of the last call it has really ended; the next one starts anew."""
        endless = Endless()
        reranker = Reranker(Cached(endless), timeout=0.05)
        calls = [reranker.arerank(QUERY, TEXTS[start:]) for start in (0, 0, 1)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ScorerTimeoutError] * 3
        assert (endless.active, endless.calls) == (0, 1)
        with pytest.raises(ScorerTimeoutError):
            await reranker.arerank(QUERY, TEXTS)
        assert endless.calls == 2

    async def test_a_failure_reaches_everybody(self) -> None:
        """Each with an error of its own, whose partial scores are by its own positions; usage is told once."""
        error = ScorerUnavailableError("down")
        error.partial, error.usage = {0: 0.5, 1: 0.25}, Usage(requests=3)
        model = FakeScorer(latency=0.05, error=error)
        reranker = Reranker(Cached(model))
        calls = [reranker.arerank(QUERY, texts) for texts in (["a", "b", "c"], ["b", "a"])]
        one, other = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(one, ScorerUnavailableError)
        assert isinstance(other, ScorerUnavailableError)
        assert one is not other
        assert (one.partial, other.partial) == ({0: 0.5, 1: 0.25}, {0: 0.25, 1: 0.5})
        assert reranker.total_usage.requests == 3
        assert model.calls == 1

    async def test_a_failure_ends_a_call_at_once(self) -> None:
        """The call waits for no other scoring, and what nobody else waits for ends."""
        released = asyncio.Event()

        class Failing(FakeScorer):
            async def score(self, query: str, texts: Sequence[str]) -> Scored:
                if texts == ["a"]:
                    await released.wait()
                    raise ScorerUnavailableError("down")
                return await super().score(query, texts)

        model = Failing(latency=60.0)
        cached = Cached(model)
        calls = [asyncio.ensure_future(cached.score(QUERY, texts)) for texts in (["a"], ["a", "b"])]
        await until(lambda: model.active)
        released.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30.0)
        assert [type(outcome) for outcome in outcomes] == [ScorerUnavailableError] * 2
        assert model.active == 0

    @pytest.mark.parametrize("works", [True, False])
    async def test_what_ended_during_a_slow_lookup_is_not_scored_again(self, works: bool) -> None:
        """The cache's answer is older than the scores of an equal call, or the cache fails."""

        class Slow(MemoryCache):
            asked, stored = 0, False

            async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
                found = await super().get(keys)
                self.asked += 1
                is_first = self.asked == 1
                await until(lambda: self.asked == 3 and (is_first or self.stored))
                await asyncio.sleep(0.0 if is_first else 0.05)
                return found if works else _raise()

            async def put(self, values: Mapping[bytes, bytes]) -> None:
                self.stored = True
                await super().put(values) if works else _raise()

        model = FakeScorer()
        reranker = Reranker(Cached(model, Slow(), cache_timeout=60.0))
        rankings = await asyncio.gather(*(reranker.arerank(QUERY, TEXTS) for _ in range(3)))
        assert model.calls == 1
        assert {ranking.scores for ranking in rankings} == {rank(FakeScorer()).scores}
        assert (reranker.total_usage.documents, reranker.total_usage.cached) == (len(TEXTS), 2 * len(TEXTS))

    def test_what_ends_as_the_call_is_cancelled_is_counted(self) -> None:
        """Whatever the moment, what was scored is in the total."""

        async def cancel_after(steps: int) -> tuple[int, float]:
            model = FakeScorer()
            reranker = Reranker(Cached(model))
            call = asyncio.ensure_future(reranker.arerank(QUERY, TEXTS))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
            return len(model.seen), reranker.total_usage.documents

        for steps in range(20):
            scored, counted = event_loop.run(cancel_after(steps))
            assert scored == counted, steps

    def test_foreign_exceptions_are_wrapped_and_exits_pass(self) -> None:
        """As without a cache."""

        async def leave(query: str, texts: Sequence[str]) -> float:
            raise SystemExit(3)

        with pytest.raises(ScorerError, match="KeyError") as caught:
            rank(Cached(FakeScorer(error=KeyError("secret"))))
        assert isinstance(caught.value.__cause__, KeyError)

        class Leaving(Calls):
            def cache_key(self) -> str:
                return "leaving"

        with pytest.raises(SystemExit):
            rank(Cached(Leaving(leave)))


class Broken(Cache):
    """Fails, dawdles or answers nonsense, as it is told."""

    def __init__(self, answer: Callable[[], Any], *, seconds: float = 0.0) -> None:
        self.answer = answer
        self.seconds = seconds

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Answer for every key."""
        await asyncio.sleep(self.seconds)
        return dict.fromkeys(keys, self.answer())

    async def put(self, values: Mapping[bytes, bytes]) -> None:
        """Do the same."""
        await asyncio.sleep(self.seconds)
        self.answer()


def _raise() -> Any:
    raise ConnectionError("redis://user:password@host")


class TestBrokenCaches:
    """A cache never fails a call."""

    @pytest.mark.parametrize("cache", [Broken(_raise), Broken(bytes, seconds=5.0)])
    def test_one_warning_and_the_scores(self, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
        """The warning quotes nothing that a foreign exception says."""
        cached = Cached(FakeScorer(), cache, cache_timeout=0.02)
        with caplog.at_level(logging.WARNING, "rerank_core"):
            assert rank(cached).scores == rank(cached).scores == rank(FakeScorer()).scores
        assert len(caplog.messages) == 1
        assert "goes on without its cache" in caplog.text
        assert "password" not in caplog.text

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"\xff",
            b"[]",
            b"7",
            b"[[2.0],[null],[0],null]",
            b"[[NaN],[null],[0],null]",
            b"[[0.5],[[3,1]],[0],null]",
            b"[[0.5],[null],[0],3]",
            b"[[0.5,0.5],[null,null],[0,0],null]",
        ],
    )
    def test_values_that_make_no_sense_are_missing(self, value: bytes) -> None:
        """They are scored, and written over."""
        model = FakeScorer()
        assert rank(Cached(model, Broken(lambda: value))).scores == rank(FakeScorer()).scores
        assert model.calls == 1

    @pytest.mark.parametrize("options", [{"cache": {}}, {"version": 3}, {"cache_timeout": 0}])
    def test_bad_options_are_named(self, options: dict[str, Any]) -> None:
        """By the name of the option."""
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            Cached(FakeScorer(), **options)


def store(cache: Cache, *keys: str) -> None:
    """Put keys into a cache."""
    event_loop.run(cache.put({key.encode(): b"v" * 200 for key in keys}))  # type: ignore[arg-type]


def found(cache: Cache, *keys: str) -> list[str]:
    """Return those keys that a cache has."""

    async def get() -> list[str]:
        return [key.decode() for key in await cache.get([key.encode() for key in keys])]

    return event_loop.run(get())


class TestMemoryCache:
    """Bounded by entries."""

    def test_the_least_recently_used_goes_first(self) -> None:
        """Reading is using."""
        cache = MemoryCache(max_entries=2)
        store(cache, "a", "b")
        assert found(cache, "a") == ["a"]
        store(cache, "c")
        assert found(cache, "a", "b", "c") == ["a", "c"]
        assert len(cache) == 2

    def test_copies_start_empty(self) -> None:
        """With the same bound."""
        cache = MemoryCache(max_entries=2)
        store(cache, "a")
        for twin in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
            assert (len(twin), twin.max_entries) == (0, 2)
        with pytest.raises(ConfigurationError, match="max_entries is 0"):
            MemoryCache(0)


class TestDiskCache:
    """Bounded by size, and whole whatever happens."""

    def test_it_outlives_the_process_s_scorer(self, tmp_path: Path) -> None:
        """A second scorer reads what the first one wrote; no text is in the file."""
        path = tmp_path / "folder" / "cache.db"
        with Reranker(Cached(FakeScorer(), DiskCache(path), cache_timeout=30.0)) as reranker:
            first = reranker.rerank(QUERY, TEXTS)
        model = FakeScorer()
        with Reranker(Cached(model, DiskCache(path), cache_timeout=30.0)) as reranker:
            assert reranker.rerank(QUERY, TEXTS).scores == first.scores
        assert model.calls == 0
        assert not any(text.encode() in path.read_bytes() for text in [QUERY, *TEXTS])

    def test_it_stays_within_its_size(self, tmp_path: Path) -> None:
        """The least recently used values go first, and reading is using."""
        cache = DiskCache(tmp_path / "cache.db", max_bytes=2**16)
        store(cache, "kept")
        for start in range(0, 2000, 100):
            store(cache, *(f"key {number}" for number in range(start, start + 100)))
            assert found(cache, "kept") == ["kept"]
        assert found(cache, "key 0", "key 1999") == ["key 1999"]
        event_loop.run(cache.aclose())  # type: ignore[arg-type]
        assert cache.path.stat().st_size < 2**16 + 100 * 400

    def test_copies_share_the_file(self, tmp_path: Path) -> None:
        """Pickled or copied."""
        cache = DiskCache(tmp_path / "cache.db", max_bytes=2**20)
        store(cache, "a")
        twin = pickle.loads(pickle.dumps(cache))
        assert found(twin, "a") == ["a"]
        assert repr(twin) == repr(cache)
        del twin
        gc.collect()
        assert found(cache, "a") == ["a"]

    def test_caches_on_one_file_share_a_thread_and_a_connection(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three hundred of them; closing one leaves the others to go on."""
        opened: list[threading.Thread] = []
        connect = sqlite3.connect
        monkeypatch.setattr(
            sqlite3, "connect", lambda *a, **kw: opened.append(threading.current_thread()) or connect(*a, **kw)
        )
        caches = [DiskCache(tmp_path / "cache.db", max_bytes=2**20 + number) for number in range(300)]
        before = set(threading.enumerate())
        for number, cache in enumerate(caches):
            store(cache, f"key {number}")
        assert {*threading.enumerate()} - before == set(opened)
        assert len(opened) == 1
        event_loop.run(caches[0].aclose())  # type: ignore[arg-type]
        assert found(caches[1], "key 0", "key 299") == ["key 0", "key 299"]

    def test_a_damaged_file_is_moved_aside(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """With one warning; a new one is begun."""
        path = tmp_path / "cache.db"
        cache = DiskCache(path)
        store(cache, *map(str, range(500)))
        event_loop.run(cache.aclose())  # type: ignore[arg-type]
        content = path.read_bytes()
        path.write_bytes(content[:100] + b"\xa5" * (len(content) - 100))
        model = FakeScorer()
        with caplog.at_level(logging.WARNING, "rerank_core"):
            cached = Cached(model, cache)
            rank(cached)
            assert rank(cached).usage.cached == len(TEXTS)
        assert ["was damaged" in message for message in caplog.messages] == [True]
        assert (tmp_path / "cache.db.damaged").is_file()

    @pytest.mark.parametrize("kind", ["text", "database", "version"])
    def test_what_is_no_cache_is_left_alone(
        self, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Somebody's notes, another program's database, another version's cache: nothing is written."""
        path = tmp_path / "precious"
        if kind == "text":
            path.write_bytes(b"my notes " * 1000)
        elif kind == "database":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE notes (text)")
            connection.close()
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA application_id = 1381124931")
                connection.execute("PRAGMA user_version = 99")
            connection.close()
        before = path.read_bytes()
        with caplog.at_level(logging.WARNING, "rerank_core"):
            assert rank(Cached(FakeScorer(), DiskCache(path))).scores == rank(FakeScorer()).scores
        assert str(path) in caplog.text
        assert "give another path" in caplog.text
        assert path.read_bytes() == before

    def test_a_locked_file_fails_no_call(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Another program holds the file; reads go on, the write is given up."""
        cache = DiskCache(tmp_path / "cache.db")
        store(cache, "a")
        other = sqlite3.connect(cache.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING, "rerank_core"):
            assert rank(Cached(FakeScorer(), cache, cache_timeout=0.05)).scores == rank(FakeScorer()).scores
        other.execute("ROLLBACK")
        other.close()
        assert "goes on without its cache" in caplog.text

    def test_bad_options_are_named(self, tmp_path: Path) -> None:
        """A folder is no file, and a cache needs some room."""
        with pytest.raises(ConfigurationError, match="is a folder"):
            DiskCache(tmp_path)
        with pytest.raises(ConfigurationError, match="max_bytes is 10"):
            DiskCache(tmp_path / "cache.db", max_bytes=10)

    def test_a_path_that_cannot_be_written_fails_no_call(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its folder is a file, say."""
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.WARNING, "rerank_core"):
            rank(Cached(FakeScorer(), DiskCache(tmp_path / "file" / "cache.db")))
        assert len(caplog.messages) == 1
