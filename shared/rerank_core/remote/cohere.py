"""Cohere's rerank models, through Cohere's own SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
from pydantic import SecretStr

from rerank_core._call.event_loop import arun_for_sdk
from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import require
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.remote.client import IDENTITY, HttpClient, failure_of, max_reply_bytes
from rerank_core.remote.failure import RequestFailure, find_request_id, find_value, read_refusal
from rerank_core.remote.response import ParsedReply, find_count, find_number
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions, Service, Transport
from rerank_core.types import Passage

if TYPE_CHECKING:
    import cohere

__all__ = ["SERVICE", "CohereOptions", "CohereScorer"]

_TOKENS = ("meta.billed_units.input_tokens", "meta.billed_units.text_tokens", "meta.tokens.input_tokens")
_KNOWN = ModelFacts(Limits(document=4096))
_OF_BODY = ("content-encoding", "content-length", "transfer-encoding")

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
        address = {"base_url": scorer.base_url} if scorer.base_url else {}
        self._open_sdk: Callable[..., cohere.AsyncClientV2] = partial(sdk.AsyncClientV2, **address)
        fields: dict[str, Any] = {"max_tokens_per_doc": options.max_tokens_per_doc, "priority": options.priority}
        if options.relevant_spans:
            fields["relevant_spans"] = {"mode": "enabled"}
        fields = {**fields, **options.body}
        self._request_options: Any = {
            "max_retries": 0,
            "additional_headers": {**IDENTITY, **options.headers},
            "additional_body_parameters": {name: value for name, value in fields.items() if value is not None},
        }
        self._model = scorer.model

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        return await arun_for_sdk(self._ask(asyncio.get_running_loop(), key, query, texts))

    async def _ask(
        self, loop: asyncio.AbstractEventLoop, key: SecretStr, query: str, texts: Sequence[str]
    ) -> ParsedReply | RequestFailure:
        transport = _LimitedTransport(self, loop, max_reply_bytes(query, texts))
        # What the user's client adds to a request is added by the SDK's, which makes the requests.
        client = httpx.AsyncClient(
            transport=transport,
            headers=self.client.headers,
            params=self.client.params,
            cookies=self.client.cookies,
        )
        try:
            reply = await self._open_sdk(
                key.get_secret_value(), timeout=self._timeout, httpx_client=client
            ).rerank(
                model=self._model,
                query=query,
                documents=texts,
                top_n=len(texts),
                request_options=self._request_options,
            )
            # The SDK checks no type, so what it returns may be anything.
            return ParsedReply(
                [(result.index, result.relevance_score) for result in reply.results],
                tokens=find_count(reply, *_TOKENS),
                search_units=find_number(reply, "meta.billed_units.search_units"),
                request_id=find_request_id({"x-request-id": reply.id}),
                passages=dict(_read_passages(reply.results, texts)),
            )
        except self._api_error as exc:
            return read_refusal(exc.status_code, httpx.Headers(exc.headers), exc.body)
        except Exception as exc:
            return failure_of(exc)


class _LimitedTransport(httpx.AsyncBaseTransport):
    """Sends by a client of another loop, which reads no more than so many bytes of a reply."""

    def __init__(self, client: HttpClient, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._client, self._loop, self._most = client, loop, most

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sending = self._client.send_request(request, self._most)
        reply = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sending, self._loop))
        headers = {name: value for name, value in reply.headers.items() if name not in _OF_BODY}
        return httpx.Response(reply.status, headers=headers, content=reply.body)


def _read_passages(results: Sequence[Any], texts: Sequence[str]) -> Iterator[tuple[int, Passage]]:
    """Return the best span of each result that has one within its text."""
    for result in results:
        index, spans = result.index, find_value(result, "relevant_spans")  # older SDKs know no spans
        if isinstance(index, int) and 0 <= index < len(texts) and isinstance(spans, list) and spans:
            start, end = find_value(spans[0], "start"), find_value(spans[0], "end")
            if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(texts[index]):
                yield index, Passage(start, end)
