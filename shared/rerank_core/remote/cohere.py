"""Cohere's rerank models, through Cohere's own SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

from rerank_core._support.checks import checked_count
from rerank_core._support.extras import check_installed, require
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.remote.client import failure_of
from rerank_core.remote.options import RemoteOptions
from rerank_core.remote.response import ParsedReply, RequestFailure, find_number, read_refusal
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import Service, Transport

if TYPE_CHECKING:
    import cohere

__all__ = ["SERVICE", "CohereOptions", "CohereScorer"]

_KNOWN = ModelFacts(Limits(document=4096))

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
    """

    max_tokens_per_doc: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens_per_doc is not None:
            checked_count("max_tokens_per_doc", self.max_tokens_per_doc, least=1)


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

    def __init__(self, model: str = "", **options: Any) -> None:
        check_installed("cohere", extra="cohere", purpose="cohere:")
        super().__init__(model, **options)

    def open_transport(self) -> Transport:
        """Return a client of Cohere's SDK."""
        return _CohereTransport(self)

    def _find_model_facts(self) -> ModelFacts:
        facts = super()._find_model_facts()
        if self.options.max_tokens_per_doc is None:
            return facts
        return replace(facts, limits=replace(facts.limits, document=self.options.max_tokens_per_doc))


class _CohereTransport:
    def __init__(self, scorer: CohereScorer) -> None:
        sdk: Any = require("cohere", extra="cohere", purpose=scorer.name)
        self._api_error: type[Any] = require("cohere.core", extra="cohere", purpose=scorer.name).ApiError
        options = scorer.options
        self._http = httpx.AsyncClient(timeout=options.timeout)  # ours, so that it can be closed
        self._client: cohere.AsyncClientV2 = sdk.AsyncClientV2(
            scorer.secret(),
            **({"base_url": scorer.base_url} if scorer.base_url else {}),
            timeout=options.timeout,
            httpx_client=self._http,
        )
        self._options: dict[str, Any] = {"model": scorer.model}
        if options.max_tokens_per_doc is not None:
            self._options["max_tokens_per_doc"] = options.max_tokens_per_doc

    async def send(self, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        try:
            reply = await self._client.rerank(
                query=query,
                documents=texts,
                top_n=len(texts),
                request_options={"max_retries": 0},
                **self._options,
            )
            # The SDK checks no type, so what it returns may be anything.
            rows = [(result.index, result.relevance_score) for result in reply.results]
        except self._api_error as exc:
            headers = {name.lower(): value for name, value in (exc.headers or {}).items()}
            return read_refusal(exc.status_code, headers, exc.body)
        except Exception as exc:
            return failure_of(exc)
        tokens = find_number(reply, "meta.tokens.input_tokens")
        return ParsedReply(
            rows,
            None if tokens is None else int(tokens),
            find_number(reply, "meta.billed_units.search_units"),
            reply.id if isinstance(reply.id, str) else None,
        )

    async def aclose(self) -> None:
        await self._http.aclose()
