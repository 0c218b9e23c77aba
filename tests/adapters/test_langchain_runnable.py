"""The compressor as a runnable, and what can be configured for one call."""

from __future__ import annotations

import asyncio
import copy
import pickle
from types import ModuleType
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from pydantic import SecretStr
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.keyed_provider import KEY
from support.langchain_parts import FirstStage, vector_store
from support.scorers import Calls

from langchain_rerankers import RerankCompressor, RerankRetriever
from rerank_core import ConfigurationError, Passage, Reranker, Scored, Scorer, ScorerError
from rerank_core.testing import FakeScorer


def runnable(**options: Any) -> Any:
    """Return the runnable of a compressor around a scorer without a model."""
    return RerankCompressor(reranker=Reranker(FakeScorer()), **options).as_runnable()


def given(query: str = QUERY) -> dict[str, Any]:
    """Return an input."""
    return {"query": query, "documents": [Document(text, id=text) for text in TEXTS]}


def contents(documents: list[Document]) -> list[str]:
    """Return the texts of documents."""
    return [document.page_content for document in documents]


async def test_every_way_to_call_it_gives_the_same() -> None:
    """``invoke``, ``ainvoke``, ``batch``, ``abatch``, ``stream`` and ``astream``."""
    rerank = runnable(top_n=2)
    expected = rerank.invoke(given())
    assert contents(expected) == BEST_FIRST[:2]
    assert await rerank.ainvoke(given()) == expected
    assert rerank.batch([given(), given("roof")]) == [expected, rerank.invoke(given("roof"))]
    assert await rerank.abatch([given(), given("roof")]) == [expected, rerank.invoke(given("roof"))]
    assert list(rerank.stream(given())) == [expected]
    assert [chunk async for chunk in rerank.astream(given())] == [expected]


def test_it_pipes() -> None:
    """After a first stage, and before whatever follows."""
    found = vector_store(TEXTS).as_retriever(search_kwargs={"k": 4})
    chain = {"query": RunnablePassthrough(), "documents": found} | runnable(top_n=1) | RunnableLambda(contents)
    assert chain.invoke(QUERY) == BEST_FIRST[:1]
    assert asyncio.run(chain.ainvoke(QUERY)) == BEST_FIRST[:1]


def test_its_schemas_and_its_name() -> None:
    """For graphs, tools and generated interfaces."""
    rerank = runnable()
    assert rerank.get_name() == "RerankCompressor"
    assert rerank.with_config(run_name="second").get_name() == "RerankCompressor"
    schema = rerank.get_input_jsonschema()
    assert set(schema["$defs"]["RerankInput"]["required"]) == {"query", "documents"}
    assert rerank.get_output_jsonschema()["type"] == "array"


def test_it_retries() -> None:
    """By LangChain's own means, on the errors that are named."""
    failures = [ScorerError("down"), ScorerError("down")]

    async def answer(query: str, texts: Any) -> float:
        if failures:
            raise failures.pop()
        return 0.5

    flaky = RerankCompressor(reranker=Reranker(Calls(answer))).as_runnable()
    retrying = flaky.with_retry(
        retry_if_exception_type=(ScorerError,), wait_exponential_jitter=False, stop_after_attempt=3
    )
    assert contents(retrying.invoke(given())) == TEXTS
    assert failures == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("text", "found no 'query' in its input, a str: give it"),
        (None, "found no 'query' in its input, a NoneType: give it"),
        (
            {"query": QUERY, "docs": []},
            "found no 'documents' in its input, a dict of query, docs: give it, or say",
        ),
        ({"query": None, "documents": []}, "found no 'query'"),
        ({"query": 3, "documents": []}, "'query' is a int: give a string"),
        ({"query": QUERY, "documents": "text"}, "'documents' is a str: give a list"),
        ({"query": QUERY, "documents": 3}, "'documents' is a int: give a list"),
        ({"query": QUERY, "documents": [Document("a"), "b"]}, r"documents\[1\] is a str: give a Document"),
    ],
)
def test_a_wrong_input_is_named(wrong: Any, message: str) -> None:
    """What is missing or wrong, and where."""
    with pytest.raises(ConfigurationError, match=message):
        runnable().invoke(wrong)


def test_keyword_arguments_are_refused() -> None:
    """Options for one call are configured."""
    with pytest.raises(TypeError, match=r"takes no top_n: use configurable\(\)"):
        runnable().invoke(given(), top_n=3)


def test_schemas_follow_the_keys() -> None:
    """For tools and generated interfaces."""
    rerank = RerankCompressor().as_runnable(query_key="question", documents_key="found", output_key="best")
    schema = rerank.get_input_jsonschema()
    assert {"question", "found"} in [
        set(part.get("properties", {})) for part in (schema, *schema["$defs"].values())
    ]
    assert rerank.get_output_jsonschema()["type"] == "object"


def test_it_can_be_copied_and_pickled() -> None:
    """With its compressor."""
    rerank = runnable(top_n=2)
    for one in (copy.deepcopy(rerank), pickle.loads(pickle.dumps(rerank))):
        assert contents(one.invoke(given())) == BEST_FIRST[:2]


# What is configured for one call


def two_stages(compressor: RerankCompressor, **options: Any) -> RerankRetriever:
    """Return a retriever over texts in their order."""
    return RerankRetriever(
        retriever=FirstStage(documents=[Document(text) for text in TEXTS]), compressor=compressor, **options
    )


