"""How LlamaIndex applications use the adapter, for the type checker: this file is checked, not run."""

from __future__ import annotations

from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import SecretStr

from llamaindex_rerankers import RerankPostprocessor, RerankRetriever
from rerank_core import Reranker


def embedding(node: NodeWithScore) -> list[float]:
    """Return a node's stored vector."""
    return node.node.get_embedding()


def title(node: NodeWithScore) -> str:
    """Return what the model reads of a node."""
    return str(node.metadata["title"])


async def postprocessor(nodes: list[NodeWithScore], retriever: BaseRetriever) -> list[NodeWithScore]:
    """Check the options and the calls of the postprocessor."""
    made = RerankPostprocessor(
        model="cohere:rerank-v3.5",
        top_n=None,
        score_threshold=0.5,
        adaptive_ratio=0.5,
        min_keep=1,
        api_key=SecretStr("key"),
        base_url="https://rerank.example",
        timeout=3.0,
        on_error="passthrough",
        metadata_fields=("title",),
        model_options={"max_length": 256},
        metadata_mode=MetadataMode.LLM,
        keep_retrieval_score=True,
        callback_manager=CallbackManager(),
        text_fn=title,
    )
    generic: BaseNodePostprocessor = made
    core: Reranker = RerankPostprocessor(reranker=Reranker("embedded")).get_reranker()
    dumped: dict[str, Any] = made.to_dict()
    rebuilt: RerankPostprocessor = RerankPostprocessor.from_dict(dumped)
    mode: MetadataMode = rebuilt.metadata_mode
    engine = RetrieverQueryEngine.from_args(retriever, node_postprocessors=[made])
    print(generic, core, mode, engine)
    ranked: list[NodeWithScore] = made.postprocess_nodes(nodes, query_str="query")
    return ranked + await made.apostprocess_nodes(nodes, QueryBundle("query"))


def retriever(index: VectorStoreIndex) -> BaseRetriever:
    """Check the options of the retriever."""
    return RerankRetriever(
        index,
        candidates=50,
        top_n=3,
        api_key="key",
        without_text="keep",
        vector_fn=embedding,
    )


def mistakes(index: VectorStoreIndex) -> None:
    """Check that mistakes are seen: each ignored error must be one, or the checker complains of the comment."""
    RerankPostprocessor(top_k=3)  # type: ignore[call-arg]
    RerankPostprocessor(score_key="score")  # type: ignore[call-arg]
    RerankPostprocessor().postprocess_nodes("text", query_str="query")  # type: ignore[arg-type]
    RerankPostprocessor().top_n.bit_length()  # type: ignore[union-attr]
