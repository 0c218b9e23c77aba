"""The rerank models on Amazon Bedrock, through boto3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import SecretStr

from rerank_core._support.extras import require
from rerank_core.errors import AuthenticationError, ConfigurationError, MissingKeyError, RequestTooLargeError
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.pricing import Price, price_of
from rerank_core.remote.access import first_variable
from rerank_core.remote.client import max_reply_bytes
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import ParsedReply, ResponseFormat
from rerank_core.remote.service import RemoteOptions, Service, Transport
from rerank_core.remote.signed import SignedOptions, SignedScorer, SignedTransport, raise_signed
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
class BedrockOptions(SignedOptions):
    """Options of :class:`BedrockScorer`; ``body`` holds the ``additionalModelRequestFields``.

    The ``region`` is by default that of the model's ARN, else of the AWS configuration.
    """

    credentials: ClassVar[str] = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give profile="


class BedrockScorer(SignedScorer):
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


class _BedrockTransport(SignedTransport):
    def __init__(self, scorer: BedrockScorer) -> None:
        super().__init__(scorer.options)
        boto3, config, errors = (
            require(name, extra="bedrock", purpose=scorer.name)
            for name in ("boto3", "botocore.config", "botocore.exceptions")
        )
        options, model = scorer.options, scorer.model
        self.credential_error = errors.BotoCoreError
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
        except self.credential_error as exc:
            raise AuthenticationError(
                f"boto3 cannot be set up ({type(exc).__name__}): check profile=, region= and the AWS configuration"
            ) from exc
        self._client.meta.events.register_last("before-send.bedrock-agent-runtime.Rerank", raise_signed)
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
            page = await self.ask(partial(self._client.rerank, **fields), max_reply_bytes(query, texts), _FORMAT)
            if isinstance(page, RequestFailure):
                return replace(page, requests=requests)
            rows += page.rows
            token = page.next_page
            if not token or token == fields.get("nextToken") or not page.rows or len(rows) >= len(texts):
                return replace(page, rows=rows, requests=requests)
            fields["nextToken"] = token
