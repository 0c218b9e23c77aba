"""Language models behind an OpenAI-compatible chat endpoint, as judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import anyio
from pydantic import SecretStr

from rerank_core._call.asking import add_consumption, answer_deadline
from rerank_core._call.event_loop import run_work
from rerank_core.errors import ConfigurationError
from rerank_core.llm.answer import Reply
from rerank_core.llm.options import JudgeOptions
from rerank_core.llm.prompt import Question
from rerank_core.llm.scorer import JudgeScorer
from rerank_core.model_facts import ModelFacts
from rerank_core.remote.body import encode_json
from rerank_core.remote.client import HttpClient, failure_of, first_variable, join_address
from rerank_core.remote.failure import RequestFailure, find_request_id, find_value, read_refusal, to_number
from rerank_core.remote.response import BYTES_PER_STEP, COST_HEADER, find_number, parse_json
from rerank_core.remote.retries import send_with_retries
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions, Service
from rerank_core.usage import Usage

__all__ = ["SERVICE", "ChatOptions", "ChatScorer"]

_ADDRESS = "OPENAI_BASE_URL"
_KEY = "OPENAI_API_KEY"

SERVICE = Service(
    provider="llm",
    base_url="https://api.openai.com/v1",
    address_variables=(_ADDRESS,),
    key_required=False,
    keys_by_host={
        "api.openai.com": _KEY,
        ".openai.azure.com": "AZURE_OPENAI_API_KEY",
        "openrouter.ai": "OPENROUTER_API_KEY",
    },
    default=ModelFacts(instructions="{instruction}\n{query}"),
)

_REFUSED_FIELD = frozenset({400, 404, 415, 422, 500, 501})
_FORMAT = "response_format"
_MAX_BYTES = 4_000_000
"""Of a reply: a judge writes some bytes for each text, and thinks before that."""


@dataclass(frozen=True, kw_only=True)
class ChatOptions(JudgeOptions, RemoteOptions):
    """Options of :class:`ChatScorer`.

    Attributes:
        reasoning: how much the model shall think before it answers, as the service names it; by default as little
            as it allows. None to leave it to the service. Thinking costs more and does not rank better on average
            (arXiv 2510.08985).
        temperature: by default 0, where the model takes it; None to leave it to the service.
    """

    reasoning: str | None = "none"
    temperature: float | None = 0.0

    def __post_init__(self) -> None:
        RemoteOptions.__post_init__(self)
        JudgeOptions.__post_init__(self)
        if self.documents_per_request is not None or self.allow_split:
            raise ConfigurationError("takes neither documents_per_request= nor allow_split=: give window=")


class ChatScorer(JudgeScorer, RemoteScorer):
    """A language model that judges texts, behind any OpenAI-compatible endpoint ``/v1/chat/completions``.

    ``model`` is the model's name, or an address and the name:
    ``"http://127.0.0.1:11434/v1#qwen3:8b"``. The address is ``base_url``, else ``OPENAI_BASE_URL``, else OpenAI's:
    OpenAI, Azure (``https://<resource>.openai.azure.com/openai/v1``), OpenRouter, vLLM, SGLang, Ollama, LM Studio,
    llama.cpp, LiteLLM. The key is ``api_key``, else the variable of the host: ``OPENAI_API_KEY`` for OpenAI's and
    the address in ``OPENAI_BASE_URL``, ``AZURE_OPENAI_API_KEY``, ``OPENROUTER_API_KEY``; other hosts get none.

    Answers are asked for by a strict JSON schema; where the server refuses that, as a JSON object, and then as
    text. What it refused is remembered until the connection is closed.
    """

    Options: ClassVar[type[Any]] = ChatOptions
    options: ChatOptions
    provider = "llm"
    service = SERVICE

    options_without_effect_on_scores = (
        JudgeScorer.options_without_effect_on_scores | RemoteScorer.options_without_effect_on_scores
    )

    def __init__(self, model: str = "", **options: Any) -> None:
        given = model.strip() if isinstance(model, str) else ""
        if given.startswith(("http://", "https://")):
            options["base_url"], _, given = given.partition("#")
        super().__init__(given, **options)

    def open_transport(self) -> Any:
        """Return an HTTP client."""
        return _ChatClient(self)

    async def ask(self, question: Question) -> Reply:
        """Ask the server, again where that may help."""
        session = await self._open_session()
        key = SecretStr("")
        tokens = sum(len(content) for _, content in question.messages) // 3

        async def attempt() -> Reply | RequestFailure:
            nonlocal key
            async with session.limiter.slot(tokens):
                try:
                    key = await self.fetch_key()
                except Exception as exc:
                    return RequestFailure("key", message=f"api_key= raised {type(exc).__name__}")
                with anyio.move_on_after(self.options.timeout):
                    return await cast("_ChatClient", session.transport).ask(key, question)
            return RequestFailure("timeout", message=f"no answer within timeout={self.options.timeout} s")

        outcome, attempts = await send_with_retries(
            attempt,
            self,
            session.limiter,
            deadline=answer_deadline(),
            before_retry=partial(add_consumption, Usage(requests=1, retries=1)),
        )
        if isinstance(outcome, RequestFailure):
            private = [content for _, content in question.messages]
            raise outcome.without_quotes(key.get_secret_value(), private).to_error(attempts)
        return outcome

    def _find_key(self) -> SecretStr:
        from_variable = not self.options.base_url and first_variable((_ADDRESS,)) is not None
        required = self.base_url == SERVICE.base_url
        self.service = replace(
            SERVICE, key_variables=(_KEY,) if from_variable or required else (), key_required=required
        )
        return super()._find_key()


class _ChatClient(HttpClient):
    """The connection, and which optional fields the server takes."""

    def __init__(self, scorer: ChatScorer) -> None:
        options = scorer.options
        super().__init__(options)
        self._url = join_address(scorer.base_url or "", "/v1/chat/completions")
        self._model, self._body = scorer.model, options.body
        efforts: list[object] = [options.reasoning]
        self._choices: dict[str, list[object]] = {
            _FORMAT: ["json_schema", "json_object", None],
            "reasoning_effort": ["none", "minimal", None] if options.reasoning == "none" else efforts,
            "temperature": [0.0, None] if options.temperature == 0.0 else [options.temperature],
        }
        self._chosen = dict.fromkeys(self._choices, 0)

    async def ask(self, key: SecretStr, question: Question) -> Reply | RequestFailure:
        """Send a question; where the server refuses an optional field, without it, and remember what it took."""
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        chosen = dict(self._chosen)
        while True:
            try:
                content = encode_json(self._make_body(question, chosen))
                reply = await self.fetch(self._url, headers, _MAX_BYTES, content)
            except Exception as exc:
                return failure_of(exc)
            payload = await run_work(len(reply.body) // BYTES_PER_STEP, parse_json, reply.body)
            status = reply.status
            if 200 <= status < 300 and find_value(payload, "error") is None:
                self._chosen = chosen
                return _read_completion(payload, reply.headers, status)
            if status < 400:  # OpenRouter reports a provider's error with status 200
                code = to_number(find_value(payload, "error.code"))
                status = int(code) if code is not None and 400 <= code < 600 else 502
            failure = read_refusal(status, reply.headers, payload)
            if find_value(payload, "error.code") == "content_filter":  # Azure, of the prompt
                return Reply(finish="content_filter", output_tokens=0)
            field = self._field_to_blame(failure, payload, chosen, question)
            if field is None:
                return failure
            chosen[field] += 1
            add_consumption(Usage(requests=1))

    def _make_body(self, question: Question, chosen: Mapping[str, int]) -> dict[str, Any]:
        fields = {name: self._choices[name][number] for name, number in chosen.items()}
        schema = question.schema
        if fields[_FORMAT] is not None:
            form: dict[str, Any] = {"type": fields[_FORMAT]}
            if form["type"] == "json_schema" and schema is not None:
                bare = {name: value for name, value in schema.items() if name not in ("title", "description")}
                form["json_schema"] = {"name": schema["title"], "strict": True, "schema": bare}
            fields[_FORMAT] = form if schema is not None else None
        if question.logprobs:
            fields |= {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}
        messages = [{"role": role, "content": content} for role, content in question.messages]
        body = {"model": self._model, "messages": messages, "stream": False, **fields, **self._body}
        return {name: value for name, value in body.items() if value is not None}

    def _field_to_blame(
        self, failure: RequestFailure, payload: object, chosen: Mapping[str, int], question: Question
    ) -> str | None:
        """Return the optional field that a refusal is about; None where it is about something else."""
        if failure.kind != "status" or failure.status not in _REFUSED_FIELD:
            return None
        left = [name for name, number in chosen.items() if number + 1 < len(self._choices[name])]
        said = f"{find_value(payload, 'error.param')} {failure.message}".lower()
        for name in left:
            if name in said or (name == _FORMAT and "schema" in said):
                return name
        # Some servers do not say what they refuse; the format is what most of them do not know.
        unsaid = failure.status in (400, 422) and not any(name in said for name in ("context", "token", "length"))
        return _FORMAT if unsaid and _FORMAT in left and question.schema is not None else None


def _read_completion(payload: object, headers: Mapping[str, str], status: int) -> Reply | RequestFailure:
    """Return what a chat completion says."""
    choices = find_value(payload, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    content, finish = find_value(choice, "message.content"), find_value(choice, "finish_reason")
    refusal = find_value(choice, "message.refusal")
    if isinstance(content, list):  # parts, as Mistral's reasoning models answer
        content = "".join(str(find_value(part, "text") or "") for part in content)
    if choice is None or not isinstance(content, (str, type(None))):
        return RequestFailure("invalid", status, "the reply holds no message", request_id=find_request_id(headers))
    tokens, output = (
        find_number(payload, "usage.prompt_tokens", "usage.input_tokens"),
        find_number(payload, "usage.completion_tokens", "usage.output_tokens"),
    )
    first = find_value(choice, "logprobs.content")
    top = find_value(first[0], "top_logprobs") if isinstance(first, list) and first else None
    cost = to_number(headers.get(COST_HEADER))
    return Reply(
        text=content or "",
        finish="refusal" if refusal and not content and finish != "content_filter" else str(finish or ""),
        logprobs=_read_logprobs(top),
        input_tokens=None if tokens is None else int(tokens),
        output_tokens=None if output is None else int(output),
        cost=find_number(payload, "usage.cost") if cost is None else cost,
    )


def _read_logprobs(top: object) -> dict[str, float]:
    """Return the log-probabilities of the first token's candidates, without what is none."""
    found = {}
    for entry in top if isinstance(top, list) else ():
        token, logprob = find_value(entry, "token"), find_value(entry, "logprob")
        if isinstance(token, str) and isinstance(logprob, (int, float)):
            found[token] = float(logprob)
    return found
