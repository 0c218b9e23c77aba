"""How LangChain applications use the adapter, for the type checker: this file is checked, not run."""

from __future__ import annotations

from collections.abc import Sequence

from langchain.agents.middleware import AgentMiddleware
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import VectorStore

from langchain_rerankers import HybridRetriever, RerankCompressor, RerankRetriever
from langchain_rerankers.compressor import RerankInput
from langchain_rerankers.middleware import RerankMiddleware
from rerank_core import Reranker


def title(document: Document) -> str:
    """Return what the model reads of a document."""
    return str(document.metadata["title"])


def compressor(documents: Sequence[Document]) -> list[Document]:
    """Check the options and the calls of the compressor."""
    made = RerankCompressor(
        model="cohere:rerank-v3.5",
        top_n=None,
        score_threshold=0.5,
        adaptive_ratio=0.5,
        min_keep=1,
        api_key="key",
        base_url="https://rerank.example",
        timeout=3.0,
        on_error="passthrough",
        metadata_fields=["title"],
        model_options={"max_length": 256},
        score_key="score",
        text_fn=title,
    )
    generic: BaseDocumentCompressor = made
    core: Reranker = made.get_reranker()
    top_n: int | None = made.model_copy(update={"top_n": 3}).top_n
    print(generic, core, top_n)
    return made.compress_documents(documents, "query")


async def retriever(store: VectorStore) -> list[Document]:
    """Check the options and the calls of the retriever."""
    made = RerankRetriever(
        retriever=store.as_retriever(), compressor=RerankCompressor(reranker=Reranker("embedded"))
    )
    generic: BaseRetriever = made
    chain: Runnable[str, int] = made | RunnableLambda(len)
    tool = create_retriever_tool(RerankRetriever(retriever=generic, top_n=3), "search", "Searches.")
    print(chain, tool.name)
    documents: list[Document] = made.invoke("query", top_n=3)
    documents += await RerankCompressor().acompress_documents(documents, "query", callbacks=None)
    return documents + await made.ainvoke("query")


def pieces(store: VectorStore, documents: Sequence[Document]) -> list[Document]:
    """Check the runnable, the configurable retriever, the hybrid first stage and the middleware."""
    rerank = RerankCompressor(return_passage=True).as_runnable()
    counted: Runnable[RerankInput, int] = rerank | RunnableLambda(len)
    hybrid = HybridRetriever(
        retrievers=[store.as_retriever(), store.as_retriever()], weights=[1, 0.5], candidates=20
    )
    configurable: Runnable[str, list[Document]] = RerankRetriever(retriever=hybrid, top_n=3).configurable()
    middleware: AgentMiddleware = RerankMiddleware(RerankCompressor(), tools=["search"], on_error="raise")
    node = RerankCompressor(diversity=0.3, order="edges", collapse_duplicates=True).as_runnable(output_key="best")
    best: dict[str, list[Document]] = node.invoke({"query": "query", "documents": documents})
    plain: list[dict[str, object]] = RerankCompressor().rerank(["text", {"text": "text"}, *documents], "query")
    print(best, plain)
    print(counted, middleware, configurable.invoke("query", {"configurable": {"rerank_top_n": 1}}))
    return rerank.invoke({"query": "query", "documents": documents})


def mistakes() -> None:
    """Check that mistakes are seen: each ignored error must be one, or the checker complains of the comment."""
    RerankCompressor(top_k=3)  # type: ignore[call-arg]
    RerankCompressor(api_key=3)  # type: ignore[arg-type]
    RerankRetriever(retriever=RunnableLambda(len), score_treshold=0.5)  # type: ignore[call-arg,arg-type]
    HybridRetriever(retrievers=[], k=3)  # type: ignore[call-arg]
    RerankRetriever(compressor=RerankCompressor())  # type: ignore[call-arg]
    RerankCompressor().compress_documents(["text"], "query")  # type: ignore[list-item]
    RerankCompressor().top_n.bit_length()  # type: ignore[union-attr]
