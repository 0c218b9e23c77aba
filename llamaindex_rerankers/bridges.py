"""LlamaIndex's own objects as scorers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, create_model

from rerank_core import ConfigurationError
from rerank_core.llm.answer import Reply
from rerank_core.llm.prompt import Question
from rerank_core.llm.scorer import ModelScorer
from rerank_core.remote.failure import errors_by_status, find_value
from rerank_core.remote.response import find_count
from rerank_core.wrapped import Method, RankedText, RerankerScorer

__all__ = ["LLMScorer", "PostprocessorScorer"]

_Grade = create_model("Grade", id=(int, ...), grade=(int, ...))
_ANSWERS: dict[str, type[BaseModel]] = {
    "grades": create_model("Grades", grades=(list[_Grade], ...)),
    "order": create_model("Order", order=(list[int], ...)),
}


class LLMScorer(ModelScorer):
    """Lets any LlamaIndex ``LLM`` judge documents.

    It is asked by a tool call where it is a function-calling model, else as text; the model's own retries apply.
    Its spans lie within the postprocessor's. The name is ``"llama-index:<model>"``.

    Args:
        model: an ``LLM``.
        options: the fields of :class:`rerank_core.llm.scorer.JudgeOptions`.

    Raises:
        ConfigurationError: the model is no ``LLM``, or an option is out of its range.
    """

    provider = "llama-index"

    @staticmethod
    def find_name(model: Any) -> str:
        """Return the model's name, as its metadata calls it."""
        if not isinstance(model, LLM):
            raise ConfigurationError(f"model is a {type(model).__name__}: give a LlamaIndex LLM")
        name = model.metadata.model_name
        return type(model).__name__ if name == "unknown" else name

    def describe_model(self) -> str:
        """Return the model's class and its settings, without keys."""
        settings = {name: value for name, value in self.wrapped.to_dict().items() if "key" not in name}
        return f"{type(self.wrapped).__qualname__} {sorted(settings.items(), key=repr)}"

    async def ask(self, question: Question) -> Reply:
        """Chat with the model."""
        with errors_by_status():
            return await self._chat(question)

    async def _chat(self, question: Question) -> Reply:
        llm, data = self.wrapped, None
        messages = [ChatMessage(role=role, content=content) for role, content in question.messages]
        if question.schema is None:
            response = await llm.achat(messages, logprobs=True, top_logprobs=20)
        elif isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model:
            title = question.schema["title"]
            tool = FunctionTool.from_defaults(
                lambda **answer: answer,
                name=title,
                description=question.schema["description"],
                fn_schema=_ANSWERS[title],
            )
            response = await llm.achat_with_tools([tool], chat_history=messages, tool_required=True)
            calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
            data = calls[0].tool_kwargs if calls else None
        else:
            response = await llm.achat(messages)
        choice = (find_value(response.raw, "choices") or [None])[0]
        finish = str(find_value(choice, "finish_reason") or find_value(response.raw, "stop_reason") or "")
        return Reply(
            text=response.message.content or "",
            data=data,
            finish=finish,
            logprobs={top.token: top.logprob for top in (response.logprobs or [[]])[0]},
            input_tokens=find_count(
                response, "raw.usage.prompt_tokens", "raw.usage.input_tokens", "additional_kwargs.prompt_tokens"
            ),
            output_tokens=find_count(
                response,
                "raw.usage.completion_tokens",
                "raw.usage.output_tokens",
                "additional_kwargs.completion_tokens",
            ),
        )


class PostprocessorScorer(RerankerScorer):
    """Makes a scorer of any LlamaIndex postprocessor that reorders nodes.

    So it gets thresholds, fallbacks, caches and deadlines, and works in LangChain too. The postprocessor gets
    nodes with nothing but a text; let its own ``top_n`` be as large as the list. Its spans lie within the
    caller's. The name is ``"llama-index:<class>"``.

    Args:
        model: a ``BaseNodePostprocessor``.
        options: the fields of :class:`rerank_core.wrapped.WrappedOptions`.

    Raises:
        ConfigurationError: the object is none, or an option is out of its range.
    """

    provider = "llama-index"

    def __init__(self, model: Any, **options: Any) -> None:
        if not isinstance(model, BaseNodePostprocessor):
            raise ConfigurationError(f"model is a {type(model).__name__}: give a BaseNodePostprocessor")
        super().__init__(model, **options)

    def find_method(self) -> Method:
        """Return the postprocessor's own async method where it has one, else a function for a thread."""
        kind, base = type(self.wrapped), BaseNodePostprocessor
        is_async = (
            kind._apostprocess_nodes is not base._apostprocess_nodes
            or kind.apostprocess_nodes is not base.apostprocess_nodes
        )
        return self._apostprocess if is_async else self._postprocess

    def _postprocess(self, query: str, texts: Sequence[str]) -> list[RankedText]:
        return _read_nodes(self.wrapped.postprocess_nodes(_make_nodes(texts), query_str=query))

    async def _apostprocess(self, query: str, texts: Sequence[str]) -> list[RankedText]:
        return _read_nodes(await self.wrapped.apostprocess_nodes(_make_nodes(texts), query_str=query))


def _make_nodes(texts: Sequence[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


def _read_nodes(nodes: Sequence[NodeWithScore]) -> list[RankedText]:
    return [(each.node.get_content(MetadataMode.NONE), each.score) for each in nodes]
