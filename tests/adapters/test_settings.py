"""The options that both adapters share: defaults, checks, changes, copies, and what must never leak."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode
from pydantic import SecretStr, ValidationError
from support.doors import BEST_FIRST, TEXTS, Door
from support.keyed_provider import CHANGED_OPTIONS, KEY
from support.scorers import Answers

from langchain_rerankers import RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ConfigurationError, MissingExtraError, Reranker, ScorerError, Selection
from rerank_core.ranking_options import prepend_metadata
from rerank_core.testing import FakeScorer

SHARED = {
    "model": "embedded",
    "top_n": 5,
    "score_threshold": None,
    "adaptive_ratio": None,
    "min_keep": 0,
    "api_key": None,
    "base_url": None,
    "timeout": None,
    "on_error": "raise",
    "retrieval_weight": 0.0,
    "metadata_fields": (),
    "model_options": {},
    "text_fn": None,
    "return_passage": False,
    "diversity": 0.0,
    "vector_fn": None,
    "order": "relevance",
    "collapse_duplicates": False,
    "reranker": None,
}
OWN = {
    RerankCompressor: {"score_key": "relevance_score", "retrieval_score_key": "retrieval_score"},
    RerankPostprocessor: {
        "metadata_mode": MetadataMode.EMBED,
        "keep_retrieval_score": False,
        "without_text": "drop",
    },
}
CHANGED_OWN: dict[type[Any], dict[str, Any]] = {
    RerankCompressor: {"score_key": "score", "retrieval_score_key": "bm25"},
    RerankPostprocessor: {
        "metadata_mode": MetadataMode.LLM,
        "keep_retrieval_score": True,
        "without_text": "keep",
    },
}


def one_text(document: Any) -> str:
    """Return the same text for every document; it lives in a module, so that it can be pickled."""
    return "text"


def options(settings: Any) -> dict[str, Any]:
    """Return the options by name, lists and tuples alike."""
    values = {name: getattr(settings, name) for name in [*SHARED, *OWN[type(settings)]]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def test_fields_and_defaults(kind: type[Any]) -> None:
    """Exactly the options that are documented, and what LlamaIndex brings itself."""
    fields = dict(kind.model_fields)
    fields.pop("callback_manager", None)
    assert {name: field.get_default(call_default_factory=True) for name, field in fields.items()} == {
        **SHARED,
        **OWN[kind],
    }


def test_the_default_model_needs_no_key_and_tells_relevance_apart(door: Door) -> None:
    """With nothing configured, the embedded model puts the relevant text first."""
    ranked = door.rank(door.kind(), query="How do I find a memory leak?")
    assert len(ranked) == 4
    assert ranked[0][0] == "finding a memory leak"
    assert ranked[-1][0] == "Paris in spring"
    assert all(type(score) is float and 0.0 <= score <= 1.0 for _, score in ranked)


@pytest.mark.parametrize("unknown", ["top_k", "device", "apikey", "batch_size"])
def test_unknown_options_are_refused(kind: type[Any], unknown: str) -> None:
    """Instead of ignored, at construction and afterwards."""
    with pytest.raises(ValidationError, match=unknown):
        kind(**{unknown: 3})
    with pytest.raises(ValueError, match=unknown):
        setattr(kind(), unknown, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_n": 0}, "top_n is 0: give a whole number of at least 1"),
        ({"top_n": -1}, "top_n is -1"),
        ({"top_n": 2.5}, "top_n"),
        ({"score_threshold": 1.5}, "score_threshold is 1.5: give a number from 0.0 to 1.0"),
        ({"score_threshold": float("nan")}, "score_threshold is nan"),
        ({"adaptive_ratio": -0.1}, "adaptive_ratio is -0.1"),
        ({"min_keep": -1}, "min_keep is -1"),
        ({"min_keep": None}, "min_keep"),
        ({"timeout": 0}, "timeout is 0.0: give seconds above 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"on_error": "ignore"}, "on_error"),
        ({"model": "nope:large"}, "no scorer is called 'nope': known are"),
        ({"model": ""}, "the scorer's name is ''"),
        ({"model": None}, "model"),
        ({"metadata_fields": "title"}, "metadata_fields"),
        ({"model_options": {"nope": 1}}, "takes no option 'nope'"),
        ({"model_options": {"max_length": 0}}, "max_length is 0"),
        ({"base_url": "https://rerank.example"}, "takes no option 'base_url'"),
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"order": "best"}, "order"),
        ({"text_fn": "title"}, "text_fn"),
        ({"reranker": "embedded"}, "reranker"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_at_once(kind: type[Any], wrong: dict[str, Any], message: str) -> None:
    """As a ValidationError, which is a ValueError, that names the option."""
    with pytest.raises(ValidationError, match=message):
        kind(**wrong)


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        ("device", r"there is no option 'device': give it to the scorer, as model_options=\{'device': …\}"),
        ("model_kwargs", "give device, dtype and attention of torch as model_options"),
        ("cache_folder", "set the environment variable HF_HOME"),
        ("backend", "for ONNX Runtime and OpenVINO"),
        ("cohere_api_key", "give api_key"),
        ("top_k", "give top_n"),
        ("similarity_cutoff", "give score_threshold"),
    ],
)
def test_options_of_replaced_rerankers_are_translated(kind: type[Any], foreign: str, message: str) -> None:
    """The error names what to give instead."""
    with pytest.raises(ValidationError, match=message):
        kind(**{foreign: "x"})


def test_options_are_described(kind: type[Any]) -> None:
    """Each that can be written in a file has a description in the schema."""
    properties = kind.model_json_schema()["properties"]
    own = set(properties) & set(kind.model_fields) - set(BaseNodePostprocessor.model_fields)
    assert own > {"model", "top_n", "retrieval_weight"}
    assert all(properties[name].get("description") for name in own)


def test_a_missing_package_shows_at_once(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error that names the extra is not wrapped by pydantic."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"rerank-bridge\[embedded\]"):
        kind()


@pytest.mark.parametrize(
    ("package", "extra"), [("langchain_rerankers", "langchain"), ("llamaindex_rerankers", "llamaindex")]
)
def test_a_missing_framework_names_its_extra(monkeypatch: pytest.MonkeyPatch, package: str, extra: str) -> None:
    """When the adapter is imported."""
    adapter = importlib.import_module(package)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"{package} needs the package .*rerank-bridge\[{extra}\]"):
        importlib.reload(adapter)


# What is changed later


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("top_n", 1, BEST_FIRST[:1]),
        ("top_n", None, BEST_FIRST),
        ("score_threshold", 0.5, BEST_FIRST[:3]),
        ("adaptive_ratio", 0.9, BEST_FIRST[:1]),
        ("text_fn", lambda document: "the same", TEXTS[:3]),
    ],
)
def test_a_changed_option_counts_from_the_next_call_on(
    door: Door, name: str, value: Any, expected: list[str]
) -> None:
    """Set on the object, or on a copy by ``model_copy``; the object copied stays as it was."""
    settings = door.kind(reranker=Reranker(FakeScorer()), top_n=3)
    before = door.texts(settings)
    assert before == BEST_FIRST[:3]
    assert door.texts(settings.model_copy(update={name: value})) == expected
    assert door.texts(settings) == before
    setattr(settings, name, value)
    assert door.texts(settings) == expected


def test_min_keep_and_the_thresholds_count_too(door: Door) -> None:
    """A floor under the cuts, bounded by top_n."""
    settings = door.kind(reranker=Reranker(FakeScorer()), score_threshold=1.0, top_n=2)
    assert door.texts(settings) == []
    settings.min_keep = 3
    assert door.texts(settings) == BEST_FIRST[:2]


def test_a_changed_model_makes_a_new_scorer(door: Door, provider: ModuleType) -> None:
    """And only then: the same scorer serves all calls until an option of the scorer changes."""
    settings = door.kind(model="keyed:small", top_n=2)
    assert door.texts(settings, ["aa", "aaaa", "a"]) == ["aaaa", "aa"]
    door.texts(settings, ["b"])
    settings.top_n = 1
    door.texts(settings, ["b"])
    assert [scorer.name for scorer in provider.made] == ["keyed:small"]
    settings.model = "keyed:large"
    settings.model_options["max_length"] = 64
    door.texts(settings, ["b"])
    assert [(scorer.name, scorer.max_length) for scorer in provider.made] == [
        ("keyed:small", 512),
        ("keyed:large", 64),
    ]
    assert settings.get_reranker().scorer is provider.made[-1]
    settings.model_options["max_length"] = 32
    door.texts(settings, ["b"])
    assert [scorer.max_length for scorer in provider.made] == [512, 64, 32]


def test_a_changed_deadline_and_error_policy_count(door: Door) -> None:
    """Both belong to the reranker that is made anew."""
    settings = door.kind()
    assert (settings.get_reranker().timeout, settings.get_reranker().on_error) == (None, "raise")
    settings.timeout = 1e-9
    with pytest.raises(ScorerError, match="timeout=1e-09"):
        door.rank(settings)
    settings.on_error = "passthrough"
    assert door.rank(settings) == [(text, None) for text in TEXTS]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("metadata_fields", "title", "metadata_fields"),
        ("on_error", "ignore", "on_error"),
        ("top_n", 0, "top_n is 0: give a whole number of at least 1"),
        ("min_keep", -1, "min_keep is -1"),
        ("score_threshold", 2.0, "score_threshold is 2.0"),
        ("adaptive_ratio", -0.5, "adaptive_ratio is -0.5"),
        ("timeout", 0, "timeout is 0"),
        ("model", "nope", "no scorer is called 'nope'"),
    ],
)
def test_an_option_that_is_set_wrong_later_is_refused(door: Door, option: str, value: Any, problem: str) -> None:
    """At the assignment, and what was there before stays."""
    settings = door.kind()
    before = getattr(settings, option)
    with pytest.raises(ValidationError, match=problem):
        setattr(settings, option, value)
    assert getattr(settings, option) == before


# A ready reranker


def test_a_ready_reranker_brings_its_own_selection(door: Door) -> None:
    """Which holds as long as no option of the adapter was given."""
    ready = Reranker(FakeScorer(), selection=Selection(top_n=2))
    assert door.texts(door.kind(reranker=ready)) == BEST_FIRST[:2]
    assert door.texts(door.kind(reranker=ready, top_n=3)) == BEST_FIRST[:3]
    assert door.texts(door.kind(reranker=ready, top_n=None)) == BEST_FIRST
    assert door.texts(door.kind(reranker=ready, top_n=5)) == BEST_FIRST
    cutting = Reranker(FakeScorer(), selection=Selection(score_threshold=0.9))
    assert door.texts(door.kind(reranker=cutting)) == BEST_FIRST[:1]
    assert door.texts(door.kind(reranker=cutting, min_keep=2)) == BEST_FIRST[:2]
    assert door.texts(door.kind(reranker=cutting, score_threshold=0.0, top_n=3)) == BEST_FIRST[:3]


def test_a_ready_reranker_is_shared(kind: type[Any]) -> None:
    """By the adapter, its copies of any kind, and the code that made it."""
    ready = Reranker(FakeScorer())
    settings = kind(reranker=ready)
    for one in (settings, settings.model_copy(), copy.copy(settings), copy.deepcopy(settings)):
        assert one.get_reranker() is ready


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "onnx:somewhere"),
        ("api_key", SecretStr(KEY)),
        ("base_url", "https://rerank.example"),
        ("timeout", 3.0),
        ("on_error", "passthrough"),
        ("model_options", {"max_length": 64}),
    ],
)
def test_a_ready_reranker_excludes_the_options_of_one(door: Door, name: str, value: Any) -> None:
    """They would have no effect, so they are refused: at construction, and by the call when set later."""
    ready = Reranker(FakeScorer())
    with pytest.raises(ValidationError, match=f"brings its own {name}"):
        door.kind(reranker=ready, **{name: value})
    settings = door.kind(reranker=ready)
    setattr(settings, name, value)
    with pytest.raises(ConfigurationError, match=f"brings its own {name}"):
        door.rank(settings)


# Providers and secrets


def test_the_scorers_options_reach_it(kind: type[Any], provider: ModuleType) -> None:
    """Key, address and model_options; an option that was not given is not sent."""
    kind(
        model="keyed:large",
        api_key=SecretStr(KEY),
        base_url="https://rerank.example",
        model_options={"max_length": 64},
    )
    kind(model="keyed")
    first, second = provider.made
    assert (first.name, first.base_url, first.max_length) == ("keyed:large", "https://rerank.example", 64)
    assert first.api_key.get_secret_value() == KEY
    assert (second.name, second.api_key, second.base_url, second.max_length) == ("keyed:", None, None, 512)


@pytest.mark.parametrize("name", ["api_key", "base_url"])
def test_model_options_hold_neither_key_nor_address(kind: type[Any], provider: ModuleType, name: str) -> None:
    """There is an option for each, and model_options are dumped and shown."""
    with pytest.raises(ValidationError, match=f"model_options holds '{name}': give {name}= instead") as caught:
        kind(model="keyed", model_options={name: KEY})
    assert KEY not in str(caught.value.errors())


SHOWN: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "format": lambda settings: f"{settings}",
    "repr_args": lambda settings: [repr(value) for _, value in settings.__repr_args__()],
    "model_dump": lambda settings: settings.model_dump(),
    "model_dump all": lambda settings: settings.model_dump(exclude_unset=True, by_alias=True, mode="json"),
    "model_dump_json": lambda settings: settings.model_dump_json(),
    "dict": dict,
    "vars": lambda settings: vars(settings),
    "pickle": lambda settings: pickle.dumps(settings).decode("latin-1"),
    "unpickled": lambda settings: vars(pickle.loads(pickle.dumps(settings))),
    "scorer": lambda settings: settings.get_reranker(),
    "to_dict": lambda settings: getattr(settings, "to_dict", dict)(),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
@pytest.mark.parametrize("assigned", [False, True], ids=["constructed", "assigned"])
def test_the_key_is_never_shown(
    kind: type[Any], provider: ModuleType, show: Callable[[Any], object], assigned: bool
) -> None:
    """Not in any representation or dump, given as a secret or as a plain string, now or later."""
    settings = kind(model="keyed") if assigned else kind(model="keyed", api_key=KEY)
    if assigned:
        settings.api_key = KEY
    assert KEY not in str(show(settings))
    assert settings.get_reranker().scorer.api_key.get_secret_value() == KEY


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": KEY, "model": "nope"},
        {"api_key": KEY, "top_n": 0},
        {"api_key": KEY, "top_n": "many"},
        {"api_key": KEY, "unknown": 1},
        {"apikey": KEY},
        {"api_key": [KEY]},
        {"api_key": KEY, "reranker": Reranker(FakeScorer())},
        {"model_options": {"api_key": KEY}},
    ],
    ids=lambda wrong: ",".join(wrong),
)
def test_errors_show_no_option(kind: type[Any], wrong: dict[str, Any]) -> None:
    """One of them may be a key, even under a misspelt name; nor do the machine-readable details."""
    with pytest.raises(ValidationError) as caught:
        kind(**wrong)
    error = caught.value
    assert error.title == kind.__name__
    for shown in (str(error), repr(error), str(error.errors()), error.json()):
        assert KEY not in shown
    with pytest.raises(ValidationError) as caught:
        kind().api_key = [KEY]
    assert KEY not in str(caught.value)
    assert all(detail["msg"] and detail["type"] for detail in error.errors())


def test_errors_about_json_show_no_option(kind: type[Any]) -> None:
    """Nor those about JSON that breaks off."""
    with pytest.raises(ValidationError, match="Invalid JSON") as caught:
        kind.model_validate_json(f'{{"api_key": "{KEY}", ')
    assert KEY not in str(caught.value)


def test_a_retriever_shows_no_key_of_its_compressor(provider: ModuleType) -> None:
    """Nor in the error about a compressor that was given as a dictionary."""
    compressor = RerankCompressor(model="keyed", api_key=SecretStr(KEY))
    retriever = RerankRetriever(retriever=RunnableLambda(lambda query: []), compressor=compressor)
    for shown in (repr(retriever), str(retriever.to_json()), pickle.dumps(compressor).decode("latin-1")):
        assert KEY not in shown
    found = RunnableLambda(lambda query: [])
    for wrong in ({"retriever": found, "compressor": {"api_key": KEY, "model": "nope"}}, {"compressor": KEY}):
        with pytest.raises(ValidationError) as caught:
            RerankRetriever(**wrong)
        assert KEY not in str(caught.value)


# Dumps, pickles and copies


def test_the_options_have_a_json_schema(kind: type[Any]) -> None:
    """With every option that can be dumped, and none that holds an object."""
    properties = kind.model_json_schema()["properties"]
    assert set(SHARED) - set(properties) == {"text_fn", "vector_fn", "reranker"}
    assert properties["top_n"]["default"] == 5
    assert properties["api_key"]["default"] is None


def test_what_is_dumped_to_json_can_be_rebuilt(kind: type[Any], provider: ModuleType) -> None:
    """Every option, of the right type, without the key."""
    settings = kind(**CHANGED_OPTIONS, **CHANGED_OWN[kind], api_key=SecretStr(KEY))
    dumped = settings.model_dump_json()
    assert KEY not in dumped
    assert options(kind.model_validate_json(dumped)) == {**options(settings), "api_key": None}


def test_pickling_keeps_every_option_but_the_key(kind: type[Any], provider: ModuleType) -> None:
    """The scorer too is made anew, with a key that is looked up again."""
    settings = kind(**CHANGED_OPTIONS, **CHANGED_OWN[kind], api_key=SecretStr(KEY), text_fn=one_text)
    expected = options(settings)
    restored = pickle.loads(pickle.dumps(settings))
    assert options(restored) == {**expected, "api_key": None}
    assert restored.text_fn is one_text
    assert options(settings) == expected
    scorer = restored.get_reranker().scorer
    assert (scorer.name, scorer.base_url, scorer.max_length) == ("keyed:large", "https://rerank.example/v1", 128)
    assert scorer.api_key is None
    assert (restored.get_reranker().timeout, restored.get_reranker().on_error) == (12.5, "passthrough")
    assert pickle.loads(pickle.dumps(restored)).model_options == {"max_length": 128}


def test_what_was_pickled_works(door: Door) -> None:
    """With a ready reranker and its own selection, and with a text_fn of a module."""
    ready = Reranker(FakeScorer(), selection=Selection(top_n=2))
    restored = pickle.loads(pickle.dumps(door.kind(reranker=ready)))
    assert restored.reranker is not ready
    assert door.texts(restored) == BEST_FIRST[:2]
    assert door.texts(pickle.loads(pickle.dumps(door.kind(reranker=ready, top_n=3)))) == BEST_FIRST[:3]
    assert door.texts(pickle.loads(pickle.dumps(door.kind(reranker=ready, text_fn=one_text)))) == TEXTS[:2]


@pytest.mark.parametrize("name", ["text_fn", "reranker"])
def test_what_cannot_be_pickled_is_refused_and_not_dropped(door: Door, name: str) -> None:
    """A function without a module is named in the error, and the object that was to be pickled stays whole."""
    value: Any = (lambda document: "the same") if name == "text_fn" else Reranker(FakeScorer(lambda *_: 0.5))
    settings = door.kind(**{"reranker": Reranker(FakeScorer()), name: value})
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(settings)
    assert getattr(settings, name) is value
    assert door.texts(settings) == TEXTS


def test_a_pickle_of_an_older_version_gets_the_defaults_of_newer_options(door: Door) -> None:
    """An option that the pickle knows nothing of has its default."""
    settings = door.kind(reranker=Reranker(FakeScorer()), top_n=1)
    state = settings.__getstate__()
    for name in ("metadata_fields", "min_keep", "text_fn"):
        del state["__dict__"][name]
    restored = door.kind.__new__(door.kind)
    restored.__setstate__(state)
    assert (restored.metadata_fields, restored.min_keep, restored.text_fn) == ((), 0, None)
    assert door.texts(restored) == BEST_FIRST[:1]


def test_a_dump_rebuilds_the_same(kind: type[Any], provider: ModuleType) -> None:
    """As Python objects and as JSON; key and functions are left out."""
    settings = kind(**CHANGED_OPTIONS, **CHANGED_OWN[kind], api_key=SecretStr(KEY))
    expected = {**options(settings), "api_key": None}
    assert options(kind.model_validate(settings.model_dump())) == expected
    assert options(kind.model_validate(json.loads(settings.model_dump_json()))) == expected
    assert options(kind.model_validate_json(settings.model_dump_json())) == expected


def test_a_dump_leaves_functions_and_rerankers_out(kind: type[Any]) -> None:
    """Instead of failing on them."""
    settings = kind(reranker=Reranker(FakeScorer()), text_fn=lambda document: "text", top_n=2)
    dumped = json.loads(settings.model_dump_json())
    assert dumped["top_n"] == 2
    assert not {"reranker", "text_fn", "api_key", "callback_manager"} & set(dumped)
    rebuilt = kind.model_validate({**dumped, "reranker": settings.reranker, "text_fn": settings.text_fn})
    assert (rebuilt.get_reranker(), rebuilt.top_n) == (settings.get_reranker(), 2)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda settings: settings.model_copy(),
    "model_copy deep": lambda settings: settings.model_copy(deep=True),
    "deepcopy in a list": lambda settings: copy.deepcopy([settings])[0],
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_keeps_the_key_and_the_scorer(
    kind: type[Any], provider: ModuleType, make: Callable[[Any], Any]
) -> None:
    """No new connections, though the scorer holds a lock; the copy's options are its own."""
    settings = kind(
        **CHANGED_OPTIONS, **CHANGED_OWN[kind], api_key=SecretStr(KEY), text_fn=lambda document: "text"
    )
    copied = make(settings)
    assert options(copied) == options(settings)
    assert copied.get_reranker() is settings.get_reranker()
    assert copied.get_reranker().scorer.api_key.get_secret_value() == KEY
    copied.top_n = 7
    copied.timeout = 1.0
    assert (settings.top_n, settings.timeout) == (None, 12.5)
    assert copied.get_reranker() is not settings.get_reranker()
    assert len(provider.made) == 2


