"""Every provider through both adapters, end to end: a LangChain chain and a LlamaIndex query engine."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import ValidationError
from support.loopback import Loopback, score
from support.providers import KEY, MODELS, SIGNED, TOLERANCES

from langchain_rerankers import RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ScorerUnavailableError

QUERY = "find a memory leak"
TEXTS = ["Paris in spring", "how to find it", "find a memory leak", "a leak of memory", "nothing at all"]
BEST = sorted(TEXTS, key=lambda text: -score(QUERY, text))[:3]
PROVIDERS = list(MODELS)


class ListRetriever(BaseRetriever):
    """A first stage that returns everything, in no useful order."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


def options(provider: str, loopback: Loopback) -> dict[str, Any]:
    """Return the adapter's options for a provider on loopback."""
    return {
        "model": f"{provider}:{MODELS[provider]}",
        **({} if provider in SIGNED else {"api_key": KEY}),
        "base_url": loopback.url(provider),
        "model_options": {"max_retries": 1},
        "top_n": 3,
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_langchain_chain(loopback: Loopback, provider: str) -> None:
    """An LCEL chain, sync and async: best first, with the scores of the provider."""
    loopback.plan(record=False)
    first_stage = RunnableLambda(lambda query: [Document(text, id=text) for text in TEXTS])
    retriever = RerankRetriever(retriever=first_stage, compressor=RerankCompressor(**options(provider, loopback)))
    chain = {"documents": retriever, "question": RunnablePassthrough()} | RunnableLambda(
        lambda found: [(document.id, document.metadata["relevance_score"]) for document in found["documents"]]
    )
    expected = [(text, pytest.approx(score(QUERY, text), abs=TOLERANCES.get(provider))) for text in BEST]
    assert chain.invoke(QUERY) == expected
    assert asyncio.run(chain.ainvoke(QUERY)) == expected


@pytest.mark.parametrize("provider", PROVIDERS)
def test_llamaindex_query_engine(loopback: Loopback, provider: str) -> None:
    """A query engine, sync and async: the answer is made of the best, best first."""
    loopback.plan(record=False)
    engine = RetrieverQueryEngine.from_args(
        ListRetriever(),
        llm=MockLLM(),
        node_postprocessors=[RerankPostprocessor(**options(provider, loopback))],
    )
    expected = [(text, pytest.approx(score(QUERY, text), abs=TOLERANCES.get(provider))) for text in BEST]
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert [(node.text, node.score) for node in response.source_nodes] == expected


@pytest.mark.parametrize("adapter", [RerankCompressor, RerankPostprocessor])
def test_a_key_may_be_a_function(loopback: Loopback, adapter: type[Any]) -> None:
    """It is called for each request, and neither dumped nor in the schema."""
    loopback.plan()
    made = adapter(**{**options("jina", loopback), "api_key": lambda: "token"})
    made.get_reranker().rerank(QUERY, TEXTS)
    assert loopback.stats()["requests"][0]["headers"]["authorization"] == "Bearer token"
    assert "api_key" not in made.model_dump_json()
    assert "api_key" in str(adapter.model_json_schema())


@pytest.mark.parametrize("adapter", [RerankCompressor, RerankPostprocessor])
@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina", "tei"])
def test_an_adapter_dumps_and_pickles_no_key(
    loopback: Loopback, adapter: type[Any], provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever form it is turned into; a pickled copy finds the key in the environment."""
    for variable in ("CO_API_KEY", "VOYAGE_API_KEY", "JINA_API_KEY"):
        monkeypatch.setenv(variable, "from-the-environment")
    loopback.plan(record=False)
    made = adapter(**options(provider, loopback))
    shown = [
        repr(made),
        str(made),
        repr(made.get_reranker()),
        repr(made.get_reranker().scorer),
        made.model_dump_json(),
    ]
    shown += [repr(made.model_dump()), repr(made.to_dict()) if hasattr(made, "to_dict") else ""]
    assert KEY not in "".join(shown)
    pickled = pickle.dumps(made)
    assert KEY.encode() not in pickled
    copy = pickle.loads(pickled)
    assert len(copy.get_reranker().rerank(QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("adapter", [RerankCompressor, RerankPostprocessor])
def test_a_missing_key_shows_when_the_adapter_is_made(adapter: type[Any]) -> None:
    """Not when the first user asks the first question."""
    with pytest.raises(ValidationError, match="CO_API_KEY"):
        adapter(model="cohere:rerank-v3.5")


@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_a_service_that_is_down_raises_or_degrades(loopback: Loopback, provider: str) -> None:
    """As ``on_error`` says; never an empty list."""
    loopback.plan(always="503")
    documents = [Document(text) for text in TEXTS]
    down = {**options(provider, loopback), "model_options": {"max_retries": 0}}
    with pytest.raises(ScorerUnavailableError):
        RerankCompressor(**down).compress_documents(documents, QUERY)
    kept = RerankCompressor(**down, on_error="passthrough").compress_documents(documents, QUERY)
    assert [document.page_content for document in kept] == TEXTS[:3]
