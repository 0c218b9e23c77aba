"""A first stage's opinion counts, through both adapters: where its scores come from, and where they stay."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError
from support.doors import BEST_FIRST, QUERY, TEXTS, Door

from langchain_rerankers import HybridRetriever, RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import Reranker, ScorerUnavailableError
from rerank_core.testing import FakeScorer

BM25 = [9.0, 1.0, 2.0, 12.5]
MIXED = ["a leak in the roof", "Paris in spring", "memory", "finding a memory leak"]
"""The texts as BM25 would have them: with a weight of 0.9."""


def weighted(kind: type[Any], weight: float = 0.9, **options: Any) -> Any:
    """Return an adapter around a reranker that lets the first stage count."""
    return kind(reranker=Reranker(FakeScorer(), retrieval_weight=weight), **options)


def list_relevance() -> list[float | None]:
    """Return the relevance of the texts in their mixed order."""
    scores = {one.document: one.score for one in Reranker(FakeScorer()).rerank(QUERY, TEXTS)}
    return [scores[text] for text in MIXED]


def nodes(scores: list[float | None]) -> list[NodeWithScore]:
    """Return the texts as nodes with these scores."""
    return [
        NodeWithScore(node=TextNode(text=text), score=score) for text, score in zip(TEXTS, scores, strict=True)
    ]


def documents(scores: list[Any], key: str = "retrieval_score") -> list[Document]:
    """Return the texts as documents with these scores in their metadata, None for none."""
    return [
        Document(text, metadata={} if score is None else {key: score})
        for text, score in zip(TEXTS, scores, strict=True)
    ]


def test_without_scores_the_first_stages_order_counts(door: Door) -> None:
    """A weight of 1 gives that order back; a small one leaves the reranker's."""
    assert door.texts(weighted(door.kind, 1.0)) == TEXTS
    assert door.texts(weighted(door.kind, 0.01)) == BEST_FIRST


def test_the_option_makes_the_reranker(kind: type[Any]) -> None:
    """It reaches the reranker that the other options describe, also when it is changed later."""
    settings = kind(retrieval_weight=0.15)
    assert settings.get_reranker().retrieval_weight == 0.15
    settings.retrieval_weight = 0.25
    assert settings.get_reranker().retrieval_weight == 0.25
    assert kind.model_validate(settings.model_dump()).get_reranker().retrieval_weight == 0.25


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_an_unusable_weight_is_refused_at_once(kind: type[Any], weight: float) -> None:
    """When it is given, and when it is assigned."""
    with pytest.raises(ValidationError, match="retrieval_weight"):
        kind(retrieval_weight=weight)
    settings = kind()
    with pytest.raises(ValidationError, match="retrieval_weight"):
        settings.retrieval_weight = weight


def test_a_ready_reranker_brings_its_own_weight(kind: type[Any]) -> None:
    """Two weights would contradict each other."""
    with pytest.raises(ValidationError, match="brings its own retrieval_weight"):
        kind(reranker=Reranker(FakeScorer()), retrieval_weight=0.5)


def test_llamaindex_reads_the_scores_of_the_nodes() -> None:
    """The relevance becomes the node's score; the first stage's stays in the metadata, which no model reads."""
    given = nodes(BM25)
    ranked = weighted(RerankPostprocessor).postprocess_nodes(given, query_str=QUERY)
    assert [node.text for node in ranked] == MIXED
    assert [node.metadata["retrieval_score"] for node in ranked] == [12.5, 9.0, 2.0, 1.0]
    assert [node.score for node in ranked] == list_relevance()
    assert all("retrieval_score" not in node.metadata for node in given)
    assert all("retrieval_score" in node.node.excluded_llm_metadata_keys for node in ranked)


def test_langchain_reads_the_scores_from_the_metadata() -> None:
    """Both scores are in the metadata of the result."""
    ranked = weighted(RerankCompressor).compress_documents(documents(BM25), QUERY)
    assert [document.page_content for document in ranked] == MIXED
    assert [document.metadata["retrieval_score"] for document in ranked] == [12.5, 9.0, 2.0, 1.0]
    assert [document.metadata["relevance_score"] for document in ranked] == list_relevance()


