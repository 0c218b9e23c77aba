"""Cohere's rerank models, through Cohere's own SDK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
from pydantic import SecretStr

from rerank_core._call.event_loop import run_work
from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import require
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.remote.body import IDENTITY, ExpectedReply, fetch, max_reply_bytes
from rerank_core.remote.client import HttpClient, failure_of, lower_names
from rerank_core.remote.failure import RequestFailure, find_request_id, find_value, read_refusal
from rerank_core.remote.response import BYTES_PER_STEP, ParsedReply, find_number, parse_json
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions, Service, Transport
from rerank_core.types import Passage

if TYPE_CHECKING:
    import cohere

__all__ = ["SERVICE", "CohereOptions", "CohereScorer"]

_TOKENS = ("meta.billed_units.input_tokens", "meta.billed_units.text_tokens", "meta.tokens.input_tokens")
_KNOWN = ModelFacts(Limits(document=4096))
_OF_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")

_expected: ContextVar[ExpectedReply] = ContextVar("rerank_core_cohere_expected")
"""The reply to the request under way; the SDK hands nothing to the transport."""
_EMPTY_REPLY = b'{"id": "", "results": []}'

SERVICE = Service(
    provider="cohere",
    address_variables=("CO_API_URL",),
    key_variables=("CO_API_KEY", "COHERE_API_KEY"),
    limits=Limits(documents=1000, multiple=100),
    models=MappingProxyType(
        {
            "rerank-english-v2.0": replace(_KNOWN, successor="rerank-v3.5"),
            "rerank-english-v3.0": _KNOWN,
            "rerank-multilingual-v2.0": replace(_KNOWN, successor="rerank-v3.5"),
            "rerank-multilingual-v3.0": _KNOWN,
            "rerank-v3.5": _KNOWN,
            "rerank-v4.0-fast": _KNOWN,
            "rerank-v4.0-pro": _KNOWN,
            "rerank-v5.0-fast": _KNOWN,
            "rerank-v5.0-pro": _KNOWN,
        }
    ),
)


@dataclass(frozen=True, kw_only=True)
class CohereOptions(RemoteOptions):
    """Options of :class:`CohereScorer`.

    Attributes:
        max_tokens_per_doc: tokens of a document that are read, at least 1; Cohere's default is 4,096.
        priority: how early Cohere handles the request under load, from 0, which is first.
        relevant_spans: ask for the spans that a score is about (models from rerank-v5.0 on); the best one is the
            ranked document's passage.
    """

    max_tokens_per_doc: int | None = None
    priority: int | None = None
    relevant_spans: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens_per_doc is not None:
            check_count("max_tokens_per_doc", self.max_tokens_per_doc, least=1)
        if self.priority is not None:
            check_count("priority", self.priority, least=0)
        check_choice("relevant_spans", self.relevant_spans, (True, False))


class CohereScorer(RemoteScorer):
    """A rerank model of Cohere, such as ``rerank-v3.5``.

    A request holds at most 1,000 documents, as Cohere recommends, and a multiple of 100 where the call needs
    several, because 100 documents make one search unit. The key is ``api_key``, else ``CO_API_KEY``, else
    ``COHERE_API_KEY``; the address ``base_url`` (without ``/v1``), else ``CO_API_URL``, else Cohere's. No model
    follows an ``instruction``.
    """

    Options: ClassVar[type[RemoteOptions]] = CohereOptions
    options: CohereOptions
    provider = "cohere"
    service = SERVICE
    sdk = "cohere"

    def open_transport(self) -> Transport:
        """Return a client of Cohere's SDK."""
        return _CohereTransport(self)

    def _find_model_facts(self) -> ModelFacts:
        return super()._find_model_facts().cut_at(self.options.max_tokens_per_doc)


class _CohereTransport(HttpClient):
    def __init__(self, scorer: CohereScorer) -> None:
        super().__init__(scorer.options)
        sdk: Any = require("cohere", extra="cohere", purpose=scorer.name)
        self._api_error: type[Any] = require("cohere.core", extra="cohere", purpose=scorer.name).ApiError
        options = scorer.options
        # What the user's client adds to a request is added by the outer one, which makes the requests.
        limited = httpx.AsyncClient(
            transport=_LimitedTransport(self.client),
            headers=self.client.headers,
            params=self.client.params,
            cookies=self.client.cookies,
        )
        self._sdk: cohere.AsyncClientV2 = sdk.AsyncClientV2(
            "sent with each request",
            **({"base_url": scorer.base_url} if scorer.base_url else {}),
            timeout=options.timeout,
            httpx_client=limited,
        )
        fields: dict[str, Any] = {"max_tokens_per_doc": options.max_tokens_per_doc, "priority": options.priority}
        if options.relevant_spans:
            fields["relevant_spans"] = {"mode": "enabled"}
        self._fields = {name: value for name, value in {**fields, **options.body}.items() if value is not None}
        self._model = scorer.model

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        request_options: Any = {
            "max_retries": 0,
            "additional_headers": {
                **IDENTITY,
                "Authorization": f"Bearer {key.get_secret_value()}",
                **self._headers,
            },
            "additional_body_parameters": self._fields,
        }
        expected = ExpectedReply(max_reply_bytes(query, texts))
        token = _expected.set(expected)
        try:
            await self._sdk.rerank(
                model=self._model,
                query=query,
                documents=texts,
                top_n=len(texts),
                request_options=request_options,
            )
            return await run_work(len(expected.body) // BYTES_PER_STEP, _read_reply, expected.body, texts)
        except self._api_error as exc:
            return read_refusal(exc.status_code, lower_names(exc.headers), exc.body)
        except Exception as exc:
            return failure_of(exc)
        finally:
            _expected.reset(token)


class _LimitedTransport(httpx.AsyncBaseTransport):
    """Sends by another client, and keeps successful replies from the SDK."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        expected = _expected.get()
        response, body = await fetch(self._client, request, expected.max_bytes)
        if response.is_success:
            expected.body, body = body, _EMPTY_REPLY
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_BODY]
        return httpx.Response(response.status_code, headers=headers, content=body)


def _read_reply(body: bytes, texts: Sequence[str]) -> ParsedReply | RequestFailure:
    payload = parse_json(body)
    results = find_value(payload, "results")
    if not isinstance(results, list):
        return RequestFailure("invalid", 200, "the reply is not JSON, or has no list of results")
    tokens = find_number(payload, *_TOKENS)
    return ParsedReply(
        [(find_value(result, "index"), find_value(result, "relevance_score")) for result in results],
        tokens=None if tokens is None else int(tokens),
        search_units=find_number(payload, "meta.billed_units.search_units"),
        request_id=find_request_id({"x-request-id": find_value(payload, "id")}),
        passages=dict(_read_passages(results, texts)),
    )


def _read_passages(results: Sequence[Any], texts: Sequence[str]) -> Iterator[tuple[int, Passage]]:
    """Return the best span of each result that has one within its text."""
    for result in results:
        index, spans = find_value(result, "index"), find_value(result, "relevant_spans")
        if isinstance(index, int) and 0 <= index < len(texts) and isinstance(spans, list) and spans:
            start, end = find_value(spans[0], "start"), find_value(spans[0], "end")
            if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(texts[index]):
                yield index, Passage(start, end)
