"""A chat-completions server on loopback whose answers a test scripts, and the three doors to it.

A script is an answer: the message's text, or a dictionary of what differs from an ordinary completion (``text``,
``finish``, ``refusal``, ``usage``, ``headers``, ``status``, ``error``, ``top_logprobs``, ``body``, ``delay``), or
a function from the request's body to an answer, or a list of both for one request after the other.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms.custom import CustomLLM

from langchain_rerankers import ChatModelScorer
from llamaindex_rerankers import LLMScorer
from rerank_core import Scorer, load_scorer

__all__ = ["DOORS", "ChatServer", "LangChainModel", "LlamaIndexModel", "asked_texts", "grades", "serving"]

DOORS = ("llm", "langchain", "llama-index")
_DOCUMENT = re.compile(r'<document id="(\d+)">\n(.*?)\n</document>', re.DOTALL)


def asked_texts(body: dict[str, Any]) -> list[str]:
    """Return the texts that a request asks about, in the order of their ids."""
    prompt = next(message["content"] for message in body["messages"] if message["role"] == "user")
    return [text for _, text in _DOCUMENT.findall(prompt)]


def grades(given: Sequence[float]) -> str:
    """Return an answer that grades the documents from the first to the last."""
    rows = [{"id": number, "grade": grade} for number, grade in enumerate(given, 1)]
    return json.dumps({"grades": sorted(rows, key=lambda row: -row["grade"])})


class ChatServer(ThreadingHTTPServer):
    """The server; ``requests`` holds the bodies, ``headers`` the headers of what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Any = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address, with the version."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def plan(self, script: Any) -> None:
        """Say what the next requests are answered, and forget the last ones."""
        with self.lock:
            self.script, self.requests, self.headers = script, [], []

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        """Return what is planned for a request."""
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append(headers)
            script = self.script
        if isinstance(script, list):
            script = script[min(number, len(script) - 1)]
        answer = script(body) if callable(script) else script
        return {"text": answer} if isinstance(answer, str) else answer

    def scorer(self, door: str, **options: Any) -> Scorer:
        """Return a scorer that asks this server through one of the doors."""
        if door == "llm":
            given = {"timeout": 5.0, "max_retries": 2, **options}
            return load_scorer("llm:test-model", base_url=self.url, **given)
        if door == "langchain":
            return ChatModelScorer(LangChainModel(url=self.url), **options)
        return LLMScorer(LlamaIndexModel(url=self.url), **options)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = self.server.answer(body, {name.lower(): value for name, value in self.headers.items()})
        time.sleep(answer.get("delay", 0.0))
        status = answer.get("status", 200)
        payload = answer.get("body") or self._payload(answer, status)
        out = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(out)))
            for name, value in answer.get("headers", {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(out)
        except ConnectionError:
            self.close_connection = True

    def _payload(self, answer: dict[str, Any], status: int) -> Any:
        if status != 200:
            return {"error": answer.get("error", {"message": "refused on demand"})}
        message = {"role": "assistant", "content": answer.get("text"), "refusal": answer.get("refusal")}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": answer.get("finish", "stop")}
        if "top_logprobs" in answer:
            top = [{"token": token, "logprob": value} for token, value in answer["top_logprobs"].items()]
            choice["logprobs"] = {"content": [{"token": "5", "logprob": 0.0, "top_logprobs": top}]}
        usage = answer.get("usage", {"prompt_tokens": 100, "completion_tokens": 10})
        return {"id": "chat-1", "choices": [choice], **({"usage": usage} if usage else {})}

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class StatusError(Exception):
    """What the SDKs raise, in its essentials."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


async def _post(url: str, messages: list[dict[str, str]], **fields: Any) -> Any:
    async with httpx.AsyncClient(timeout=5.0) as client:
        body = {"model": "test-model", "messages": messages, **fields}
        response = await client.post(f"{url}/chat/completions", json=body)
    if response.status_code != 200:
        raise StatusError(response.status_code)
    return response.json()


class LangChainModel(BaseChatModel):
    """A LangChain chat model without structured output, at the server."""

    url: str

    @property
    def _llm_type(self) -> str:
        return "test"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "test-model"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        roles = {"human": "user", "ai": "assistant", "system": "system"}
        asked = [{"role": roles[message.type], "content": str(message.content)} for message in messages]
        reply = await _post(self.url, asked, **kwargs)
        choice, usage = reply["choices"][0], reply.get("usage")
        message = AIMessage(
            choice["message"]["content"] or "",
            response_metadata={"finish_reason": choice["finish_reason"], "logprobs": choice.get("logprobs")},
            usage_metadata=usage
            and {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class LlamaIndexModel(CustomLLM):
    """A LlamaIndex LLM without function calling, at the server."""

    url: str

    @property
    def metadata(self) -> LLMMetadata:
        """Name the model."""
        return LLMMetadata(model_name="test-model", is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Not asked."""
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Not asked."""
        raise NotImplementedError

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask the server."""
        asked = [{"role": message.role.value, "content": message.content or ""} for message in messages]
        reply = await _post(self.url, asked, **kwargs)
        content = reply["choices"][0]["message"]["content"] or ""
        return ChatResponse(message=ChatMessage(role="assistant", content=content), raw=reply)


@contextmanager
def serving() -> Iterator[ChatServer]:
    """Start the server, and stop it at the end."""
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


Script = Callable[[dict[str, Any]], Any]