def test_a_deep_copy_shares_no_option(kind: type[Any], provider: ModuleType) -> None:
    """Changing the copy's options changes nothing in the original, and the other way round."""
    settings = kind(model="keyed", model_options={"max_length": 64}, metadata_fields=["title"])
    copied = copy.deepcopy(settings)
    copied.model_options["max_length"] = 32
    copied.metadata_fields.append("year")
    assert (settings.model_options, settings.metadata_fields) == ({"max_length": 64}, ["title"])
    assert (settings.get_reranker().scorer.max_length, copied.get_reranker().scorer.max_length) == (64, 32)


def test_subclasses_may_add_options(door: Door) -> None:
    """Which are pickled, dumped and copied like the others."""
    settings = Sub[door.kind](reranker=Reranker(FakeScorer()), note="mine", top_n=1)
    settings._count = 3
    for copied in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings)):
        assert type(copied) is type(settings)
        assert (copied.note, copied._count, copied.top_n) == ("mine", 3, 1)
        assert door.texts(copied) == BEST_FIRST[:1]
    assert settings.model_dump()["note"] == "mine"


class SubCompressor(RerankCompressor):
    """With an option and a counter of its own."""

    note: str = ""
    _count: int = 0


class SubPostprocessor(RerankPostprocessor):
    """With an option and a counter of its own."""

    note: str = ""
    _count: int = 0


