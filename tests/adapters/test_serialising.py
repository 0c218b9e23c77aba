"""Dumps tell the truth: what they hold rebuilds the same, and what they cannot hold is named and asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.load import dumpd, load
from langchain_core.runnables import RunnableLambda
from llama_index.core.workflow import Context, JsonSerializer, Workflow, step
from llama_index.core.workflow.events import StartEvent, StopEvent
from pydantic import SecretStr, ValidationError
from support.doors import BEST_FIRST, Door
from support.keyed_provider import KEY

from langchain_rerankers import RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ConfigurationError, Reranker, Selection, load_scorer
from rerank_core.local.embedded.scorer import EmbeddedScorer
from rerank_core.policies import Breaker, Cached, Calibrated, Calibration, Cascade, Fallback, Hedged, Windowed
from rerank_core.policies.caches import DiskCache
from rerank_core.serialization import dump_reranker, restore_reranker
from rerank_core.testing import FakeScorer


def rebuilt(settings: Any) -> Any:
    """Return what is built from a dump that went through JSON."""
    return type(settings).model_validate_json(settings.model_dump_json())


def test_a_ready_reranker_made_of_names_survives(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scorers, policies and their options, the selection, the deadline and the error policy; the key does not."""
    monkeypatch.setenv("CO_API_KEY", "another")
    cohere = load_scorer("cohere:rerank-v3.5", api_key=KEY, max_retries=1)
    scorer = Fallback([cohere, Windowed("embedded", window=64)], timeout=2.0, breaker=Breaker(failures=3))
    ready = Reranker(scorer, selection=Selection(top_n=2), timeout=9.0, on_error="passthrough")
    settings = kind(reranker=ready, score_threshold=0.5)
    assert KEY not in settings.model_dump_json()
    restored = rebuilt(settings).get_reranker()
    assert restored.scorer.name == scorer.name
    assert [type(each) for each in restored.scorer.scorers] == [type(each) for each in scorer.scorers]
    assert (restored.scorer.timeout, restored.scorer.breaker) == (2.0, Breaker(failures=3))
    assert restored.scorer.scorers[0].options.max_retries == 1
    assert restored.scorer.scorers[0].options.api_key is None
    assert restored.scorer.scorers[1].window == 64
    assert (restored.selection, restored.timeout, restored.on_error) == (Selection(top_n=2), 9.0, "passthrough")
    assert rebuilt(settings).selection() == settings.selection() == Selection(score_threshold=0.5, top_n=2)


def test_lists_in_options_stay_lists() -> None:
    """So the restored scorer is equal to the dumped one."""
    scorer = load_scorer("llm:m", base_url="http://127.0.0.1:1", body={"stop": ["a", "b"]})
    restored = restore_reranker(json.loads(json.dumps(dump_reranker(Reranker(scorer))))).scorer
    assert restored == scorer


@pytest.mark.parametrize(
    "options",
    [
        {"reranker": Reranker(FakeScorer())},
        {"text_fn": str},
        {"reranker": Reranker(Hedged(FakeScorer())), "text_fn": str},
    ],
    ids=["scorer", "function", "both"],
)
def test_what_a_dump_cannot_hold_is_asked_for(kind: type[Any], options: dict[str, Any]) -> None:
    """Named in the dump, and in the error that loading it raises; given again, it is as it was."""
    settings = kind(**options, top_n=2)
    dumped = json.loads(settings.model_dump_json())
    assert set(dumped["not_serialized"]) == set(options)
    for name in options:
        with pytest.raises(ValidationError, match=f"the dump has .*no {name} "):
            kind.model_validate(dumped)
    whole = kind.model_validate({**dumped, **options})
    assert {name: getattr(whole, name) for name in options} == options
    assert whole.top_n == 2


def test_llamaindexs_own_ways(door: Door) -> None:
    """``from_dict`` and ``from_json`` never make the default model instead of the given one."""
    lambda_reranker = RerankPostprocessor(reranker=Reranker(FakeScorer()), top_n=2)
    with pytest.raises(
        ValidationError, match=r"the dump has no reranker \(a FakeScorer cannot be written as data\)"
    ):
        RerankPostprocessor.from_dict(lambda_reranker.to_dict())
    again = RerankPostprocessor.from_dict(lambda_reranker.to_dict(), reranker=Reranker(FakeScorer()))
    named = RerankPostprocessor(reranker=Reranker(Cascade(["embedded", "embedded"], keep=[3])), top_n=2)
    loaded = RerankPostprocessor.from_json(named.to_json())
    assert loaded.get_reranker().scorer.name == "cascade(embedded, embedded)"
    assert loaded.class_name() in loaded.to_json()
    if door.kind is RerankPostprocessor:
        assert door.texts(again) == BEST_FIRST[:2]
        assert door.texts(loaded)[0] == BEST_FIRST[0]


