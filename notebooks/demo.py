"""The program of `make demo`: BM25 over Python's documentation, then the embedded reranker, in both frameworks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bm25s
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from rich.console import Console
from rich.table import Table
from stdlib_corpus import Passage, passages

from langchain_rerankers import RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import Reranker, load_scorer

QUESTIONS = (
    "How do I find what is leaking memory in my program?",
    "Run a command and capture what it prints, but give up after ten seconds",
    "What should I use to compare two versions of a text and show the differences?",
)
CANDIDATES = 50
SHOWN = 5


class FirstStage:
    """BM25 over passages, with the search library's own English stop words."""

    def __init__(self, corpus: Sequence[Passage]) -> None:
        self.corpus = corpus
        self._index = bm25s.BM25()
        texts = [f"{passage.title.replace('.', ' ')}\n{passage.text}" for passage in corpus]
        self._index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def search(self, query: str, candidates: int) -> list[tuple[Passage, float]]:
        """Return the best passages and their BM25 scores."""
        tokens = bm25s.tokenize(query, show_progress=False)
        indices, scores = self._index.retrieve(tokens, k=candidates, show_progress=False)
        return [(self.corpus[index], float(score)) for index, score in zip(indices[0], scores[0], strict=True)]


class Bm25Retriever(BaseRetriever):
    """The first stage as LangChain sees it."""

    stage: Any
    candidates: int = CANDIDATES

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [
            Document(passage.text, metadata={"title": passage.title})
            for passage, _ in self.stage.search(query, self.candidates)
        ]


class Bm25NodeRetriever(LlamaIndexRetriever):
    """The first stage as LlamaIndex sees it."""

    def __init__(self, stage: FirstStage, candidates: int = CANDIDATES) -> None:
        super().__init__()
        self._stage = stage
        self._candidates = candidates

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=TextNode(text=passage.text, metadata={"title": passage.title}), score=score)
            for passage, score in self._stage.search(query_bundle.query_str, self._candidates)
        ]


Ranked = list[tuple[str, float]]


def langchain_search(stage: FirstStage) -> Callable[[str], Ranked]:
    """Return a search through a LangChain retriever."""
    retriever = RerankRetriever(
        retriever=Bm25Retriever(stage=stage),
        compressor=RerankCompressor(top_n=SHOWN, metadata_fields=["title"]),
    )
    return lambda question: [
        (document.metadata["title"], document.metadata["relevance_score"])
        for document in retriever.invoke(question)
    ]


def llamaindex_search(stage: FirstStage) -> Callable[[str], Ranked]:
    """Return a search through a LlamaIndex query engine."""
    engine = RetrieverQueryEngine(
        retriever=Bm25NodeRetriever(stage),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[RerankPostprocessor(top_n=SHOWN, metadata_fields=["title"])],
    )
    return lambda question: [
        (node.metadata["title"], node.score or 0.0) for node in engine.query(question).source_nodes
    ]


def compare_orders(question: str, first: Ranked, reranked: Ranked, seconds: float) -> Table:
    """Return a table of the first stage's best beside the reranked best."""
    ranks = {title: rank for rank, (title, _) in reversed(list(enumerate(first, start=1)))}
    table = Table(
        title=question,
        title_justify="left",
        title_style="bold",
        caption=f"{CANDIDATES} candidates in {seconds * 1000:.0f} ms, {CANDIDATES / seconds:.0f} a second",
        caption_justify="right",
        expand=True,
    )
    table.add_column("#", justify="right")
    table.add_column("BM25's order", ratio=1, no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("reranked", ratio=1, no_wrap=True, style="green")
    table.add_column("score", justify="right")
    table.add_column("was", justify="right")
    for rank, ((before, bm25), (after, score)) in enumerate(zip(first, reranked, strict=False), start=1):
        table.add_row(str(rank), before, f"{bm25:.1f}", after, f"{score:.2f}", f"{ranks[after]}")
    return table


def compare_times(stage: FirstStage, seconds: Sequence[float]) -> Table:
    """Return a table of the seconds of each question beside those with stored vectors."""
    found = [[passage.text for passage, _ in stage.search(question, CANDIDATES)] for question in QUESTIONS]
    with (
        tempfile.TemporaryDirectory() as folder,
        Reranker(load_scorer("embedded", vectors=Path(folder, "rerank.vectors"))) as reranker,
    ):
        start = time.perf_counter()
        done = reranker.precompute([text for texts in found for text in texts])
        ahead = time.perf_counter() - start
        reranker.rerank("a question that does not count", found[0])
        stored = []
        for question, texts in zip(QUESTIONS, found, strict=True):
            start = time.perf_counter()
            reranker.rerank(question, texts)
            stored.append(time.perf_counter() - start)
    table = Table(
        title="The same questions over the same candidates",
        title_justify="left",
        title_style="bold",
        caption=f"{done.documents} passages were encoded and stored ahead, in {ahead:.1f} s",
        caption_justify="right",
        expand=True,
    )
    table.add_column("question", ratio=1, no_wrap=True)
    table.add_column("encoding now", justify="right")
    table.add_column("stored", justify="right", style="green")
    for question, slow, fast in zip(QUESTIONS, seconds, stored, strict=True):
        table.add_row(question, f"{slow * 1000:.0f} ms", f"{fast * 1000:.1f} ms")
    return table


NEXT = """\
Where to look next:
  docs/index.md              install it and rerank your own documents
  docs/langchain.md          in chains, graphs and agents
  docs/llamaindex.md         in query engines
  docs/choosing-a-model.md   a model for your task
  notebooks/                 the same step by step"""


def main() -> None:
    """Show three questions in both frameworks, then with stored vectors."""
    console = Console()
    start = time.perf_counter()
    stage = FirstStage(passages())
    console.print(f"{len(stage.corpus)} passages of Python's documentation in {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    Reranker("embedded").warm_up()
    console.print(f"embedded model loaded in {time.perf_counter() - start:.1f} s")
    searches = {
        "LangChain: RerankRetriever": langchain_search(stage),
        "LlamaIndex: RetrieverQueryEngine with RerankPostprocessor": llamaindex_search(stage),
    }
    taken = []
    for heading, search in searches.items():
        console.rule(heading)
        for question in QUESTIONS:
            first = [(passage.title, score) for passage, score in stage.search(question, CANDIDATES)]
            start = time.perf_counter()
            reranked = search(question)
            taken.append(time.perf_counter() - start)
            console.print(compare_orders(question, first, reranked, taken[-1]))
    console.print(
        "The second round is faster because the embedded model keeps the vectors of recently scored documents."
    )
    console.rule("Stored vectors: documents are read before anybody asks")
    console.print(compare_times(stage, taken[: len(QUESTIONS)]))
    console.print(NEXT, highlight=False, markup=False)


if __name__ == "__main__":
    main()
