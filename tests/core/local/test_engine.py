"""The local engine: one thread per model, and batches within a budget that callers share."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import until

from rerank_core import Reranker, ScorerError
from rerank_core._call import event_loop
from rerank_core.local import engine as engine_module
from rerank_core.local.embedded.scorer import EmbeddedScorer
from rerank_core.local.engine import Engine, ModelJob, shared_engine
from rerank_core.local.scorer import PairScorer

BUDGET = 100


class Words(ModelJob[str, int]):
    """A job whose items are strings of as many characters as there are tokens."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.count = len(words)
        self.outputs: dict[int, int] = {}
        self.threads: set[str] = set()

    def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, str]]:
        """Return the words by position; what begins with a dash needs no model."""
        self.threads.add(threading.current_thread().name)
        return [(index, word) for index, word in enumerate(self.words[start:stop], start) if word[0] != "-"]

    def accept(self, position: int, output: int) -> None:
        """Keep the output."""
        self.threads.add(threading.current_thread().name)
        assert position not in self.outputs
        self.outputs[position] = output

    @property
    def expected(self) -> dict[int, int]:
        """What the model returns for the words that need it."""
        return {index: len(word) for index, word in enumerate(self.words) if word[0] != "-"}


class Model:
    """Returns the length of each item, and remembers its batches; waits at the gate before each one."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.hook: Callable[[Sequence[str]], None] = lambda items: None

    def forward(self, items: Sequence[str], /) -> Sequence[int]:
        """Return the lengths, unless the hook raises something."""
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)
        self.hook(items)
        return [len(item) for item in items]


@pytest.fixture
def model() -> Model:
    """Return a model that is open."""
    return Model()


@pytest.fixture
def engine(model: Model) -> Engine:
    """Return an engine around the model."""
    return Engine(lambda: model, BUDGET)


def run(engine: Engine, *jobs: ModelJob[Any, Any]) -> None:
    """Run jobs one after the other."""

    async def scenario() -> None:
        for job in jobs:
            await engine.run(job)

    event_loop.run(scenario())


def run_behind(
    engine: Engine, model: Model, *jobs: ModelJob[Any, Any], then: Callable[..., Any] | None = None
) -> list[Any]:
    """Let jobs wait together behind a batch that is held up, let it go, and return how each of them ended.

    Args:
        engine: where the jobs run.
        model: what holds the batch up.
        jobs: queued in this order.
        then: called with the jobs' tasks before the batch is let go.
    """

    async def scenario() -> list[Any]:
        model.gate.clear()
        first = asyncio.ensure_future(engine.run(Words("first")))
        await until(lambda: model.batches)
        tasks = [asyncio.ensure_future(engine.run(job)) for job in jobs]
        await asyncio.sleep(0)
        if then is not None:
            then(*tasks)
            await asyncio.sleep(0)
        model.batches.clear()
        model.gate.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    return event_loop.run(scenario())


def padded_tokens(batch: Sequence[str]) -> int:
    """Return what a batch costs."""
    return max(map(len, batch)) * len(batch)


def test_every_item_gets_its_output(engine: Engine) -> None:
    """In its own place, whatever the order of the batches."""
    job = Words("a" * 50, "-", "b", "c" * 120, "d" * 3)
    run(engine, job)
    assert job.outputs == job.expected


def test_model_and_jobs_run_in_one_thread_of_the_engine(engine: Engine, model: Model) -> None:
    """Never on the loop, never in two threads."""
    jobs = Words("a", "b"), Words("c")
    run(engine, *jobs)
    assert {*model.threads, *jobs[0].threads, *jobs[1].threads} == {"rerank-core-model"}


@given(st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=30), min_size=1, max_size=4))
def test_batches_respect_the_budget(lengths: list[list[int]]) -> None:
    """Padded to its longest item, each batch is within it, but for a single item that is longer itself."""
    model = Model()
    jobs = [Words(*("x" * length for length in call)) for call in lengths]
    assert run_behind(Engine(lambda: model, BUDGET), model, *jobs) == [None] * len(jobs)
    assert all(job.outputs == job.expected for job in jobs)
    assert sum(map(len, model.batches)) == sum(map(len, lengths))
    assert all(len(batch) == 1 or padded_tokens(batch) <= BUDGET for batch in model.batches)


def test_the_longest_go_first(engine: Engine, model: Model) -> None:
    """A call's batches fall in length, so that padding is small and a shortage of memory shows at once."""
    run(engine, Words(*("x" * length for length in (1, 90, 40, 2, 60, 39, 20))))
    assert [[len(word) for word in batch] for batch in model.batches] == [[90], [60], [40, 39], [20], [2, 1]]