def test_a_dump_of_a_part_holds_that_part(kind: type[Any]) -> None:
    """``include`` and ``exclude`` count for what is added, too."""
    settings = kind(reranker=Reranker("embedded"), text_fn=str, top_n=2)
    assert settings.model_dump(include={"top_n"}).items() >= {"top_n": 2}.items()
    assert "reranker" not in settings.model_dump(include={"top_n"})
    assert "reranker" not in settings.model_dump(exclude={"reranker"})


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_langchain_does_not_pretend_either() -> None:
    """Its dumps of retrievers and runnables say that they are none, and loading one raises."""
    compressor = RerankCompressor(reranker=Reranker(FakeScorer()), api_key=None)
    retriever = RerankRetriever(retriever=RunnableLambda(lambda query: []), compressor=compressor)
    for dumped in (dumpd(retriever), dumpd(compressor.as_runnable())):
        assert dumped["type"] == "not_implemented"
        with pytest.raises(NotImplementedError):
            load(dumped, allowed_objects="all")


class Empty(Workflow):
    """A workflow, whose context is stored."""

    @step
    async def end(self, event: StartEvent) -> StopEvent:
        """End at once."""
        return StopEvent()


async def test_a_workflows_context_keeps_it() -> None:
    """Made of names it comes back; holding what has no name, it cannot be loaded as something else."""
    for reranker, error in ((Reranker(Fallback(["embedded"])), None), (Reranker(FakeScorer()), "no reranker")):
        context: Context[Any] = Context(Empty())
        await context.store.set("rerank", RerankPostprocessor(reranker=reranker, top_n=3))
        stored = json.loads(json.dumps(context.to_dict(serializer=JsonSerializer())))
        if error is None:
            loaded = await Context.from_dict(Empty(), stored, serializer=JsonSerializer()).store.get("rerank")
            assert (loaded.top_n, loaded.get_reranker().scorer.name) == (3, "fallback(embedded)")
            continue
        with pytest.raises(Exception, match=error):
            await Context.from_dict(Empty(), stored, serializer=JsonSerializer()).store.get("rerank")


# The core's part


def test_rerankers_as_data(tmp_path: Any) -> None:
    """Every policy, with a cache on disk and nested."""
    cache = DiskCache(tmp_path / "scores.db", max_bytes=2**20)
    reranker = Reranker(
        Cached(Hedged(Cascade(["embedded", "tei:http://localhost:1"], keep=[9]), delay=0.5), cache)
    )
    data = json.loads(json.dumps(dump_reranker(reranker)))
    restored = restore_reranker(data)
    assert restored.scorer.name == reranker.scorer.name
    assert dump_reranker(restored) == data
    assert vars(restored.scorer)["cache"].path == cache.path


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"$kind": "Selection"},
        {"$kind": "Popen", "args": "true"},
        {"$kind": "Reranker", "scorer": {"$scorer": "nobody"}},
        {"$kind": "Reranker", "scorer": "embedded", "unknown": 1},
        {"$kind": "Reranker", "scorer": {"$error": "Popen"}},
    ],
)
def test_other_data_is_refused(data: dict[str, Any]) -> None:
    """And makes no object of any other kind."""
    with pytest.raises(ConfigurationError):
        restore_reranker(data)


def test_a_key_stays_out() -> None:
    """Of every scorer, however deep."""
    scorer = Fallback([Windowed(load_scorer("cohere:rerank-v3.5", api_key=SecretStr(KEY)))])
    assert KEY not in json.dumps(dump_reranker(Reranker(scorer)))


def test_a_subclass_is_not_taken_for_what_it_inherits() -> None:
    """Its name would bring back another scorer's scores."""

    class Contrary(EmbeddedScorer):
        def combine(self, cosine: Any, best: Any) -> Any:
            return -super().combine(cosine, best)

    with pytest.raises(ConfigurationError, match="a Contrary cannot be written as data"):
        dump_reranker(Reranker(Contrary()))


def test_a_calibration_is_the_same_after_json() -> None:
    """Also for a cache, which would score everything anew otherwise."""
    curve = Calibration(model="embedded", method="isotonic", knots=((0.1, 0.2), (0.5, 0.9)))
    scorer = Calibrated("embedded", curve)
    restored = restore_reranker(json.loads(json.dumps(dump_reranker(Reranker(scorer))))).scorer
    assert isinstance(restored, Calibrated)
    assert restored.calibration == curve
    assert hash(restored.calibration) == hash(curve)
    assert restored.cache_key() == scorer.cache_key()