Sub: dict[type[Any], Any] = {RerankCompressor: SubCompressor, RerankPostprocessor: SubPostprocessor}


# What the model reads


def test_metadata_fields_put_lines_before_the_text(door: Door) -> None:
    """In the order given; what a document lacks, or has as None, is left out."""
    scorer = FakeScorer()
    settings = door.kind(reranker=Reranker(scorer), metadata_fields=["title", "year"])
    metadata = [{"year": 1998, "title": "Heap", "lang": "en"}, {"title": None, "year": 0}, {}]
    door.rank(settings, ["first", "second", "third"], metadata=metadata)
    assert scorer.seen == ["title: Heap\nyear: 1998\nfirst", "year: 0\nsecond", "third"]


def test_metadata_can_decide_the_order(door: Door) -> None:
    """Texts that are all alike are told apart by a title."""
    settings = door.kind(reranker=Reranker(FakeScorer()), metadata_fields=["title"], top_n=1)
    texts = ["see above", "see above ", "see above  "]
    metadata = [{"title": "Paris"}, {"title": "memory leak"}, {"title": "Rome"}]
    assert door.rank(settings, texts, metadata=metadata)[0][0] == "see above "


def test_text_fn_decides_alone_what_is_read(door: Door) -> None:
    """It gets the caller's object; metadata_fields have no say then."""
    scorer = FakeScorer()
    settings = door.kind(
        reranker=Reranker(scorer),
        metadata_fields=["title"],
        text_fn=lambda document: document.metadata["body"].upper(),
    )
    ranked = door.rank(settings, ["a", "b"], metadata=[{"body": "paris"}, {"body": "memory leak"}])
    assert scorer.seen == ["PARIS", "MEMORY LEAK"]
    assert [text for text, _ in ranked] == ["b", "a"]


