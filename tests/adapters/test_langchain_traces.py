"""The compressor's run: what a LangChain tracer records of it, and where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import AsyncCallbackHandler, AsyncCallbackManager, CallbackManager
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import SecretStr
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.keyed_provider import KEY
from support.langchain_parts import FirstStage
from support.scorers import Endless
from support.waiting import until

from langchain_rerankers import RerankCompressor, RerankRetriever
from rerank_core import ConfigurationError, Reranker, ScorerError
from rerank_core.testing import FakeScorer

Compress = Callable[..., list[Document]]


class Tracer(BaseTracer):
    """Keeps the root runs that ended, and counts starts and ends of all."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []
        self.started = 0
        self.ended = 0

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)

    def _on_run_create(self, run: Run) -> None:
        self.started += 1

    def _on_run_update(self, run: Run) -> None:
        self.ended += 1

    def tree(self) -> Any:
        """Return the one root as (name, run type, children)."""
        [root] = self.roots
        assert self.started == self.ended
        return branch(root)


def branch(run: Run) -> Any:
    """Return a run as (name, run type, children)."""
    return run.name, run.run_type, [branch(child) for child in run.child_runs]


@pytest.fixture(params=["sync", "async"])
def compress(request: pytest.FixtureRequest) -> Compress:
    """Return a function that calls a compressor, sync and async in turn."""

    def call(
        compressor: RerankCompressor, documents: list[Document], query: str = QUERY, callbacks: Any = None
    ) -> list[Document]:
        if request.param == "sync":
            return compressor.compress_documents(documents, query, callbacks)
        return asyncio.run(compressor.acompress_documents(documents, query, callbacks))

    return call


def invoke(runnable: Any, value: Any, config: Any, *, is_async: bool) -> Any:
    """Invoke a runnable one way or the other."""
    return asyncio.run(runnable.ainvoke(value, config)) if is_async else runnable.invoke(value, config)


def documents() -> list[Document]:
    """Return new documents."""
    return [Document(text, id=text) for text in TEXTS]


def compressor(scorer: Any = None, on_error: Any = "raise", **options: Any) -> RerankCompressor:
    """Return a compressor around a scorer without a model."""
    return RerankCompressor(reranker=Reranker(scorer or FakeScorer(), on_error=on_error), **options)


def test_a_run_shows_what_went_in_and_what_came_out(compress: Compress) -> None:
    """Query and documents; survivors, model and usage; the options as metadata."""
    tracer = Tracer()
    given = documents()
    kept = compress(compressor(top_n=2, score_threshold=0.25), given, callbacks=[tracer])
    [run] = tracer.roots
    assert tracer.tree() == ("RerankCompressor", "chain", [])
    assert run.inputs == {"query": QUERY, "documents": given}
    assert run.outputs is not None
    assert run.outputs["documents"] == kept
    assert run.outputs["model"] == "fake"
    assert (run.outputs["usage"]["documents"], run.outputs["usage"]["requests"]) == (4, 1)
    assert "error" not in run.outputs
    shown = {key: value for key, value in run.metadata.items() if key.startswith("rerank_")}
    assert shown == {
        "rerank_model": "fake",
        "rerank_top_n": 2,
        "rerank_score_threshold": 0.25,
        "rerank_adaptive_ratio": None,
        "rerank_min_keep": 0,
        "rerank_retrieval_weight": 0.0,
    }
    assert run.error is None


@pytest.mark.parametrize("manager", [CallbackManager, AsyncCallbackManager])
def test_callbacks_may_be_either_manager(compress: Compress, manager: type[Any]) -> None:
    """The async one in a sync call too, which is what LangChain's default async path hands on."""
    tracer = Tracer()
    kept = compress(compressor(top_n=1), documents(), callbacks=manager(handlers=[tracer]))
    assert kept[0].page_content == BEST_FIRST[0]
    assert tracer.tree() == ("RerankCompressor", "chain", [])


def test_an_empty_list_is_a_run_too(compress: Compress) -> None:
    """With nothing in it."""
    tracer = Tracer()
    assert compress(compressor(), [], callbacks=[tracer]) == []
    [run] = tracer.roots
    assert (run.inputs["documents"], (run.outputs or {})["documents"], run.error) == ([], [], None)