def ask(retriever: Any, configurable: dict[str, Any], *, is_async: bool) -> list[str]:
    """Return the texts found under a configuration."""
    configured = retriever.with_config(configurable=configurable)
    return contents(asyncio.run(configured.ainvoke(QUERY)) if is_async else configured.invoke(QUERY))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_options_and_model_are_configurable(provider: ModuleType, is_async: bool) -> None:
    """For one call, the retriever stays as it was, and each model is made once."""
    retriever = two_stages(RerankCompressor(model="keyed:small", top_n=3)).configurable()
    assert len(ask(retriever, {}, is_async=is_async)) == 3
    assert len(ask(retriever, {"rerank_top_n": 2}, is_async=is_async)) == 2
    assert len(ask(retriever, {"rerank_score_threshold": 0.94}, is_async=is_async)) == 2
    assert len(ask(retriever, {"rerank_adaptive_ratio": 1.0}, is_async=is_async)) == 1
    assert len(ask(retriever, {"rerank_adaptive_ratio": 1.0, "rerank_min_keep": 2}, is_async=is_async)) == 2
    for _ in range(3):
        assert len(ask(retriever, {"rerank_model": "keyed:large"}, is_async=is_async)) == 3
    assert [scorer.name for scorer in provider.made] == ["keyed:small", "keyed:large"]
    assert len(ask(retriever, {}, is_async=is_async)) == 3
    names = ("top_n", "score_threshold", "adaptive_ratio", "min_keep", "model")
    assert {spec.id for spec in retriever.config_specs} == {f"rerank_{name}" for name in names}


def test_the_keys_may_be_ones_own() -> None:
    """By the prefix, or by LangChain's ``configurable_fields`` itself."""
    retriever = two_stages(RerankCompressor(reranker=Reranker(FakeScorer())))
    assert len(ask(retriever.configurable(prefix=""), {"top_n": 1}, is_async=False)) == 1
    own = retriever.configurable_fields(top_n=ConfigurableField(id="best"))
    assert len(ask(own, {"best": 2}, is_async=False)) == 2


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_first_stage_is_configurable_inside(is_async: bool) -> None:
    """What the caller configures reaches it, as LangChain's vector stores are configured; its name does not."""
    first = (
        vector_store(TEXTS)
        .as_retriever(search_kwargs={"k": 4})
        .configurable_fields(search_kwargs=ConfigurableField(id="search_kwargs"))
    )
    retriever = RerankRetriever(retriever=first, compressor=RerankCompressor(reranker=Reranker(FakeScorer())))
    assert "search_kwargs" in {spec.id for spec in retriever.config_specs}
    assert len(ask(retriever, {}, is_async=is_async)) == 4
    assert len(ask(retriever, {"search_kwargs": {"k": 2}}, is_async=is_async)) == 2
    both = retriever.configurable()
    assert len(ask(both, {"search_kwargs": {"k": 2}, "rerank_top_n": 1}, is_async=is_async)) == 1


def test_another_providers_model_gets_no_key(provider: ModuleType) -> None:
    """A model of the same provider does."""
    compressor = RerankCompressor(
        model="keyed:small", api_key=SecretStr(KEY), base_url="https://a.example", top_n=2
    )
    same = compressor.with_model("keyed:large")
    assert same.get_reranker().scorer.api_key.get_secret_value() == KEY
    assert (same.top_n, same.base_url) == (2, "https://a.example")
    other = compressor.with_model("embedded")
    assert (other.api_key, other.base_url, other.model_options) == (None, None, {})
    assert (compressor.model, compressor.base_url) == ("keyed:small", "https://a.example")


def test_models_are_made_once_and_anew_where_an_option_changed(provider: ModuleType) -> None:
    """Few are kept: the ones asked last; copies and pickles of the compressor work on."""
    compressor = RerankCompressor(model="keyed:0")
    first = compressor.with_model("keyed:1")
    assert compressor.with_model("keyed:1").get_reranker() is first.get_reranker()
    compressor.timeout = 3.0
    assert compressor.with_model("keyed:1").get_reranker() is not first.get_reranker()
    for number in range(2, 12):
        compressor.with_model(f"keyed:{number}")
    provider.made.clear()
    compressor.with_model("keyed:11")
    assert provider.made == []
    compressor.with_model("keyed:1")
    assert [scorer.name for scorer in provider.made] == ["keyed:1"]
    assert copy.deepcopy(compressor).with_model("keyed:1").model == "keyed:1"
    assert pickle.loads(pickle.dumps(compressor)).with_model("keyed:1").timeout == 3.0


def test_a_ready_reranker_has_the_model_it_has() -> None:
    """Another model is refused."""
    with pytest.raises(ConfigurationError, match="brings its own model"):
        two_stages(RerankCompressor(reranker=Reranker(FakeScorer())), model="embedded:").invoke(QUERY)


# Passages


class Passages(Scorer):
    """Finds the word leak in a text, and nothing in others."""

    name = "passages"

    async def score(self, query: str, texts: Any) -> Scored:
        """Return a score and a passage for each text."""
        spans = [Passage(text.index("leak"), text.index("leak") + 4) if "leak" in text else None for text in texts]
        return Scored([0.1 if span is None else 0.9 for span in spans], passages=spans)


def test_the_passage_may_stand_for_the_text() -> None:
    """Where the model names one; its span is in the metadata, and id and metadata stay."""
    documents = [Document("Paris"), Document("a leak in the roof", id="1", metadata={"page": 3})]
    reranker = Reranker(Passages())
    best, rest = RerankCompressor(reranker=reranker, return_passage=True).compress_documents(documents, QUERY)
    assert (best.page_content, best.id) == ("leak", "1")
    assert best.metadata == {"page": 3, "passage": [2, 6], "relevance_score": 0.9}
    assert (rest.page_content, rest.metadata) == ("Paris", {"relevance_score": 0.1})
    whole = RerankCompressor(reranker=reranker).compress_documents(documents, QUERY)
    assert contents(whole) == ["a leak in the roof", "Paris"]
    assert "passage" not in whole[0].metadata
