"""The rerank models of OCI Generative AI, through Oracle's SDK."""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

from pydantic import SecretStr

from rerank_core._support.checks import check_count
from rerank_core._support.extras import require
from rerank_core.errors import AuthenticationError, ConfigurationError, MissingKeyError
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.remote.access import first_variable
from rerank_core.remote.client import encode_json, max_reply_bytes
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import ParsedReply, ResponseFormat
from rerank_core.remote.service import RemoteOptions, Service, Transport
from rerank_core.remote.signed import SignedOptions, SignedScorer, SignedTransport, raise_signed

__all__ = ["SERVICE", "OciOptions", "OciScorer"]

_FORMAT = ResponseFormat(results="documentRanks", score="relevanceScore")
_KNOWN = ModelFacts(Limits(document=4096))

SERVICE = Service(
    provider="oci",
    key_variables=("OCI_CONFIG_FILE",),
    key_required=False,
    limits=Limits(documents=1000, multiple=100),
    models=MappingProxyType(
        dict.fromkeys(("cohere.rerank.3-5", "cohere.rerank-v4.0-fast", "cohere.rerank-v4.0-pro"), _KNOWN)
    ),
)


@dataclass(frozen=True, kw_only=True)
class OciOptions(SignedOptions):
    """Options of :class:`OciScorer`; ``body`` has the JSON's names, such as ``maxChunksPerDocument``.

    Attributes:
        compartment_id: OCID of the compartment that is billed; by default ``OCI_COMPARTMENT_ID``.
        config_file: by default ``OCI_CONFIG_FILE``, else ``~/.oci/config``; ``profile`` is one of it.
        max_tokens_per_doc: tokens of a document that are read, at least 1; by default what the service reads.
    """

    credentials: ClassVar[str] = "run 'oci setup config', or give config_file= and profile="

    compartment_id: str | None = None
    config_file: str | None = None
    max_tokens_per_doc: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens_per_doc is not None:
            check_count("max_tokens_per_doc", self.max_tokens_per_doc, least=1)


class OciScorer(SignedScorer):
    """A rerank model on OCI Generative AI, such as ``cohere.rerank-v4.0-fast``, or an endpoint's OCID.

    The user, the key and the region come from OCI's configuration file when the first request is sent. A request
    holds at most 1,000 documents, as Cohere recommends. The address is ``base_url``, else the region's. Requests
    are signed by Oracle's SDK and sent like those of all services; give certificates by ``http_client``.
    """

    Options: ClassVar[type[RemoteOptions]] = OciOptions
    options: OciOptions
    provider = "oci"
    service = SERVICE
    sdk = "oci"
    options_without_effect_on_scores = SignedScorer.options_without_effect_on_scores | {
        "compartment_id",
        "config_file",
    }

    def open_transport(self) -> Transport:
        """Return a client of Oracle's SDK.

        Raises:
            AuthenticationError: there is no configuration file, no profile of that name, or no key in it.
            ConfigurationError: there is no compartment or no region.
        """
        return _OciTransport(self)

    def _find_model_facts(self) -> ModelFacts:
        return super()._find_model_facts().cut_at(self.options.max_tokens_per_doc)


class _OciTransport(SignedTransport):
    def __init__(self, scorer: OciScorer) -> None:
        super().__init__(scorer.options)
        oci, sdk = (
            require(name, extra="oci", purpose=scorer.name) for name in ("oci", "oci.generative_ai_inference")
        )
        options = scorer.options
        self.credential_error = oci.exceptions.ClientError
        compartment = options.compartment_id or first_variable(("OCI_COMPARTMENT_ID",))
        if compartment is None:
            raise ConfigurationError("has no compartment: give compartment_id=, or set OCI_COMPARTMENT_ID")
        file = options.config_file or first_variable(("OCI_CONFIG_FILE",)) or oci.config.DEFAULT_LOCATION
        try:
            config = oci.config.from_file(file, options.profile or oci.config.DEFAULT_PROFILE)
            region = options.region or config.get("region") or first_variable(("OCI_REGION",))
            if region is None:
                raise ConfigurationError("has no region: give region=, or set OCI_REGION")
            self._client = sdk.GenerativeAiInferenceClient(
                {**config, "region": region},
                service_endpoint=scorer.base_url,
                retry_strategy=oci.retry.NoneRetryStrategy(),
                circuit_breaker_strategy=oci.circuit_breaker.NoCircuitBreakerStrategy(),
            )
        except ConfigurationError:
            raise
        except oci.exceptions.ConfigFileNotFound as exc:
            raise MissingKeyError(f"no credentials at {file}: {options.credentials}") from exc
        except (oci.exceptions.ClientError, configparser.Error, OSError, ValueError) as exc:
            why = " ".join((type(exc).__name__, *getattr(exc, "errors", ())))
            raise AuthenticationError(
                f"Oracle's SDK cannot be set up ({why}): check profile=, region= and what {file} says"
            ) from exc
        session = self._client.base_client.session
        session.headers.clear()  # those of Oracle's HTTP client, which sends nothing
        for scheme in ("https://", "http://"):
            session.mount(scheme, SimpleNamespace(send=raise_signed))
        serving = {"servingType": "ON_DEMAND", "modelId": scorer.model}
        if scorer.model.startswith("ocid1.generativeaiendpoint."):
            serving = {"servingType": "DEDICATED", "endpointId": scorer.model}
        fields: dict[str, Any] = {
            "compartmentId": compartment,
            "servingMode": serving,
            "maxTokensPerDocument": options.max_tokens_per_doc,
            **options.body,
        }
        self._fields = {name: value for name, value in fields.items() if value is not None}

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:  # noqa: ARG002
        return await self.ask(partial(self._call, query, texts), max_reply_bytes(query, texts), _FORMAT)

    def _call(self, query: str, texts: Sequence[str]) -> Any:
        fields = {"input": query, "documents": list(texts), "topN": len(texts), **self._fields}
        return self._client.rerank_text(encode_json(fields))
