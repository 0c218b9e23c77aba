"""LangChain's own objects as scorers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, ensure_config

from rerank_core import ConfigurationError
from rerank_core.llm.answer import Reply
from rerank_core.llm.prompt import Question
from rerank_core.llm.scorer import ModelScorer
from rerank_core.remote.failure import errors_by_status
from rerank_core.wrapped import Method, RankedText, RerankerScorer, WrappedOptions

__all__ = ["ChatModelScorer", "CompressorOptions", "CompressorScorer"]


class ChatModelScorer(ModelScorer):
    """Lets any LangChain chat model judge documents.

    It is asked by its structured output where it has that, else as text; the model's own retries and rate limits
    apply. Inside a compressor its run is a child of the compressor's. The name is ``"langchain:<model>"``.

    Args:
        model: a ``BaseChatModel``.
        options: the fields of :class:`rerank_core.llm.scorer.JudgeOptions`.

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
        with errors_by_status():
            message = await self._invoke(question)
        facts = message.response_metadata
        finish = str(facts.get("finish_reason") or facts.get("stop_reason") or "")
        usage = message.usage_metadata or {}
        calls = message.tool_calls
        first = ((facts.get("logprobs") or {}).get("content") or [{}])[0]
        return Reply(
            text=message.text,
            data=calls[0]["args"] if calls else None,
            finish=finish,
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


@dataclass(frozen=True, kw_only=True)
class CompressorOptions(WrappedOptions):
    """Options of :class:`CompressorScorer`.

    Attributes:
        score_key: metadata key under which the compressor returns its scores.
    """

    score_key: str = "relevance_score"


class CompressorScorer(RerankerScorer):
    """Makes a scorer of any LangChain compressor that reorders documents, or of any cross-encoder.

    So it gets thresholds, fallbacks, caches and deadlines, and works in LlamaIndex too. The compressor gets
    documents without metadata; let its own ``top_n`` be as large as the list. Inside a compressor of this package
    its runs are children of that one's. The name is ``"langchain:<class>"``.

    Args:
        model: a ``BaseDocumentCompressor`` or a ``BaseCrossEncoder``.
        options: the fields of :class:`CompressorOptions`.

    Raises:
        ConfigurationError: the object is neither, or an option is out of its range.

    >>> from langchain_core.cross_encoders import BaseCrossEncoder
    >>> class Lengths(BaseCrossEncoder):
    ...     def score(self, text_pairs):
    ...         return [1 / len(text) for query, text in text_pairs]
    >>> from rerank_core import Reranker
    >>> Reranker(CompressorScorer(Lengths())).rerank("short", ["a longer text", "a text"]).scores
    (0.07692307692307693, 0.16666666666666666)
    """

    Options = CompressorOptions
    options: CompressorOptions
    provider = "langchain"

    def __init__(self, model: Any, **options: Any) -> None:
        # langchain-core has the class since 1.3 only, and before that other packages had their own.
        self._is_cross_encoder = any(kind.__name__ == "BaseCrossEncoder" for kind in type(model).__mro__)
        if not (self._is_cross_encoder or isinstance(model, BaseDocumentCompressor)):
            raise ConfigurationError(
                f"model is a {type(model).__name__}: give a BaseDocumentCompressor or a BaseCrossEncoder"
            )
        super().__init__(model, **options)
        self.listwise = not (self._is_cross_encoder and self.options.scale is not None)

    def find_method(self) -> Method:
        """Return the compressor's own async method where it has one, else a function for a thread."""
        if self._is_cross_encoder:
            return self._score_pairs
        is_async = type(self.wrapped).acompress_documents is not BaseDocumentCompressor.acompress_documents
        return self._acompress if is_async else self._compress

    def _score_pairs(self, query: str, texts: Sequence[str]) -> list[RankedText]:
        scores = self.wrapped.score([(query, text) for text in texts])
        return sorted(zip(texts, scores, strict=True), key=lambda row: -row[1])

    def _compress(self, query: str, texts: Sequence[str]) -> list[RankedText]:
        callbacks = ensure_config().get("callbacks")
        return self._read(self.wrapped.compress_documents(list(map(Document, texts)), query, callbacks))

    async def _acompress(self, query: str, texts: Sequence[str]) -> list[RankedText]:
        callbacks = ensure_config().get("callbacks")
        return self._read(await self.wrapped.acompress_documents(list(map(Document, texts)), query, callbacks))

    def _read(self, documents: Sequence[Document]) -> list[RankedText]:
        return [(each.page_content, each.metadata.get(self.options.score_key)) for each in documents]