def test_a_text_fn_that_returns_no_text_is_an_error(door: Door) -> None:
    """Which says what it returned, and for which document."""
    settings = door.kind(reranker=Reranker(FakeScorer()), text_fn=lambda document: document.metadata.get("body"))
    with pytest.raises(ConfigurationError, match=r"text_fn returned a NoneType for documents\[1\]"):
        door.rank(settings, ["a", "b"], metadata=[{"body": "a"}, {}])


def test_an_exception_of_text_fn_reaches_the_caller(door: Door) -> None:
    """It is the caller's own bug, in passthrough too."""
    reranker = Reranker(FakeScorer(), on_error="passthrough")
    settings = door.kind(reranker=reranker, text_fn=lambda document: document.metadata["body"])
    with pytest.raises(KeyError, match="body"):
        door.rank(settings)


def test_prepend_metadata_leaves_the_text_alone_without_fields() -> None:
    """And takes any mapping and sequence of names."""
    assert prepend_metadata("text", {"title": "T"}, ()) == "text"
    assert prepend_metadata("text", {"title": "T", "n": 0}, ("n", "title")) == "n: 0\ntitle: T\ntext"


# Calls


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_an_error_only_with_documents(door: Door, query: str) -> None:
    """Nothing to rank is nothing to complain about."""
    settings = door.kind(reranker=Reranker(FakeScorer()))
    assert door.rank(settings, [], query) == []
    with pytest.raises(ConfigurationError, match="the query is empty"):
        door.rank(settings, TEXTS, query)


