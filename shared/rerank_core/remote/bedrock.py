"""The rerank models on Amazon Bedrock, through boto3."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import anyio.to_thread
import httpx
from pydantic import SecretStr

from rerank_core._call.event_loop import run_work
from rerank_core._support.extras import require
from rerank_core.errors import AuthenticationError, ConfigurationError, MissingKeyError, RequestTooLargeError
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.pricing import Price, price_of
from rerank_core.remote.body import max_reply_bytes
from rerank_core.remote.client import HttpClient, failure_of, first_variable
from rerank_core.remote.failure import RequestFailure, find_value
from rerank_core.remote.response import (
    BYTES_PER_STEP,
    HttpReply,
    ParsedReply,
    ResponseFormat,
    parse_json,
    read_reply,
)
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions, Service, Transport
from rerank_core.types import Scored

__all__ = ["SERVICE", "BedrockOptions", "BedrockScorer"]

_MAX_CHARS = 32_000
_FORMAT = ResponseFormat(score="relevanceScore")

SERVICE = Service(
    provider="bedrock",
    key_variables=("AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
    key_required=False,
    limits=Limits(documents=1000, multiple=100),
    models=MappingProxyType(
        {"amazon.rerank-v1:0": ModelFacts(), "cohere.rerank-v3-5:0": ModelFacts(Limits(document=4096))}
    ),
)


@dataclass(frozen=True, kw_only=True)
class BedrockOptions(RemoteOptions):
    """Options of :class:`BedrockScorer`; ``body`` holds the ``additionalModelRequestFields``.

    Attributes:
        region: such as ``"us-west-2"``; by default that of the model's ARN, else of the AWS configuration.
        profile: of the AWS configuration.
    """

    region: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api_key is not None:
            raise ConfigurationError(
                "AWS signs requests with credentials, so there is no api_key=: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give profile="
            )
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigurationError("body holds what JSON cannot: give strings, numbers, lists, …") from None


class BedrockScorer(RemoteScorer):
    """A rerank model on Amazon Bedrock: ``amazon.rerank-v1:0``, ``cohere.rerank-v3-5:0``, or its ARN.

    Credentials come from where boto3 looks for them (environment, ``~/.aws``, SSO, roles) when the first request
    is sent. A request holds at most 1,000 documents. Of a text 32,000 characters are sent; ``usage.truncated``
    counts longer ones. The address is ``base_url``, else what boto3 is configured for, else the region's. Requests
    are signed by boto3 and sent like those of all services; give certificates by ``http_client``.
    """

    Options: ClassVar[type[RemoteOptions]] = BedrockOptions
    options: BedrockOptions
    provider = "bedrock"
    service = SERVICE
    sdk = "boto3"
    options_without_effect_on_scores = RemoteScorer.options_without_effect_on_scores | {"profile", "region"}

    @property
    def price(self) -> Price | None:
        """The price of the model, whatever the region in its ARN."""
        return price_of(f"{self.provider}:{self.model.rpartition('/')[2]}", self.model, self.options.prices)

    def open_transport(self) -> Transport:
        """Return a client of boto3.

        Raises:
            AuthenticationError: there are no credentials, or no profile of that name.
            ConfigurationError: there is no region.
        """
        return _BedrockTransport(self)

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, in requests of at most 1,000.

        Raises:
            RequestTooLargeError: the query has more than 32,000 characters.
            ScorerError: a request failed for good; its ``partial`` holds the scores of those that did not.
        """
        if len(query) > _MAX_CHARS:
            raise RequestTooLargeError(
                f"takes a query of {_MAX_CHARS} characters, and got {len(query)}: shorten it"
            )
        too_long = sum(len(text) > _MAX_CHARS for text in texts)
        scored = await super().score(query, [text[:_MAX_CHARS] for text in texts] if too_long else texts)
        truncated = max(too_long, scored.usage.truncated)
        return replace(scored, usage=replace(scored.usage, truncated=truncated))

    def _check_model(self) -> None:
        super()._check_model()
        if self.model.startswith("arn:") and self.model.count(":") < 5:
            raise ConfigurationError(
                "is no ARN: give one such as 'arn:aws:bedrock:us-west-2::foundation-model/amazon.rerank-v1:0'"
            )

    def _find_key(self) -> SecretStr:
        return SecretStr("")