def test_concurrent_calls_share_batches(engine: Engine, model: Model) -> None:
    """Short items of several calls make one batch."""
    jobs = [Words("a" * 10), Words("b" * 10), Words("c" * 10, "c" * 9)]
    assert run_behind(engine, model, *jobs) == [None] * 3
    assert model.batches == [["a" * 10, "b" * 10, "c" * 10, "c" * 9]]
    assert all(job.outputs == job.expected for job in jobs)


def test_a_small_call_does_not_wait_for_a_large_one(engine: Engine, model: Model) -> None:
    """It came later, and is done after its turn, with most of the large one still to do."""
    large, small = Words(*["x" * 90] * 50), Words("tiny")
    left = -1

    def measure(large_task: asyncio.Future[None], small_task: asyncio.Future[None]) -> None:
        def note(_: object) -> None:
            nonlocal left
            left = large.count - len(large.outputs)

        small_task.add_done_callback(note)
        model.hook = lambda _: time.sleep(0.002)  # so that the loop sees the end of one before that of the other

    assert run_behind(engine, model, large, small, then=measure) == [None, None]
    assert left > 25
    assert large.outputs == large.expected


def test_a_cancelled_call_leaves_the_queue(engine: Engine, model: Model) -> None:
    """None of its items is begun any more, and calls beside it go on."""
    cancelled, other = Words(*["x" * 90] * 20), Words("y" * 95)
    results = run_behind(engine, model, cancelled, other, then=lambda first, _: first.cancel())
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] is None
    assert model.batches == [["y" * 95]]


def test_a_call_cancelled_half_way_stops_there(engine: Engine, model: Model) -> None:
    """The batch under way is the last one of it."""
    job = Words(*["x" * 90] * 50)
    begun = threading.Event()

    def hold_the_sixth(_: Sequence[str]) -> None:
        if len(model.batches) == 5:
            model.gate.clear()
            begun.set()

    async def scenario() -> None:
        model.hook = hold_the_sixth
        task = asyncio.ensure_future(engine.run(job))
        await until(begun.is_set)
        task.cancel()
        await asyncio.wait({task})
        model.gate.set()
        await engine.run(Words("after"))

    event_loop.run(scenario())
    assert model.batches[-1] == ["after"]
    assert len(job.outputs) in {5, 6}


def test_many_texts_are_encoded_piece_by_piece(engine: Engine, model: Model) -> None:
    """So that a call of any size takes bounded memory; pieces that need no model are passed over."""
    job = Words(*(["-"] * 1500 + ["x"] * 700 + ["-"] * 600 + ["y" * 2]))
    run(engine, job)
    assert job.outputs == job.expected
    assert sum(map(len, model.batches)) == 701


@pytest.mark.parametrize("words", [(), ("-", "-")])
def test_a_call_without_work_ends_without_a_batch(engine: Engine, model: Model, words: tuple[str, ...]) -> None:
    """No texts, or none that needs the model."""
    run(engine, Words(*words))
    assert model.batches == []


@pytest.mark.parametrize(
    "error",
    [OSError("no such file"), MemoryError(), StopIteration(), SystemExit(1), KeyboardInterrupt(), BaseException()],
)
def test_an_error_while_loading_reaches_the_callers(error: BaseException) -> None:
    """All who wait for the model get it, whatever it is, and the next call tries again."""
    model = Model()
    attempts: list[BaseException | None] = [error, None]

    def load() -> Model:
        failure = attempts.pop(0)
        if failure is not None:
            raise failure
        return model

    engine = Engine(load, BUDGET)
    with pytest.raises((type(error), RuntimeError)) as caught:
        run(engine, Words("a"))
    assert caught.value is error or caught.value.__cause__ is error
    job = Words("abc")
    run(engine, job)
    assert job.outputs == {0: 3}
    assert attempts == []