def test_an_empty_list_calls_no_scorer(door: Door) -> None:
    """The result is an empty list."""
    scorer = FakeScorer()
    assert door.rank(door.kind(reranker=Reranker(scorer)), []) == []
    assert scorer.calls == 0


def test_more_may_be_asked_for_than_there_is(door: Door) -> None:
    """top_n is a most, not an exact number."""
    assert door.texts(door.kind(reranker=Reranker(FakeScorer()), top_n=1000)) == BEST_FIRST


def test_no_top_n_returns_all(door: Door) -> None:
    """Also beyond the default of five."""
    texts = [f"text {number}" for number in range(12)]
    settings = door.kind(reranker=Reranker(FakeScorer()), top_n=None)
    assert sorted(door.texts(settings, texts)) == sorted(texts)
    assert len(door.texts(door.kind(reranker=Reranker(FakeScorer())), texts)) == 12
    assert len(door.texts(door.kind(reranker=Reranker(FakeScorer()), top_n=5), texts)) == 5


def test_the_threshold_sees_every_candidate_before_top_n(door: Door) -> None:
    """Good candidates at the end of the first stage's order survive, and the cut may leave fewer than top_n."""
    scorer = FakeScorer(lambda _, text: float(text))
    texts = ["0.1", "0.2", "0.3", "0.8", "0.9"]
    assert door.texts(door.kind(reranker=Reranker(scorer), score_threshold=0.75, top_n=3), texts) == ["0.9", "0.8"]
    assert door.texts(door.kind(reranker=Reranker(scorer), score_threshold=0.25, top_n=2), texts) == ["0.9", "0.8"]
    assert door.texts(door.kind(reranker=Reranker(scorer), adaptive_ratio=0.3, top_n=None), texts) == [
        "0.9",
        "0.8",
        "0.3",
    ]


