"""What both adapters have besides the model and the cuts: diversity, order, duplicates, and ``rerank``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from support.doors import BEST_FIRST, QUERY, TEXTS, Door

from langchain_rerankers import RerankCompressor
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ConfigurationError, Reranker, Selection
from rerank_core.testing import FakeScorer

ROOFS = ["a leak in the roof", "a leak in the roof!", "leak detection for Python", "Paris"]


def roofs(query: str, text: str) -> float:
    """Return a relevance that repetition does not lower."""
    return 0.9 if "roof" in text else 0.8 if "leak" in text else 0.1


def test_diversity_takes_what_says_something_new(door: Door) -> None:
    """Among all that pass the thresholds, and then top_n; the best stays first."""
    settings = door.kind(reranker=Reranker(FakeScorer(roofs)), diversity=0.5, score_threshold=0.5, top_n=2)
    assert door.texts(settings, ROOFS) == ["a leak in the roof", "leak detection for Python"]
    settings.diversity = 0.0
    assert door.texts(settings, ROOFS) == ROOFS[:2]


def test_diversity_by_stored_vectors(door: Door) -> None:
    """Where the application has them; here two texts that share no word mean the same."""
    vectors = {ROOFS[0]: [1.0, 0.0], ROOFS[1]: [0.0, 1.0], ROOFS[2]: [1.0, 0.0], ROOFS[3]: [0.0, 1.0]}

    def vector(document: Any) -> list[float]:
        return vectors[document.page_content if isinstance(document, Document) else document.node.text]

    settings = door.kind(reranker=Reranker(FakeScorer(roofs)), diversity=0.5, vector_fn=vector, top_n=2)
    assert door.texts(settings, ROOFS) == ROOFS[:2]


def test_edges_put_the_best_first_and_last(door: Door) -> None:
    """And the weakest in the middle, of as many as survive."""
    settings = door.kind(reranker=Reranker(FakeScorer()), order="edges", top_n=None)
    first, second, third, fourth = BEST_FIRST
    assert door.texts(settings) == [first, third, fourth, second]
    settings.top_n = 3
    assert door.texts(settings) == [first, third, second]
    assert door.texts(settings, []) == []


def test_equal_texts_are_ranked_once(door: Door) -> None:
    """The first of them stays, and counts once in top_n."""
    settings = door.kind(reranker=Reranker(FakeScorer()), collapse_duplicates=True, top_n=3)
    assert door.texts(settings, [TEXTS[1], *TEXTS, TEXTS[1], TEXTS[2]]) == BEST_FIRST[:3]
    settings.collapse_duplicates = False
    assert door.texts(settings, [TEXTS[1], *TEXTS]) == [BEST_FIRST[0], BEST_FIRST[0], BEST_FIRST[1]]


def test_equal_ids_are_ranked_once() -> None:
    """Whatever their texts; documents without an id are told apart by their texts alone."""
    compressor = RerankCompressor(reranker=Reranker(FakeScorer()), collapse_duplicates=True)
    documents = [Document("memory", id="1"), Document("memory leak", id="1"), Document("Paris"), Document("Rome")]
    kept = compressor.compress_documents(documents, QUERY)
    assert sorted(document.page_content for document in kept) == ["Paris", "Rome", "memory"]
    postprocessor = RerankPostprocessor(reranker=Reranker(FakeScorer()), collapse_duplicates=True)
    nodes = [NodeWithScore(node=TextNode(text=text, id_="1")) for text in ("memory", "memory leak")]
    assert [node.text for node in postprocessor.postprocess_nodes(nodes, query_str=QUERY)] == ["memory"]


def call(settings: Any, documents: Any, *, is_async: bool, **options: Any) -> list[dict[str, Any]]:
    """Call ``rerank`` one way or the other."""
    if is_async:
        return asyncio.run(settings.arerank(documents, QUERY, **options))
    return settings.rerank(documents, QUERY, **options)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_rerank_takes_strings_dictionaries_and_documents(kind: type[Any], is_async: bool) -> None:
    """As the packages' own rerankers do: an index and a score for each survivor, best first."""
    settings = kind(reranker=Reranker(FakeScorer(), selection=Selection(top_n=3)))
    expected = [1, 2, 3]
    own = (
        [Document(text) for text in TEXTS]
        if kind is RerankCompressor
        else [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    )
    mixed = [TEXTS[0], {"text": TEXTS[1]}, {"page_content": TEXTS[2]}, {"content": TEXTS[3]}]
    for documents in (TEXTS, own, mixed, [TEXTS[0], own[1], mixed[2], own[3]]):
        ranked = call(settings, documents, is_async=is_async)
        assert [result["index"] for result in ranked] == expected
        assert all(type(result["relevance_score"]) is float for result in ranked)
    assert len(call(settings, TEXTS, is_async=is_async, top_n=1)) == 1
    assert call(settings, [], is_async=is_async) == []


def test_rerank_of_nodes_without_scores() -> None:
    """LlamaIndex's plain nodes are documents too."""
    settings = RerankPostprocessor(reranker=Reranker(FakeScorer()), top_n=1)
    assert settings.rerank([TextNode(text=text) for text in TEXTS], QUERY)[0]["index"] == 1


def test_rerank_says_what_it_cannot_read(kind: type[Any]) -> None:
    """A dictionary without a text, unless a function finds it."""
    settings = kind(reranker=Reranker(FakeScorer()))
    with pytest.raises(ConfigurationError, match="a dictionary has none of text, page_content, content"):
        settings.rerank([{"body": "memory leak"}], QUERY)
    settings.text_fn = lambda row: row["body"]
    assert settings.rerank([{"body": "Paris"}, {"body": "memory leak"}], QUERY)[0]["index"] == 1


def test_rerank_collapses_with_the_callers_indices(kind: type[Any]) -> None:
    """Which stay positions in what was given."""
    settings = kind(reranker=Reranker(FakeScorer()), collapse_duplicates=True, top_n=2)
    assert [found["index"] for found in settings.rerank(["Paris", "Paris", *TEXTS], QUERY)] == [3, 4]