@pytest.mark.parametrize(
    "error", [ValueError("bad batch"), StopIteration(), BaseException("a panic in native code")]
)
def test_an_error_in_a_batch_fails_the_calls_in_it(engine: Engine, model: Model, error: BaseException) -> None:
    """And no others; the next call finds the thread at work."""

    def fail_on_b(items: Sequence[str]) -> None:
        if any("b" in item for item in items):
            raise error

    model.hook = fail_on_b
    with_b, beside_b, apart = Words("b" * 50, "b" * 50, "b" * 50), Words("a" * 50), Words("c" * 99)
    results = run_behind(engine, model, with_b, beside_b, apart)
    assert [result is None for result in results] == [False, beside_b.outputs == beside_b.expected, True]
    assert results[0] is error or results[0].__cause__ is error
    assert sum("b" in item for batch in model.batches for item in batch) <= 2
    assert apart.outputs == apart.expected
    run(engine, Words("after"))
    assert model.batches[-1] == ["after"]


def test_an_error_fails_all_calls_of_a_shared_batch(engine: Engine, model: Model) -> None:
    """Nobody can tell whose item it was."""

    def fail(items: Sequence[str]) -> None:
        if "bad" in items:
            raise ValueError("bad batch")

    model.hook = fail
    results = run_behind(engine, model, Words("bad"), Words("abc"), Words("x" * 95))
    assert [type(result) for result in results] == [ValueError, ValueError, type(None)]


def test_an_error_while_encoding_fails_that_call_alone(engine: Engine, model: Model) -> None:
    """A call beside it gets its outputs."""

    class Broken(Words):
        def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, str]]:
            raise UnicodeError("cannot be read")

    good = Words("good")
    results = run_behind(engine, model, Broken("a"), good, Broken("b"))
    assert [type(result) for result in results] == [UnicodeError, type(None), UnicodeError]
    assert good.outputs == good.expected


def test_an_error_while_accepting_fails_the_call(engine: Engine, model: Model) -> None:
    """Instead of leaving it to wait for ever; the other calls of its batch go on."""

    class Choosy(Words):
        def accept(self, position: int, output: int) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(engine, Choosy("a"))
    good = Words("b", "c")
    results = run_behind(engine, model, Choosy("a"), good)
    assert [type(result) for result in results] == [ZeroDivisionError, type(None)]
    assert good.outputs == good.expected


def test_a_model_that_returns_too_little_fails_the_call(engine: Engine, model: Model) -> None:
    """Outputs that cannot be matched to items are not waited for."""
    model.forward = lambda items, /: [1]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="shorter"):
        run(engine, Words("a", "b"))


def live_threads() -> set[threading.Thread]:
    """Return the engines' threads that run."""
    return {thread for thread in threading.enumerate() if thread.name == "rerank-core-model"}


def ends(thread: threading.Thread) -> bool:
    """Tell whether a thread ends within a few seconds."""
    gc.collect()
    thread.join(5)
    return not thread.is_alive()


def test_the_thread_ends_when_the_engine_is_dropped(model: Model) -> None:
    """And with it the model's memory comes back."""
    before = live_threads()
    models = [Model()]
    alive = weakref.ref(models[0])
    engine = Engine(models.pop, BUDGET)
    run(engine, Words("a"))
    (thread,) = live_threads() - before
    del engine
    assert ends(thread)
    del thread
    gc.collect()
    assert alive() is None


def test_an_engine_without_calls_has_no_thread() -> None:
    """Nor a model: both wait for the first call."""
    before = live_threads()
    Engine(lambda: pytest.fail("loaded"), BUDGET)
    assert live_threads() == before


def test_a_forked_childs_engine_starts_afresh(model: Model) -> None:
    """What the child's hook does: the next call starts a thread and loads the model anew."""
    loads: list[Model] = []

    def load() -> Model:
        loads.append(model)
        return model

    engine = Engine(load, BUDGET)
    engine.abandon_after_fork()
    before = live_threads()
    run(engine, Words("a"))
    abandoned = engine._worker
    assert abandoned is not None
    engine.abandon_after_fork()
    run(engine, Words("b"))
    assert len(loads) == 2
    assert len(live_threads() - before) == 2
    abandoned.inbox.put(None)  # which in a real child has no thread to read it
    assert ends(abandoned.thread)


def test_a_caller_whose_loop_is_gone_is_forgotten(engine: Engine, model: Model) -> None:
    """Its call ends, and the thread goes on with the next one."""
    model.gate.clear()

    async def leave() -> None:
        task = asyncio.ensure_future(engine.run(Words("abandoned")))
        await until(lambda: model.batches)
        task.cancel()

    asyncio.run(leave())
    model.gate.set()
    run(engine, Words("after"))
    assert model.batches[-1] == ["after"]