def test_equal_scores_keep_the_first_stages_order(door: Door) -> None:
    """The sort is stable."""
    settings = door.kind(reranker=Reranker(FakeScorer(lambda *_: 0.5)), top_n=3)
    assert door.texts(settings, list("dbac")) == list("dba")


@pytest.mark.parametrize("wrong", [[0.5, float("nan")], [0.5, float("inf")], [0.5, 1.5], [0.5], [0.1, 0.2, 0.3]])
def test_wrong_scores_are_an_error(door: Door, wrong: list[float]) -> None:
    """NaN, infinite, out of range, too few, too many: no order is made of them."""
    with pytest.raises(ScorerError, match="answers"):
        door.rank(door.kind(reranker=Reranker(Answers(wrong))), ["a", "b"])


def test_a_failure_is_raised_and_not_returned_as_nothing(door: Door) -> None:
    """Whatever the scorer raised is the cause."""
    failure = RuntimeError("the socket is on fire")
    settings = door.kind(reranker=Reranker(FakeScorer(error=failure)))
    with pytest.raises(ScorerError, match="fake: failed with RuntimeError") as caught:
        door.rank(settings)
    assert caught.value.__cause__ is failure


def test_passthrough_returns_the_first_stages_order_unscored(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Cut to top_n, whatever the thresholds, with one warning."""
    reranker = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough")
    settings = door.kind(reranker=reranker, top_n=3, score_threshold=0.9)
    assert door.rank(settings) == [(text, None) for text in TEXTS[:3]]
    assert [record.levelname for record in caplog.records if record.name == "rerank_core"] == ["WARNING"]


def test_threads_share_one_adapter(door: Door, provider: ModuleType) -> None:
    """Calls from many threads at once, on an adapter whose scorer is not made yet, rank as one call does."""
    settings = pickle.loads(pickle.dumps(door.kind(model="keyed", top_n=2)))
    expected = door.rank(settings.model_copy())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: door.rank(settings), range(32))) == [expected] * 32
    assert settings.get_reranker() is settings.get_reranker()
