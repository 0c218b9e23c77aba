"""Language models behind an OpenAI-compatible chat endpoint, as judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

from pydantic import SecretStr

from rerank_core._call.asking import add_consumption
from rerank_core._call.event_loop import run_work
from rerank_core.errors import ConfigurationError, ScorerError
from rerank_core.llm.answer import Reply
from rerank_core.llm.prompt import Question
from rerank_core.llm.scorer import JudgeOptions, JudgeScorer
from rerank_core.model_facts import ModelFacts
from rerank_core.remote.access import first_variable, join_address
from rerank_core.remote.client import HttpClient, encode_json, failure_of
from rerank_core.remote.failure import RequestFailure, find_request_id, find_value, read_refusal, to_number
from rerank_core.remote.response import BYTES_PER_STEP, find_cost, find_count, parse_json
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
        client = cast("_ChatClient", session.transport)
        contents = [content for _, content in question.messages]

        def begin_retry() -> bool:
            add_consumption(Usage(requests=1, retries=1))
            return True

        reply, _ = await session.send(
            self,
            partial(client.ask, question),
            tokens=sum(map(len, contents)) // 3,
            private=lambda: contents,
            begin_retry=begin_retry,
        )
        if isinstance(reply, ScorerError):
            raise reply
        return reply

    def _find_key(self) -> SecretStr:
        is_address_given = self.options.base_url or first_variable((_ADDRESS,)) is None
        further = () if is_address_given else (_KEY,)
        return self._look_up_key(*further, required=self.base_url == SERVICE.base_url)


class _ChatClient(HttpClient):
    """The connection, and which optional fields the server takes."""

    def __init__(self, scorer: ChatScorer) -> None:
        options = scorer.options
        super().__init__(options)
        self._url = join_address(scorer.base_url or "", "/v1/chat/completions")
        self._model, self._body = scorer.model, options.body
        self._choices: dict[str, Sequence[object]] = {
            _FORMAT: ("json_schema", "json_object", None),
            "reasoning_effort": ("none", "minimal", None) if options.reasoning == "none" else (options.reasoning,),
            "temperature": (0.0, None) if options.temperature == 0.0 else (options.temperature,),
        }

    async def ask(self, question: Question, key: SecretStr) -> Reply | RequestFailure:
        """Send a question; where the server refuses an optional field, without it, and remember what it took."""
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        choices = dict(self._choices)
        while True:
            try:
                content = encode_json(self._make_body(question, choices))
                reply = await self.fetch(self._url, headers, _MAX_BYTES, content)
            except Exception as exc:
                return failure_of(exc)
            payload = await run_work(len(reply.body) // BYTES_PER_STEP, parse_json, reply.body)
            status = reply.status
            if 200 <= status < 300 and find_value(payload, "error") is None:
                self._choices = choices
                return _read_completion(payload, reply.headers, status)
            if status < 400:  # OpenRouter reports a provider's error with status 200
                code = to_number(find_value(payload, "error.code"))
                status = int(code) if code is not None and 400 <= code < 600 else 502
            failure = read_refusal(status, reply.headers, payload)
            if find_value(payload, "error.code") == "content_filter":  # Azure, of the prompt
                return Reply(finish="content_filter", output_tokens=0)
            field = _find_refused_field(failure, payload, choices, question)
            if field is None:
                return failure
            choices[field] = choices[field][1:]
            add_consumption(Usage(requests=1))

    def _make_body(self, question: Question, choices: Mapping[str, Sequence[object]]) -> dict[str, Any]:
        fields: dict[str, Any] = {name: values[0] for name, values in choices.items()}
        form, schema = fields.pop(_FORMAT), question.schema
        if form is not None and schema is not None:
            fields[_FORMAT] = {"type": form}
            if form == "json_schema":
                bare = {name: value for name, value in schema.items() if name not in ("title", "description")}
                fields[_FORMAT][form] = {"name": schema["title"], "strict": True, "schema": bare}
        if schema is None:
            fields |= {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}
        messages = [{"role": role, "content": content} for role, content in question.messages]
        body = {"model": self._model, "messages": messages, "stream": False, **fields, **self._body}
        return {name: value for name, value in body.items() if value is not None}


def _find_refused_field(
    failure: RequestFailure, payload: object, choices: Mapping[str, Sequence[object]], question: Question
) -> str | None:
    """Return the optional field that a refusal is about; None where it is about something else."""
    if failure.kind != "status" or failure.status not in _REFUSED_FIELD:
        return None
    left = [name for name, values in choices.items() if len(values) > 1]
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
    if isinstance(content, list):  # parts, as Mistral's reasoning models answer
        content = "".join(str(find_value(part, "text") or "") for part in content)
    if choice is None or not isinstance(content, (str, type(None))):
        return RequestFailure("invalid", status, "the reply holds no message", request_id=find_request_id(headers))
    if find_value(choice, "message.refusal") and not content and finish != "content_filter":
        finish = "refusal"
    return Reply(
        text=content or "",
        finish=str(finish or ""),
        logprobs=_read_logprobs(find_value(choice, "logprobs.content")),
        input_tokens=find_count(payload, "usage.prompt_tokens", "usage.input_tokens"),
        output_tokens=find_count(payload, "usage.completion_tokens", "usage.output_tokens"),
        cost=find_cost(headers, payload, "usage.cost"),
    )


def _read_logprobs(tokens: object) -> dict[str, float]:
    """Return the log-probabilities of the first token's candidates, without what is none."""
    top = find_value(tokens[0], "top_logprobs") if isinstance(tokens, list) and tokens else None
    entries = top if isinstance(top, list) else []
    rows = [(find_value(entry, "token"), find_value(entry, "logprob")) for entry in entries]
    return {
        name: float(value) for name, value in rows if isinstance(name, str) and isinstance(value, (int, float))
    }
