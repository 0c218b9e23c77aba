"""Language models of both frameworks as judges: structured answers, traces, copies, cache keys."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span_handlers import SimpleSpanHandler
from support.chat import ChatServer, LangChainModel, LlamaIndexModel, asked_texts, grades, serving
from support.langchain_parts import Scripted
from support.llamaindex_parts import CallsOneTool

from langchain_rerankers import ChatModelScorer, RerankCompressor
from llamaindex_rerankers import LLMScorer, RerankPostprocessor
from rerank_core import ConfigurationError, Reranker
from rerank_core.policies import Cascade

QUERY = "find a memory leak"
TEXTS = ["tea", "a memory leak", "a leak"]
ROWS = [{"id": 2, "grade": 9}, {"id": 3, "grade": 7}, {"id": 1, "grade": 0}]
ORDER = [1, 2, 0]


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    """Return a running chat server."""
    with serving() as server:
        yield server


class Tracer(BaseTracer):
    """Keeps the root runs."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)


def names(run: Run) -> Any:
    """Return a run as (name, type, children)."""
    return run.name, run.run_type, [names(child) for child in run.child_runs]


def test_a_chat_model_with_structured_output_answers_by_a_tool_call() -> None:
    """Its usage is counted; the text that comes with it is not read."""
    call = {"name": "grades", "args": {"grades": ROWS}, "id": "1", "type": "tool_call"}
    usage: Any = {"input_tokens": 70, "output_tokens": 30, "total_tokens": 100}
    model = Scripted(script=[AIMessage("as you wish", tool_calls=[call], usage_metadata=usage)])
    price = {"Scripted": {"per_1m_tokens": 1.0, "per_1m_output_tokens": 10.0}}
    ranking = Reranker(ChatModelScorer(model, prices=price)).rerank(QUERY, TEXTS)
    assert [ranked.index for ranked in ranking] == ORDER
    assert (ranking.usage.tokens, ranking.usage.output_tokens) == (70, 30)
    assert ranking.usage.cost == pytest.approx(0.00037)
    assert ranking.model == "langchain:Scripted"


class GradesByTool(CallsOneTool):
    """Calls the tool that it is given with grades."""

    def _answer(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content="", additional_kwargs={"call": True}))

    def get_tool_calls_from_response(self, response: ChatResponse, **kwargs: Any) -> Any:
        """Return the one call."""
        [call] = super().get_tool_calls_from_response(response, **kwargs)
        return [call.model_copy(update={"tool_kwargs": {"grades": ROWS}})]

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the call."""
        assert kwargs["tools"] == ["grades"]
        return self._answer(messages)


def test_a_function_calling_llm_answers_by_a_tool_call() -> None:
    """Whose arguments are checked like any answer."""
    ranking = Reranker(LLMScorer(GradesByTool(query=""))).rerank(QUERY, TEXTS)
    assert [ranked.index for ranked in ranking] == ORDER
    assert ranking.usage.estimated


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_models_run_is_a_child_of_the_compressors(chat: ChatServer, is_async: bool) -> None:
    """Though it runs on another thread's event loop; also within a policy, and without leaking to later runs."""
    chat.plan(grades([0, 9, 7]))
    scorer = Cascade(["embedded", ChatModelScorer(LangChainModel(url=chat.url))], keep=[3])
    compressor = RerankCompressor(reranker=Reranker(scorer))
    documents = [Document(text) for text in TEXTS]
    tracer = Tracer()
    if is_async:
        found = asyncio.run(compressor.acompress_documents(documents, QUERY, callbacks=[tracer]))
    else:
        found = compressor.compress_documents(documents, QUERY, callbacks=[tracer])
    assert [document.page_content for document in found] == [TEXTS[index] for index in ORDER]
    [root] = tracer.roots
    assert names(root) == ("RerankCompressor", "chain", [("LangChainModel", "llm", [])])
    compressor.compress_documents(documents, QUERY)
    FakeListChatModel(responses=["x"]).invoke("y")
    assert len(tracer.roots) == 1


def test_the_llms_spans_lie_within_the_postprocessors(chat: ChatServer) -> None:
    """In LlamaIndex's instrumentation."""
    chat.plan(grades([0, 9, 7]))
    spans = SimpleSpanHandler()
    root = get_dispatcher()
    root.add_span_handler(spans)
    try:
        rerank = RerankPostprocessor(reranker=Reranker(LLMScorer(LlamaIndexModel(url=chat.url))))
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
        found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    finally:
        root.span_handlers.remove(spans)
    assert [node.text for node in found] == [TEXTS[index] for index in ORDER]
    [llm] = [span for span in spans.completed_spans if "achat" in span.id_]
    assert llm.parent_id is not None
    assert "postprocess_nodes" in llm.parent_id


@pytest.mark.parametrize("kind", [ChatModelScorer, LLMScorer])
def test_what_is_no_language_model_is_refused(kind: Any) -> None:
    """With the class that was given."""
    with pytest.raises(ConfigurationError, match="model is a str: give a"):
        kind("gpt")
    with pytest.raises(ConfigurationError, match="takes no option 'top_k'"):
        kind(FakeListChatModel(responses=[]) if kind is ChatModelScorer else MockLLM(), top_k=3)


@pytest.mark.parametrize(("kind", "model"), [(ChatModelScorer, LangChainModel), (LLMScorer, LlamaIndexModel)])
def test_scorers_copy_and_have_a_cache_key(kind: Any, model: Any) -> None:
    """A copy asks the same model; the key tells models and options apart."""
    scorer = kind(model(url="http://127.0.0.1:9/v1"), window=10)
    other = copy.copy(scorer)
    assert other.wrapped is scorer.wrapped
    assert (other.options, other.cache_key()) == (scorer.options, scorer.cache_key())
    assert scorer.with_options(window=5).cache_key() != scorer.cache_key()
    assert scorer.with_options(max_cost=None).cache_key() == scorer.cache_key()


def test_pointwise_grades_are_read_of_langchains_log_probabilities(chat: ChatServer) -> None:
    """One question per document, each scored by itself."""
    chat.plan(lambda body: {"text": "9", "top_logprobs": {"9" if "leak" in asked_texts(body)[0] else "0": 0.0}})
    scorer = ChatModelScorer(LangChainModel(url=chat.url), mode="pointwise")
    assert not scorer.listwise
    ranking = Reranker(scorer).rerank(QUERY, TEXTS)
    assert ranking.scores == (0.0, 1.0, 1.0)
    assert chat.requests[0]["logprobs"] is True


def test_a_model_without_structured_output_is_asked_for_text() -> None:
    """A fake one too, so that tests need no key."""
    model: BaseChatModel = FakeListChatModel(responses=[json.dumps({"grades": ROWS})])
    assert [ranked.index for ranked in Reranker(ChatModelScorer(model)).rerank(QUERY, TEXTS)] == ORDER
