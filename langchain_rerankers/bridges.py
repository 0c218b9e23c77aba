"""LangChain's own objects as scorers."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from rerank_core import ConfigurationError
from rerank_core.llm.answer import Reply
from rerank_core.llm.prompt import Question
from rerank_core.llm.scorer import ModelScorer
from rerank_core.remote.failure import error_of_status

__all__ = ["ChatModelScorer"]

_REFUSALS = ("content_filter", "refusal", "safety", "SAFETY")


class ChatModelScorer(ModelScorer):
    """Lets any LangChain chat model judge documents.

    It is asked by its structured output where it has that, else as text; the model's own retries and rate limits
    apply. Inside a compressor its run is a child of the compressor's. The name is ``"langchain:<model>"``.

    Args:
        model: a ``BaseChatModel``.
        options: the fields of :class:`rerank_core.llm.options.JudgeOptions`.

    Raises:
        ConfigurationError: the model is no chat model, or an option is out of its range.
    """

    provider = "langchain"

    @staticmethod
    def find_name(model: Any) -> str:
        """Return the model's name, as LangChain's traces call it."""
        if not isinstance(model, BaseChatModel):
            raise ConfigurationError(f"model is a {type(model).__name__}: give a LangChain chat model")
        return model._get_ls_params().get("ls_model_name") or type(model).__name__

    def describe_model(self) -> str:
        """Return the string by which LangChain's own caches tell models apart."""
        return f"{type(self.wrapped).__qualname__} {self.wrapped._get_llm_string()}"

    async def ask(self, question: Question) -> Reply:
        """Invoke the model."""
        try:
            message = await self._invoke(question)
        except Exception as exc:
            error = error_of_status(getattr(exc, "status_code", None))
            if error is None:
                raise
            raise error from exc
        facts = message.response_metadata
        finish = str(facts.get("finish_reason") or facts.get("stop_reason") or "")
        usage = message.usage_metadata or {}
        calls = message.tool_calls
        first = ((facts.get("logprobs") or {}).get("content") or [{}])[0]
        return Reply(
            text=message.text,
            data=calls[0]["args"] if calls else None,
            refused=finish if finish in _REFUSALS else "",
            cut=finish in ("length", "max_tokens"),
            logprobs={top["token"]: top["logprob"] for top in first.get("top_logprobs") or ()},
            input_tokens=usage.get("input_tokens"),
            output_tokens=usage.get("output_tokens"),
        )

    async def _invoke(self, question: Question) -> Any:
        model, messages = self.wrapped, list(question.messages)
        if question.schema is None:
            return await model.bind(logprobs=True, top_logprobs=20).ainvoke(messages)
        try:
            structured: Runnable[Any, Any] = model.with_structured_output(dict(question.schema), include_raw=True)
        except NotImplementedError:
            return await model.ainvoke(messages)
        return (await structured.ainvoke(messages))["raw"]
