"""RerankPostprocessor serialised as LlamaIndex does it: to_dict, from_dict, to_json, pickle; callback managers."""

from __future__ import annotations

import json
import pickle
import threading
from types import ModuleType

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pydantic import BaseModel, SecretStr, ValidationError
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.keyed_provider import CHANGED_OPTIONS, KEY

from llamaindex_rerankers import RerankPostprocessor
from rerank_core import Reranker, Selection
from rerank_core.testing import FakeScorer

CHANGED = {
    **CHANGED_OPTIONS,
    "metadata_mode": MetadataMode.NONE,
    "keep_retrieval_score": True,
    "without_text": "keep",
}


def nodes() -> list[NodeWithScore]:
    """Return the usual texts as nodes."""
    return [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]


def texts(postprocessor: BaseNodePostprocessor) -> list[str]:
    """Return the texts of the usual nodes that survive, best first."""
    return [node.text for node in postprocessor.postprocess_nodes(nodes(), query_str=QUERY)]


def one_text(node: NodeWithScore) -> str:
    """Return the same text for every node; it lives in a module, so that it can be pickled."""
    return "text"


class Unpicklable(LlamaDebugHandler):
    """A callback handler that holds a lock, as one with a client does."""

    def __init__(self) -> None:
        super().__init__(print_trace_on_end=False)
        self.lock = threading.Lock()


def test_a_dictionary_holds_every_option_but_the_key(provider: ModuleType) -> None:
    """And rebuilds the same postprocessor, with a scorer of the same options."""
    dumped = RerankPostprocessor(**CHANGED, api_key=SecretStr(KEY)).to_dict()
    assert dumped == {**CHANGED, "class_name": "RerankPostprocessor"}
    rebuilt = RerankPostprocessor.from_dict(dumped)
    assert rebuilt.to_dict() == dumped
    assert {name: getattr(rebuilt, name) for name in CHANGED} == CHANGED
    scorer = rebuilt.get_reranker().scorer
    assert vars(scorer) == {**vars(scorer), "base_url": "https://rerank.example/v1", "max_length": 128}
    assert vars(scorer)["api_key"] is None


def test_the_key_may_be_given_again(provider: ModuleType) -> None:
    """As from_dict takes further arguments."""
    dumped = RerankPostprocessor(**CHANGED, api_key=SecretStr(KEY)).to_dict()
    rebuilt = RerankPostprocessor.from_dict(dumped, api_key=SecretStr(KEY))
    assert vars(rebuilt.get_reranker().scorer)["api_key"].get_secret_value() == KEY


def test_json_rebuilds_the_same(provider: ModuleType) -> None:
    """Also where the JSON is LlamaIndex's own, or pydantic's with the class's name in it."""
    postprocessor = RerankPostprocessor(**CHANGED, api_key=SecretStr(KEY))
    for rebuilt in (
        RerankPostprocessor.from_json(postprocessor.to_json()),
        RerankPostprocessor.from_json(postprocessor.json()),
        RerankPostprocessor.model_validate_json(postprocessor.model_dump_json()),
        RerankPostprocessor.model_validate(postprocessor.model_dump()),
    ):
        assert {name: getattr(rebuilt, name) for name in CHANGED} == CHANGED
        assert type(rebuilt.metadata_mode) is MetadataMode
    assert KEY not in postprocessor.to_json()
    assert json.loads(postprocessor.to_json())["metadata_mode"] == "none"


def test_it_may_be_part_of_another_model() -> None:
    """Which is dumped and read back with it."""

    class Settings(BaseModel):
        """An application's settings."""

        rerank: RerankPostprocessor

    settings = Settings(rerank=RerankPostprocessor(top_n=3, score_threshold=0.5))
    rebuilt = Settings.model_validate_json(settings.model_dump_json())
    assert (rebuilt.rerank.top_n, rebuilt.rerank.score_threshold) == (3, 0.5)


def test_another_class_name_is_refused() -> None:
    """What was dumped by another class is no RerankPostprocessor."""
    with pytest.raises(ValidationError, match="class_name"):
        RerankPostprocessor.model_validate({"class_name": "SimilarityPostprocessor"})
    assert RerankPostprocessor.class_name() == "RerankPostprocessor"


def test_what_was_dumped_works() -> None:
    """With the default model."""
    rebuilt = RerankPostprocessor.from_json(RerankPostprocessor(top_n=1).to_json())
    assert texts(rebuilt) == BEST_FIRST[:1]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_any_protocol_keep_reranker_and_function(protocol: int) -> None:
    """Though LlamaIndex's components build themselves anew from their fields."""
    ready = Reranker(FakeScorer(), selection=Selection(top_n=3), timeout=9.0)
    postprocessor = RerankPostprocessor(reranker=ready, text_fn=one_text, metadata_mode=MetadataMode.LLM)
    restored = pickle.loads(pickle.dumps(postprocessor, protocol))
    assert (restored.text_fn, restored.metadata_mode) == (one_text, MetadataMode.LLM)
    assert (restored.reranker.selection, restored.reranker.timeout) == (ready.selection, 9.0)
    assert texts(restored) == TEXTS[:3]


def test_pickling_leaves_the_callback_manager_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The copy has one of its own; the original keeps its handlers, which may hold what cannot be pickled."""
    handler = Unpicklable()
    manager = CallbackManager([handler])
    postprocessor = RerankPostprocessor(reranker=Reranker(FakeScorer()), callback_manager=manager)
    restored = pickle.loads(pickle.dumps(postprocessor))
    assert postprocessor.callback_manager is manager
    assert restored.callback_manager.handlers == []
    assert caplog.records == []
    assert texts(restored) == BEST_FIRST
    assert handler.get_event_pairs(CBEventType.RERANKING) == []
    assert texts(postprocessor) == BEST_FIRST
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1


def test_a_callback_manager_may_be_put_in_its_place_later() -> None:
    """As query engines do with a shared postprocessor; events go to the newest."""
    postprocessor = RerankPostprocessor(reranker=Reranker(FakeScorer()))
    handlers = [LlamaDebugHandler(print_trace_on_end=False) for _ in range(2)]
    for handler in handlers:
        postprocessor.callback_manager = CallbackManager([handler])
        postprocessor.postprocess_nodes(nodes(), query_str=QUERY)
    assert [len(handler.get_event_pairs(CBEventType.RERANKING)) for handler in handlers] == [1, 1]
