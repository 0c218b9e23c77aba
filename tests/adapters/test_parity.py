"""Parity: the same documents, query and options give the same through each adapter, each way, and the core."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core import SummaryIndex
from llama_index.core.schema import TextNode
from support.doors import DOORS, QUERY, TEXTS, Door

from langchain_rerankers import RerankCompressor
from langchain_rerankers import RerankRetriever as LangChainRetriever
from llamaindex_rerankers import RerankPostprocessor
from llamaindex_rerankers import RerankRetriever as LlamaIndexRetriever
from rerank_core import Ranking, Reranker, Selection, atwo_stage_search, two_stage_search
from rerank_core.testing import FakeScorer

FRACTIONS = st.none() | st.floats(0.0, 1.0)
SELECTIONS = st.fixed_dictionaries(
    {
        "score_threshold": FRACTIONS,
        "adaptive_ratio": FRACTIONS,
        "min_keep": st.integers(0, 6),
        "top_n": st.none() | st.integers(1, 8),
    }
)
LISTS = st.lists(
    st.sampled_from([*TEXTS, "", " ", "memory leak", "leak\n", "Grüße 日本"]) | st.text(max_size=8), max_size=9
)


def outcome(ranking: Ranking[str]) -> list[tuple[str, float | None]]:
    """Return what survived of a ranking, best first, as the doors do."""
    return [(ranked.document, ranked.score) for ranked in ranking]


@given(texts=LISTS, options=SELECTIONS, query=st.sampled_from([QUERY, "spring", "zebra"]))
def test_all_doors_lead_to_the_cores_ranking(texts: list[str], options: dict[str, Any], query: str) -> None:
    """Order and scores, for any texts and thresholds; the options may be the adapter's or the reranker's."""
    selection = Selection(**options)
    core = Reranker(FakeScorer(), selection=selection)
    expected = outcome(core.rerank(query, texts))
    assert outcome(asyncio.run(core.arerank(query, texts))) == expected
    assert outcome(Reranker(FakeScorer()).rerank(query, texts, selection=selection)) == expected
    for door in DOORS:
        keep = {"without_text": "keep"} if door.kind is RerankPostprocessor else {}
        assert door.rank(door.kind(reranker=core, **keep), texts, query) == expected
        assert door.rank(door.kind(reranker=Reranker(FakeScorer()), **options, **keep), texts, query) == expected


@pytest.mark.parametrize(
    "options",
    [{}, {"top_n": 2}, {"score_threshold": 0.2, "top_n": None}, {"adaptive_ratio": 0.6, "min_keep": 2}],
    ids=str,
)
def test_the_embedded_model_scores_alike_everywhere(door: Door, options: dict[str, Any]) -> None:
    """Through each door what the bare core gives, up to the arithmetic of batches."""
    core = Reranker("embedded", selection=Selection(**{"top_n": 5, **options}))
    expected = outcome(core.rerank("How do I find a memory leak?", TEXTS))
    ranked = door.rank(door.kind(**options), TEXTS, "How do I find a memory leak?")
    assert [text for text, _ in ranked] == [text for text, _ in expected]
    assert [score for _, score in ranked] == pytest.approx([score for _, score in expected], abs=1e-2)


def test_metadata_is_read_alike(door: Door) -> None:
    """The named fields make the same text in both frameworks."""
    scorer = FakeScorer()
    metadata: list[dict[str, Any]] = [{"title": "Heap", "n": 1}, {"n": 2}, {}, {"title": "Roof"}]
    ranked = door.rank(
        door.kind(reranker=Reranker(scorer), metadata_fields=["n", "title"]), TEXTS, metadata=metadata
    )
    read = [f"n: 1\ntitle: Heap\n{TEXTS[0]}", f"n: 2\n{TEXTS[1]}", TEXTS[2], f"title: Roof\n{TEXTS[3]}"]
    assert scorer.seen == read
    core = Reranker(FakeScorer()).rerank(QUERY, read)
    assert ranked == [(TEXTS[document.index], document.score) for document in core]


def test_the_fallback_of_a_failure_is_alike(door: Door) -> None:
    """Passthrough through each door is the core's."""
    core = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough", selection=Selection(top_n=3))
    assert door.rank(door.kind(reranker=core)) == outcome(core.rerank(QUERY, TEXTS))


@given(options=SELECTIONS, query=st.sampled_from([QUERY, "spring", "zebra"]))
def test_searches_of_two_stages_are_alike(options: dict[str, Any], query: str) -> None:
    """Each framework's retriever and the search without one, over the same first stage."""
    top_n = options["top_n"]
    core = Reranker(FakeScorer(), selection=Selection(**options))
    expected = outcome(core.rerank(query, TEXTS))
    plain = two_stage_search(query, lambda query, candidates: TEXTS, core, top_n=top_n)
    awaited = asyncio.run(atwo_stage_search(query, lambda query, candidates: TEXTS, core, top_n=top_n))
    assert [(result.document, result.score) for result in plain] == expected
    assert awaited == plain
    documents = RunnableLambda(lambda query: [Document(text) for text in TEXTS])
    chain = LangChainRetriever(retriever=documents, compressor=RerankCompressor(reranker=core))
    assert [(found.page_content, found.metadata["relevance_score"]) for found in chain.invoke(query)] == expected
    nodes = SummaryIndex([TextNode(text=text) for text in TEXTS]).as_retriever()
    engine = LlamaIndexRetriever(nodes, RerankPostprocessor(reranker=core))
    assert [(found.text, found.score) for found in engine.retrieve(query)] == expected