def test_a_failure_ends_the_run(compress: Compress) -> None:
    """With the error that the caller gets."""
    tracer = Tracer()
    with pytest.raises(ScorerError):
        compress(compressor(FakeScorer(error=RuntimeError("down"))), documents(), callbacks=[tracer])
    [run] = tracer.roots
    assert "ScorerError" in (run.error or "")
    with pytest.raises(ConfigurationError):
        compress(compressor(), documents(), query=" ", callbacks=[tracer])
    assert "ConfigurationError" in (tracer.roots[1].error or "")
    assert tracer.started == tracer.ended == 2


def test_a_passthrough_shows_its_error(compress: Compress) -> None:
    """The run succeeds, as the call does, and its output says what failed."""
    tracer = Tracer()
    failing = compressor(FakeScorer(error=RuntimeError("down")), on_error="passthrough", top_n=2)
    assert [kept.page_content for kept in compress(failing, documents(), callbacks=[tracer])] == TEXTS[:2]
    [run] = tracer.roots
    assert run.error is None
    assert (run.outputs or {})["error"].startswith("ScorerError: ")


async def test_cancelling_ends_the_run() -> None:
    """Start and end are balanced, and the error says what happened."""
    tracer, scorer = Tracer(), Endless()
    call = asyncio.create_task(compressor(scorer).acompress_documents(documents(), QUERY, [tracer]))
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert tracer.tree() == ("RerankCompressor", "chain", [])
    assert "CancelledError" in (tracer.roots[0].error or "")


async def test_an_async_handler_is_awaited() -> None:
    """On the caller's own loop."""

    class Handler(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        async def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.seen.append((kwargs["name"], asyncio.get_running_loop()))

        async def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            self.seen.append((len(outputs["documents"]), asyncio.get_running_loop()))

    handler = Handler()
    await compressor(top_n=3).acompress_documents(documents(), QUERY, [handler])
    loop = asyncio.get_running_loop()
    assert handler.seen == [("RerankCompressor", loop), (3, loop)]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", ["classic", "own"])
def test_the_run_stands_inside_the_retrievers(kind: str, is_async: bool) -> None:
    """After the first stage's, with the tags and metadata of the caller's config."""
    first = FirstStage(documents=documents())
    retriever: Any = (
        RerankRetriever(retriever=first, compressor=compressor())
        if kind == "own"
        else ContextualCompressionRetriever(base_retriever=first, base_compressor=compressor())
    )
    tracer = Tracer()
    config = {"callbacks": [tracer], "tags": ["search"], "metadata": {"user": "u-1"}, "run_name": "outer"}
    invoke(retriever, QUERY, config, is_async=is_async)
    children = [("FirstStage", "retriever", []), ("RerankCompressor", "chain", [])]
    assert tracer.tree() == ("outer", "retriever", children)
    for child in tracer.roots[0].child_runs:
        assert "search" in (child.tags or [])
        assert child.metadata["user"] == "u-1"


def test_without_callbacks_those_around_count() -> None:
    """A compressor that is called inside a runnable stands in that runnable's run, tags and metadata included."""
    tracer = Tracer()
    step = RunnableLambda(lambda query: compressor(top_n=1).compress_documents(documents(), query), name="step")
    step.invoke(QUERY, {"callbacks": [tracer], "tags": ["search"], "metadata": {"user": "u-1"}})
    assert tracer.tree() == ("step", "chain", [("RerankCompressor", "chain", [])])
    child = tracer.roots[0].child_runs[0]
    assert "search" in (child.tags or [])
    assert child.metadata["user"] == "u-1"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_runnable_is_one_run(is_async: bool) -> None:
    """Named as the compressor, or as the config says."""
    runnable = compressor(top_n=1).as_runnable()
    for config, name in [({}, "RerankCompressor"), ({"run_name": "second stage"}, "second stage")]:
        tracer = Tracer()
        given = {"query": QUERY, "documents": documents()}
        invoke(runnable, given, {"callbacks": [tracer], **config}, is_async=is_async)
        assert tracer.tree() == (name, "chain", [])


def test_the_key_is_in_no_run(provider: ModuleType) -> None:
    """Neither in inputs, outputs nor metadata."""
    tracer = Tracer()
    RerankCompressor(model="keyed", api_key=SecretStr(KEY)).compress_documents(documents(), QUERY, [tracer])
    [run] = tracer.roots
    assert run.metadata["rerank_model"] == "keyed:"
    assert KEY not in f"{run.inputs} {run.outputs} {run.extra} {run.serialized} {run.events}"
