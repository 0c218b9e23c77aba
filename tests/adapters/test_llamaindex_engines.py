"""Where LlamaIndex applications put a reranker: query engines, chat engines, retrievers of objects, evaluators."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex, get_response_synthesizer
from llama_index.core.embeddings import BaseEmbedding, MockEmbedding
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.objects import ObjectIndex
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from support.doors import BEST_FIRST, QUERY, TEXTS

from llamaindex_rerankers import RerankPostprocessor
from rerank_core import Reranker, ScorerError
from rerank_core.testing import FakeScorer


class HashEmbedding(BaseEmbedding):
    """Embeddings that depend on nothing but the text, and mean nothing."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:8]]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Return False and True in turn."""
    return request.param == "async"


def index() -> VectorStoreIndex:
    """Return an index of the usual texts, with metadata."""
    nodes = [TextNode(text=text, id_=f"id-{number}", metadata={"n": number}) for number, text in enumerate(TEXTS)]
    return VectorStoreIndex(nodes, embed_model=HashEmbedding())


def postprocessor(**options: Any) -> RerankPostprocessor:
    """Return a postprocessor around a scorer without a model, which reads no metadata."""
    return RerankPostprocessor(reranker=Reranker(FakeScorer()), metadata_mode=MetadataMode.NONE, **options)


def query(engine: Any, text: str = QUERY, *, is_async: bool) -> Any:
    """Ask a query engine one way or the other."""
    return asyncio.run(engine.aquery(text)) if is_async else engine.query(text)


def texts(nodes: list[NodeWithScore]) -> list[str]:
    """Return the texts of nodes."""
    return [node.text for node in nodes]


def test_an_index_as_query_engine_reranks(is_async: bool) -> None:
    """The sources are the reranked nodes, and the LLM reads them in that order."""
    engine = index().as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[postprocessor(top_n=2)]
    )
    response = query(engine, is_async=is_async)
    assert texts(response.source_nodes) == BEST_FIRST[:2]
    assert all(type(node.score) is float for node in response.source_nodes)
    prompt = str(response)
    assert prompt.index(BEST_FIRST[0]) < prompt.index(f"\n{BEST_FIRST[1]}\n")
    assert BEST_FIRST[3] not in prompt


def test_a_retriever_query_engine_reranks_with_the_embedded_model(is_async: bool) -> None:
    """Without anything fake but the LLM and the embeddings."""
    engine = RetrieverQueryEngine(
        retriever=index().as_retriever(similarity_top_k=4),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[RerankPostprocessor(top_n=1, metadata_fields=["n"])],
    )
    response = query(engine, "How do I find a memory leak?", is_async=is_async)
    assert texts(response.source_nodes) == ["finding a memory leak"]
    assert "finding a memory leak" in str(response)


def test_the_llm_never_reads_a_kept_retrieval_score(is_async: bool) -> None:
    """Though it is in the sources' metadata; the index keeps none of it."""
    searched = index()
    engine = searched.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[postprocessor(keep_retrieval_score=True)]
    )
    response = query(engine, is_async=is_async)
    assert all(0.0 < node.metadata["retrieval_score"] <= 1.0 for node in response.source_nodes)
    assert "retrieval_score" not in str(response)
    assert "n: 1" in str(response)
    assert all(set(node.metadata) == {"n"} for node in searched.docstore.docs.values())


def test_postprocessors_follow_one_another(is_async: bool) -> None:
    """A cutoff on the reranker's scores, then a second reranker."""
    engine = index().as_query_engine(
        llm=MockLLM(),
        similarity_top_k=4,
        node_postprocessors=[
            postprocessor(top_n=None),
            SimilarityPostprocessor(similarity_cutoff=0.5),
            postprocessor(top_n=2, score_threshold=0.9),
        ],
    )
    assert texts(query(engine, is_async=is_async).source_nodes) == BEST_FIRST[:1]


def test_one_postprocessor_serves_two_engines(is_async: bool) -> None:
    """Each engine puts its own callback manager into it."""
    shared = postprocessor(top_n=1)
    engines = [
        index().as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=[shared]) for _ in range(2)
    ]
    for engine in [*engines, *engines]:
        assert texts(query(engine, is_async=is_async).source_nodes) == BEST_FIRST[:1]


def test_a_threshold_may_leave_the_engine_nothing(is_async: bool) -> None:
    """Then the answer is empty, and no error."""
    engine = index().as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[postprocessor(score_threshold=1.0)]
    )
    response = query(engine, is_async=is_async)
    assert response.source_nodes == []
    assert str(response) == "Empty Response"


def test_failures_reach_the_caller_of_an_engine(is_async: bool) -> None:
    """Unless the postprocessor passes the first stage's order through."""
    failing = Reranker(FakeScorer(error=RuntimeError("down")))
    engine = index().as_query_engine(llm=MockLLM(), node_postprocessors=[RerankPostprocessor(reranker=failing)])
    with pytest.raises(ScorerError, match="RuntimeError"):
        query(engine, is_async=is_async)
    lenient = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough")
    searched = index()
    engine = searched.as_query_engine(
        llm=MockLLM(), similarity_top_k=3, node_postprocessors=[RerankPostprocessor(reranker=lenient, top_n=2)]
    )
    sources = query(engine, is_async=is_async).source_nodes
    found = searched.as_retriever(similarity_top_k=2).retrieve(QUERY)
    assert [(node.text, node.score) for node in sources] == [(node.text, node.score) for node in found]


async def test_queries_overlap_in_one_loop() -> None:
    """Many at once through one engine give what one at a time gives."""
    engine = index().as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[postprocessor(top_n=1)]
    )
    queries = ["spring", "finding", "roof"]
    answers = await asyncio.gather(*(engine.aquery(text) for text in queries * 5))
    best = ["Paris in spring", "finding a memory leak", "a leak in the roof"]
    assert [answer.source_nodes[0].text for answer in answers] == best * 5


def test_a_chat_engine_reranks(is_async: bool) -> None:
    """It passes the user's message as the query."""
    engine = index().as_chat_engine(
        chat_mode="context",
        llm=MockLLM(),
        memory=ChatMemoryBuffer.from_defaults(llm=MockLLM()),  # the default one leaves a database open
        similarity_top_k=4,
        node_postprocessors=[postprocessor(top_n=2)],
    )
    response = asyncio.run(engine.achat(QUERY)) if is_async else engine.chat(QUERY)
    assert texts(response.source_nodes) == BEST_FIRST[:2]


def test_an_object_retriever_reranks(is_async: bool) -> None:
    """Which calls the sync method from inside a running loop."""
    objects: ObjectIndex[str] = ObjectIndex.from_objects(TEXTS, embed_model=MockEmbedding(8))
    retriever = objects.as_retriever(similarity_top_k=4, node_postprocessors=[postprocessor(top_n=3)])
    found = asyncio.run(retriever.aretrieve(QUERY)) if is_async else retriever.retrieve(QUERY)
    assert found == BEST_FIRST[:3]


def test_a_retrieval_evaluator_judges_the_reranked_order() -> None:
    """It too calls the sync method from inside a running loop."""
    evaluator = RetrieverEvaluator.from_metric_names(
        ["mrr", "hit_rate"],
        retriever=index().as_retriever(similarity_top_k=4),
        node_postprocessors=[postprocessor(top_n=1)],
    )
    result = asyncio.run(evaluator.aevaluate(QUERY, expected_ids=["id-1"]))
    assert result.metric_vals_dict == {"mrr": 1.0, "hit_rate": 1.0}
    assert result.retrieved_ids == ["id-1"]