def test_a_caller_whose_loop_was_closed_under_it_is_forgotten(engine: Engine, model: Model) -> None:
    """There is nobody left to tell; the thread goes on."""
    model.gate.clear()
    job = Words("abandoned")
    loop = asyncio.new_event_loop()
    task = loop.create_task(engine.run(job))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(until(lambda: model.batches))
    loop.close()
    model.gate.set()
    run(engine, Words("after"))
    assert job.outputs == job.expected
    assert not task.done()
    assert model.batches[-1] == ["after"]


def test_a_call_cancelled_just_as_it_ends_is_cancelled(engine: Engine, model: Model) -> None:
    """The answer that is on its way finds nobody, and that is all."""
    second = Words("second")
    second_done = threading.Event()
    job = Words("first")

    async def scenario() -> None:
        task = asyncio.ensure_future(engine.run(job))
        await asyncio.sleep(0)
        model.hook = lambda items: second_done.set() if "second" in items else None
        other = asyncio.ensure_future(engine.run(second))
        await asyncio.sleep(0)
        # Not awaited: while the loop is held up here, the first call ends in the engine's thread.
        assert second_done.wait(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await other

    model.gate.clear()
    threading.Timer(0.02, model.gate.set).start()
    engine._tokens_per_batch = 1
    event_loop.run(scenario())
    assert (job.outputs, second.outputs) == (job.expected, second.expected)


def test_at_exit_the_thread_ends_after_the_batch_under_way(engine: Engine, model: Model) -> None:
    """A thread inside native code must not be there when the interpreter is torn down."""
    job = Words(*["x" * 90] * 50)

    async def scenario() -> None:
        model.gate.clear()
        task = asyncio.ensure_future(engine.run(job))
        await until(lambda: model.batches)
        worker = engine._worker
        assert worker is not None
        threading.Timer(0.02, model.gate.set).start()
        worker._stop_at_exit()
        assert not worker.thread.is_alive()
        task.cancel()
        await asyncio.wait({task})

    event_loop.run(scenario())
    assert len(model.batches) == len(job.outputs) == 1


def test_a_fork_makes_the_child_abandon_all_after_fork_engines(
    engine: Engine, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hook that the child runs."""
    monkeypatch.setattr(engine_module, "_engines", weakref.WeakSet([engine]))
    run(engine, Words("a"))
    abandoned = engine._worker
    assert abandoned is not None
    engine_module._abandon_all_after_fork()
    assert engine._worker is None
    abandoned.inbox.put(None)
    assert ends(abandoned.thread)


def test_equal_keys_share_an_engine_while_somebody_holds_it() -> None:
    """Others get one of their own, and so does who comes after the last one let go."""
    one = shared_engine(("test", 1), Model, BUDGET)
    assert shared_engine(("test", 1), Model, BUDGET) is one
    assert shared_engine(("test", 2), Model, BUDGET) is not one
    alive = weakref.ref(one)
    del one
    gc.collect()
    assert alive() is None


loads: list[str] = []


class CountingScorer(PairScorer):
    """A local scorer whose model scores by length, and whose loads are counted."""

    provider = "counting"

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(model, **{"score_scale": "probability", **options})

    def load(self) -> Any:
        """Count, and return the model."""
        loads.append(self.model)
        time.sleep(0.02)

        class Lengths:
            def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[str]:
                return texts

            def forward(self, items: Sequence[str], /) -> Sequence[float]:
                return [len(item) / 1000 for item in items]

        return Lengths()


@pytest.fixture
def counted() -> list[str]:
    """Return the list of loads, empty."""
    loads.clear()
    return loads


async def test_rerankers_of_one_model_load_it_once(counted: list[str]) -> None:
    """Also when all of them begin at once; other options are another model."""
    rerankers = [Reranker(CountingScorer("a")) for _ in range(5)]
    rankings = await asyncio.gather(*(reranker.arerank("query", ["text"]) for reranker in rerankers))
    assert [ranking.scores for ranking in rankings] == [(0.004,)] * 5
    assert counted == ["a"]
    other = Reranker(CountingScorer("a", tokens_per_batch=10))
    await other.arerank("query", ["text"])
    await Reranker(CountingScorer("b")).arerank("query", ["text"])
    assert counted == ["a", "a", "b"]


def test_warming_up_loads_the_model(counted: list[str]) -> None:
    """So that the first call does not."""
    reranker = Reranker(CountingScorer("warm"))
    reranker.warm_up()
    assert counted == ["warm"]
    reranker.rerank("query", ["text"])
    assert counted == ["warm"]


def test_usage_counts_tokens_and_one_request(counted: list[str]) -> None:
    """The tokens that the model read."""
    usage = Reranker(CountingScorer("a")).rerank("query", ["four", "seven77", ""]).usage
    assert (usage.requests, usage.documents, usage.tokens) == (1, 2, 11)


def test_dropping_the_last_reranker_drops_the_model(counted: list[str]) -> None:
    """Its thread ends, so its memory comes back."""
    before = live_threads()
    reranker = Reranker(CountingScorer("dropped"))
    twin = Reranker(CountingScorer("dropped"))
    reranker.rerank("query", ["text"])
    twin.rerank("query", ["text"])
    (thread,) = live_threads() - before
    del reranker
    gc.collect()
    twin.rerank("query", ["text"])
    assert counted == ["dropped"]
    del twin
    assert ends(thread)


def test_equal_options_of_the_embedded_scorer_share_an_engine() -> None:
    """Different ones do not."""
    scorer = EmbeddedScorer(max_length=77)
    assert EmbeddedScorer(max_length=77).engine is scorer.engine
    assert EmbeddedScorer(max_length=78).engine is not scorer.engine


def test_a_panic_of_native_code_is_a_scorer_error(counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tokenizers' are, which derive from BaseException: the caller can degrade, and the next call works."""

    class PanicException(BaseException):
        pass

    def panic(self: Any) -> Any:
        raise PanicException("index out of bounds")

    reranker = Reranker(CountingScorer("panic"))
    with monkeypatch.context() as patch:
        patch.setattr(CountingScorer, "load", panic)
        with pytest.raises(ScorerError, match="counting:panic: failed with RuntimeError"):
            reranker.rerank("query", ["text"])
    assert len(Reranker(CountingScorer("calm")).rerank("query", ["text"])) == 1


class Interruptible(Model):
    """Runs until it is interrupted, or its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = 0

    def arm(self) -> None:
        """Count from here."""
        self.interrupted = 0

    def interrupt(self) -> None:
        """Let go."""
        self.interrupted += 1
        self.gate.set()


def test_a_batch_that_nobody_waits_for_any_more_is_interrupted() -> None:
    """At once, when the last of its callers has given up, and the engine goes on."""
    model = Interruptible()
    engine = Engine(lambda: model, BUDGET)

    async def scenario() -> dict[int, int]:
        model.gate.clear()
        first = asyncio.ensure_future(engine.run(Words("first")))
        await until(lambda: model.batches)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert model.interrupted == 1
        last = Words("last")
        await engine.run(last)
        return last.outputs

    assert event_loop.run(scenario()) == {0: 4}
    assert model.interrupted == 0


def test_a_batch_is_not_begun_for_callers_that_gave_up_while_it_was_made() -> None:
    """Tokenising many texts takes longer than some deadlines."""
    model = Model()
    engine = Engine(lambda: model, BUDGET)
    encoding, go_on = threading.Event(), threading.Event()

    class Slow(Words):
        def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, Any]]:
            encoding.set()
            go_on.wait(10)
            return super().encode(model, start, stop)

    async def scenario() -> dict[int, int]:
        first = asyncio.ensure_future(engine.run(Slow("first")))
        await until(encoding.is_set)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        go_on.set()
        last = Words("last")
        await engine.run(last)
        return last.outputs

    assert event_loop.run(scenario()) == {0: 4}
    assert len(model.batches) == 1


def test_a_batch_that_somebody_still_waits_for_is_not_interrupted() -> None:
    """The others of the batch get their outputs when one gives up."""
    model = Interruptible()
    engine = Engine(lambda: model, BUDGET)
    stays = Words("stays")

    async def scenario() -> None:
        model.gate.clear()
        blocker = asyncio.ensure_future(engine.run(Words("blocker")))
        await until(lambda: model.batches)
        leaves, other = (asyncio.ensure_future(engine.run(job)) for job in (Words("leaves"), stays))
        await asyncio.sleep(0)
        model.gate.set()
        await blocker
        model.hook = lambda items: time.sleep(0.2)
        leaves.cancel()
        await other

    event_loop.run(scenario())
    assert stays.outputs == stays.expected
    assert model.interrupted == 0


def test_a_model_may_say_what_suits_its_device(model: Model, engine: Engine) -> None:
    """How many tokens a batch, once it is loaded; the engine's own number is for those that do not say."""
    model.tokens_per_batch = 3 * BUDGET  # type: ignore[attr-defined]
    run(engine, Words(*["x" * BUDGET] * 6))
    assert list(map(len, model.batches)) == [3, 3]
