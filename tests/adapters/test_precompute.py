"""Filling a vector file when documents are indexed, in both frameworks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode
from support.colbert import Layout

from langchain_rerankers import RerankCompressor
from llamaindex_rerankers import RerankPostprocessor, RerankPrecompute
from rerank_core import ConfigurationError, Reranker, load_scorer
from rerank_core.vectors import VectorFile

TEXTS = ["Fixing a memory leak.", "The weather in Paris is lovely."]


def test_a_pipeline_stores_what_the_postprocessor_reads(tmp_path: Path) -> None:
    """Nodes pass unchanged, also asynchronously, and pictures without a text take nothing."""
    nodes = [TextNode(text=text, metadata={"title": f"title {at}"}) for at, text in enumerate(TEXTS)]
    options = {"vectors": str(tmp_path / "a")}
    rerank = RerankPostprocessor(model_options=options, metadata_fields=["title"])
    pipeline = IngestionPipeline(transformations=[RerankPrecompute(postprocessor=rerank)])
    assert pipeline.run(nodes=nodes) == nodes
    assert VectorFile(tmp_path / "a").stats().documents == 2
    assert asyncio.run(pipeline.arun(nodes=[*nodes, ImageNode()]))[:2] == nodes
    assert rerank.get_reranker().total_usage.stored == 0
    found = rerank.postprocess_nodes([NodeWithScore(node=node) for node in nodes], query_str="memory leak")
    assert [node.text for node in found] == TEXTS
    assert rerank.get_reranker().total_usage.stored == 2


def test_a_compressor_stores_what_it_reads(tmp_path: Path) -> None:
    """Before a query, from documents, strings or dictionaries, with the same options."""
    compressor = RerankCompressor(model_options={"vectors": str(tmp_path / "a")}, metadata_fields=["title"])
    documents = [Document(text, metadata={"title": f"title {at}"}) for at, text in enumerate(TEXTS)]
    index = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    chain = RunnableLambda(list) | compressor.as_indexing_step() | RunnableLambda(index.add_documents)
    assert len(chain.invoke(documents)) == len(asyncio.run(chain.ainvoke(documents))) == 2
    assert VectorFile(tmp_path / "a").stats().documents == 2
    assert compressor.as_indexing_step().invoke(documents) is documents
    again = asyncio.run(compressor.aprecompute([*documents, "new"]))
    assert (again.documents, again.stored) == (1, 2)
    compressor.compress_documents(documents, "memory leak")
    assert compressor.get_reranker().total_usage.stored == 2


@pytest.mark.parametrize("kind", [RerankCompressor, RerankPostprocessor])
def test_a_dump_holds_the_vector_file_and_its_limit(
    tmp_path: Path, kind: type[RerankCompressor | RerankPostprocessor]
) -> None:
    """Whether it is an option or within a reranker; what is no file is named."""
    scorer = load_scorer("embedded", vectors=VectorFile(tmp_path / "a", max_bytes=2**20))
    for settings in (kind(model_options={"vectors": scorer.options.vectors}), kind(reranker=Reranker(scorer))):
        for dump in (settings.model_dump(), json.loads(settings.model_dump_json())):
            again = kind.model_validate(dump).get_reranker().scorer
            assert again.with_options(vectors=None) == load_scorer("embedded")
            assert again._vectors == scorer.options.vectors
    with pytest.raises(ConfigurationError, match=r"vectors is \{'file': 3\}: give a VectorFile or the path"):
        load_scorer("embedded", vectors={"file": 3})


def test_a_colbert_checkpoint_works_in_both_frameworks(tmp_path: Path, colbert: Callable[[Layout], Path]) -> None:
    """By its name and options alone; what one of them stored, the other one reads."""
    model, options = f"late:{colbert('stanford')}", {"vectors": str(tmp_path / "a")}
    compressor = RerankCompressor(model=model, model_options=options)
    assert compressor.precompute([Document(text) for text in TEXTS]).documents == 2
    documents = compressor.compress_documents([Document(text) for text in TEXTS], "memory leak")
    rerank = RerankPostprocessor(model=model, model_options=options)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = rerank.postprocess_nodes(nodes, query_str="memory leak")
    assert [node.text for node in found] == [document.page_content for document in documents]
    assert rerank.get_reranker().total_usage.stored == compressor.get_reranker().total_usage.stored == 2