class _SignedError(Exception):
    """Ends a call of boto3 once its request is signed, in place of sending it."""

    def __init__(self, request: Any) -> None:
        self.request = request


def _raise_signed(request: Any, **_: Any) -> NoReturn:
    raise _SignedError(request)


class _BedrockTransport(HttpClient):
    def __init__(self, scorer: BedrockScorer) -> None:
        super().__init__(scorer.options)
        boto3, config, errors = (
            require(name, extra="bedrock", purpose=scorer.name)
            for name in ("boto3", "botocore.config", "botocore.exceptions")
        )
        options, model = scorer.options, scorer.model
        self._error: type[Exception] = errors.BotoCoreError
        region = options.region or (model.split(":")[3] if model.startswith("arn:") else None)
        try:
            session = boto3.Session(profile_name=options.profile, region_name=region)
            region = session.region_name or first_variable(("AWS_REGION",))
            if region is None:
                raise ConfigurationError("has no region: give region=, or set AWS_DEFAULT_REGION")
            if session.get_credentials() is None:
                raise MissingKeyError(
                    "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in by 'aws sso login', "
                    "or give profile="
                )
            self._client = session.client(
                "bedrock-agent-runtime",
                region_name=region,
                endpoint_url=scorer.base_url,
                config=config.Config(retries={"total_max_attempts": 1}),
            )
            partition = session.get_partition_for_region(region)
        except self._error as exc:
            raise AuthenticationError(
                f"boto3 cannot be set up ({type(exc).__name__}): check profile=, region= and the AWS configuration"
            ) from exc
        self._client.meta.events.register_last("before-send.bedrock-agent-runtime.Rerank", _raise_signed)
        arn = model if model.startswith("arn:") else f"arn:{partition}:bedrock:{region}::foundation-model/{model}"
        self._model = {"modelArn": arn, "additionalModelRequestFields": dict(options.body)}

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:  # noqa: ARG002
        fields: dict[str, Any] = {
            "queries": [{"type": "TEXT", "textQuery": {"text": query}}],
            "sources": [
                {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}
                for text in texts
            ],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": {
                    "numberOfResults": len(texts),
                    "modelConfiguration": self._model,
                },
            },
        }
        rows: list[tuple[object, object]] = []
        requests = 0
        while True:
            requests += 1
            try:
                signed = await self._sign(fields)
                most = max_reply_bytes(query, texts)
                reply = await self.fetch(signed.url, signed.headers, most, signed.body)
            except self._error as exc:
                return RequestFailure("key", message=f"no credentials ({type(exc).__name__})")
            except Exception as exc:
                return failure_of(exc)
            page, token = await run_work(2 * len(reply.body) // BYTES_PER_STEP, _read_page, reply)
            if isinstance(page, RequestFailure):
                return page.without_quotes(httpx.Headers(signed.headers).get("x-amz-security-token", ""), ())
            rows += page.rows
            if not token or token == fields.get("nextToken") or not page.rows or len(rows) >= len(texts):
                return replace(page, rows=rows, requests=requests)
            fields["nextToken"] = token

    async def _sign(self, fields: dict[str, Any]) -> Any:
        """Return the request as boto3 would send it; a thread, because credentials are fetched and renewed."""
        try:
            await anyio.to_thread.run_sync(partial(self._client.rerank, **fields), abandon_on_cancel=True)
        except _SignedError as signed:
            return signed.request


def _read_page(reply: HttpReply) -> tuple[ParsedReply | RequestFailure, object]:
    """Return what a reply says, and the token of the next page, None for the last one."""
    return read_reply(reply, _FORMAT), find_value(parse_json(reply.body), "nextToken")
