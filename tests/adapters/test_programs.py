"""Whole programs: what an application of each kind does with the adapters, from its documents to its answer."""

from __future__ import annotations

import json

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableConfig
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaIndexDocument
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.tools import RetrieverTool
from llama_index.core.workflow import JsonSerializer
from support.langchain_parts import Words, embedded, minilm
from support.llamaindex_parts import DOCS, LEAK, CallsOneTool, MiniLM

from langchain_rerankers import HybridRetriever, RerankCompressor, RerankRetriever
from llamaindex_rerankers import RerankPostprocessor
from llamaindex_rerankers import RerankRetriever as NodeRetriever


def test_hybrid_retrieval_of_many_tenants() -> None:
    """One retriever serves all tenants: what a call configures reaches both of its first stages."""
    texts = {
        "ann": ["tracemalloc finds memory leaks.", "The memory of elephants is long."],
        "bob": ["Valgrind finds memory leaks in C.", "Bob's memory leaks."],
    }
    documents = [
        Document(text, id=f"{tenant}-{number}", metadata={"tenant": tenant})
        for tenant, own in texts.items()
        for number, text in enumerate(own)
    ]
    store = InMemoryVectorStore(minilm())
    store.add_documents(documents)
    vectors = store.as_retriever(search_kwargs={"k": 20}).configurable_fields(
        search_kwargs=ConfigurableField(id="search_kwargs")
    )
    words = Words(documents=[]).configurable_fields(documents=ConfigurableField(id="documents"))
    retriever = RerankRetriever(
        retriever=HybridRetriever(retrievers=[vectors, words]),
        compressor=RerankCompressor(reranker=embedded(), top_n=5),
    ).configurable()
    assert {"search_kwargs", "documents", "rerank_top_n"} <= {spec.id for spec in retriever.config_specs}
    for tenant in texts:

        def is_own(document: Document, tenant: str = tenant) -> bool:
            return document.metadata["tenant"] == tenant

        config: RunnableConfig = {
            "configurable": {
                "search_kwargs": {"k": 20, "filter": is_own},
                "documents": [document for document in documents if is_own(document)],
            }
        }
        found = retriever.batch(["What finds memory leaks?"] * 4, config)
        assert {document.metadata["tenant"] for each in found for document in each} == {tenant}
        assert {each[0].id for each in found} == {f"{tenant}-0"}
        config["configurable"]["rerank_top_n"] = 1
        assert len(retriever.invoke("What finds memory leaks?", config)) == 1


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    """Return an index that a pipeline has filled."""
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(chunk_size=128, chunk_overlap=0), MiniLM()])
    nodes = pipeline.run(documents=[LlamaIndexDocument(text=text, doc_id=str(n)) for n, text in enumerate(DOCS)])
    return VectorStoreIndex(nodes, embed_model=MiniLM())


def test_an_ingestion_pipeline_before_two_stages(index: VectorStoreIndex) -> None:
    """The nodes that come out know their documents, and go through JSON and a pipeline again as they are."""
    retriever = NodeRetriever(index, candidates=10, reranker=embedded(), top_n=2, keep_retrieval_score=True)
    best = retriever.retrieve(LEAK)
    assert best[0].node.ref_doc_id == "0"
    assert all(type(node.score) is float and type(node.metadata["retrieval_score"]) is float for node in best)
    again = [TextNode.from_dict(json.loads(json.dumps(node.node.to_dict()))) for node in best]
    assert [(node.node_id, node.text) for node in again] == [(node.node_id, node.text) for node in best]
    kept = index.as_retriever(similarity_top_k=10).retrieve(LEAK)
    assert all("retrieval_score" not in node.metadata for node in kept)


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key")
@pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning")
async def test_an_agent_workflow(index: VectorStoreIndex) -> None:
    """Its agent searches in two stages; a postprocessor in its state survives storing the context."""
    tool = RetrieverTool.from_defaults(
        NodeRetriever(index, candidates=10, reranker=embedded(), top_n=1), name="search", description="Searches."
    )
    agent = FunctionAgent(name="finder", description="Finds.", tools=[tool], llm=CallsOneTool(query=LEAK))
    workflow = AgentWorkflow(agents=[agent], initial_state={"rerank": RerankPostprocessor(top_n=1).to_dict()})
    handler = workflow.run("What finds leaks?")
    result = await handler
    assert DOCS[0] in str(result)
    assert DOCS[4] not in str(result)
    stored = json.loads(json.dumps(handler.ctx.to_dict(serializer=JsonSerializer())))
    assert "RerankPostprocessor" in json.dumps(stored)