@pytest.mark.parametrize("score_key", ["relevance_score", "score"])
def test_langchain_reads_another_key(score_key: str) -> None:
    """Also where it is the key of the relevance, which takes its place: both are kept."""
    compressor = weighted(RerankCompressor, retrieval_score_key="score", score_key=score_key)
    ranked = compressor.compress_documents(documents(BM25, "score"), QUERY)
    assert [document.page_content for document in ranked] == MIXED
    assert [document.metadata["retrieval_score"] for document in ranked] == [12.5, 9.0, 2.0, 1.0]
    assert [document.metadata[score_key] for document in ranked] == list_relevance()


def test_missing_scores_count_as_the_lowest() -> None:
    """A document that only one of two first stages found is no error, in either framework."""
    scores: list[Any] = [9.0, None, 2.0, 12.5]
    by_hand = [9.0, 2.0, 2.0, 12.5]
    for kept, full in (
        (weighted(RerankCompressor).compress_documents(documents(each), QUERY) for each in (scores, by_hand)),
        (
            weighted(RerankPostprocessor).postprocess_nodes(nodes(each), query_str=QUERY)
            for each in (scores, by_hand)
        ),
    ):
        texts = [getattr(one, "page_content", None) or one.text for one in kept]
        assert texts == [getattr(one, "page_content", None) or one.text for one in full]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "high"])
def test_unusable_scores_are_named(score: Any) -> None:
    """Where they count; without a weight nobody looks at them."""
    given = documents([1.0, score, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"retrieval_scores\[1\] is "):
        weighted(RerankCompressor).compress_documents(given, QUERY)
    assert len(weighted(RerankCompressor, 0.0).compress_documents(given, QUERY)) == 4


def test_duplicates_count_with_the_first_ones_score() -> None:
    """The others' scores neither count nor stretch."""
    given = [*documents(BM25), Document(TEXTS[1], metadata={"retrieval_score": 1000.0})]
    ranked = weighted(RerankCompressor, collapse_duplicates=True).compress_documents(given, QUERY)
    assert [document.page_content for document in ranked] == MIXED


def test_diversity_chooses_by_the_mixture(door: Door) -> None:
    """With little diversity the mixed order stays, whatever the model's."""
    assert door.texts(weighted(door.kind, 1.0, diversity=0.01)) == TEXTS
    assert door.texts(weighted(door.kind, 1.0, diversity=0.01, top_n=2)) == TEXTS[:2]


def test_a_passthrough_keeps_both_order_and_scores() -> None:
    """What failed is the reranker; the first stage has spoken."""
    broken = Reranker(
        FakeScorer(error=ScorerUnavailableError("down")), retrieval_weight=0.5, on_error="passthrough"
    )
    ranked = RerankCompressor(reranker=broken).compress_documents(documents(BM25), QUERY)
    assert [document.page_content for document in ranked] == TEXTS
    assert [document.metadata["retrieval_score"] for document in ranked] == BM25
    kept = RerankPostprocessor(reranker=broken).postprocess_nodes(nodes(list(BM25)), query_str=QUERY)
    assert [(node.text, node.score) for node in kept] == list(zip(TEXTS, BM25, strict=True))


def test_plain_documents_bring_their_scores(kind: type[Any]) -> None:
    """Dictionaries with the key of each framework; strings have none, so their order counts."""
    key = "retrieval_score" if kind is RerankCompressor else "score"
    given = [{"text": text, key: score} for text, score in zip(TEXTS, BM25, strict=True)]
    assert [TEXTS[found["index"]] for found in weighted(kind).rerank(given, QUERY)] == MIXED
    assert [found["index"] for found in weighted(kind, 1.0).rerank(TEXTS, QUERY)] == [0, 1, 2, 3]


def test_a_hybrid_first_stage_counts_without_further_options() -> None:
    """Its fused score is where the compressor looks."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_texts(TEXTS)
    words = RunnableLambda(lambda _: [Document(TEXTS[3]), Document(TEXTS[0])])
    hybrid = HybridRetriever(retrievers=[words, store.as_retriever()], weights=[0.9, 0.1])
    retriever = RerankRetriever(retriever=hybrid, compressor=weighted(RerankCompressor, 1.0))
    found = retriever.invoke(QUERY)
    assert [document.page_content for document in found[:2]] == [TEXTS[3], TEXTS[0]]
    scores = [document.metadata["retrieval_score"] for document in found]
    assert scores == sorted(scores, reverse=True)
