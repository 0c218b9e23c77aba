"""LangGraph: the reranking runnable as a node of a graph, with checkpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.documents import Document
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import create_model
from support.doors import BEST_FIRST, QUERY, TEXTS
from typing_extensions import TypedDict

from langchain_rerankers import RerankCompressor
from rerank_core import Reranker
from rerank_core.testing import FakeScorer

graphs = pytest.importorskip("langgraph.graph")


def contents(documents: list[Document]) -> list[str]:
    """Return the texts of documents."""
    return [document.page_content for document in documents]


@dataclass
class State:
    """A graph's state, as a class."""

    question: str
    found: list[Document] = field(default_factory=list)
    best: list[Document] = field(default_factory=list)


class TypedState(TypedDict, total=False):
    """A graph's state, as a dictionary."""

    question: str
    found: list[Document]
    best: list[Document]


Model = create_model("Model", question=(str, ""), found=(list[Document], []), best=(list[Document], []))
"""A graph's state, as a pydantic model."""


@pytest.mark.parametrize("schema", [State, TypedState, Model], ids=["dataclass", "dictionary", "pydantic"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_it_is_a_node_of_a_graph(schema: Any, is_async: bool) -> None:
    """With the state's own keys, options for one run, and documents in a checkpoint."""
    compressor = RerankCompressor(reranker=Reranker(FakeScorer()), top_n=3)
    rerank = compressor.as_runnable(query_key="question", documents_key="found", output_key="best").configurable()
    graph = graphs.StateGraph(schema)
    graph.add_node("retrieve", lambda state: {"found": [Document(text) for text in TEXTS]})
    graph.add_node("rerank", rerank)
    graph.add_edge(graphs.START, "retrieve")
    graph.add_edge("retrieve", "rerank")
    graph.add_edge("rerank", graphs.END)
    compiled = graph.compile(checkpointer=InMemorySaver())
    for number, (configured, expected) in enumerate([({}, 3), ({"rerank_top_n": 1}, 1)]):
        config: Any = {"configurable": {"thread_id": str(number), **configured}}
        state = {"question": QUERY}
        result = asyncio.run(compiled.ainvoke(state, config)) if is_async else compiled.invoke(state, config)
        assert contents(result["best"]) == BEST_FIRST[:expected]
        assert contents(compiled.get_state(config).values["best"]) == BEST_FIRST[:expected]
