"""What a provider is, and what one call needs of a scorer and of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import SecretStr

from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.pricing import Price
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.options import RemoteOptions
from rerank_core.remote.rate_limit import RateLimiter
from rerank_core.remote.response import ParsedReply
from rerank_core.scorer import Scale

__all__ = ["ClientSession", "RemoteModel", "Service", "Transport"]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A provider, or a kind of server.

    Attributes:
        provider: what stands before the colon of a scorer's name.
        base_url: its address; None where its SDK knows it, or every user has another one.
        address_variables: environment variables that may hold another address.
        key_variables: environment variables that may hold the key; the first one that is set wins.
        key_required: whether there must be a key.
        keys_by_host: variables that are looked at for hosts that end in this, and for no others.
        limits: of one request, whatever the model.
        models: what is known of its models, by name.
        default: what holds for models that are known nowhere.
    """

    provider: str
    base_url: str | None = None
    address_variables: Sequence[str] = ()
    key_variables: Sequence[str] = ()
    key_required: bool = True
    keys_by_host: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    default: ModelFacts = field(default_factory=ModelFacts)


class Transport(Protocol):
    """One service's client: sends a request once each time it is told to."""

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        """Send one request; a failure is returned, not raised, so that no traceback holds a key or a text."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close the connections; may be called again."""


class RemoteModel(Protocol):
    """What one call needs of the scorer that it is made for."""

    name: str
    scale: Scale
    listwise: bool
    model_facts: ModelFacts

    @property
    def options(self) -> RemoteOptions:
        """The scorer's options."""

    @property
    def price(self) -> Price | None:
        """The model's price, None where it is not known."""

    def full_query(self, query: str) -> str:
        """Return the query as it is sent."""

    async def fetch_key(self) -> SecretStr:
        """Return the key to send, empty for none."""


@dataclass(slots=True)
class ClientSession:
    """What belongs to one event loop: the client with its connections, and the limiter.

    Attributes:
        loop: the event loop.
        transport: the client.
        limiter: says when a request may be sent.
        scale_doubted: whether it was said that the scores do not look like the scale's.
    """

    loop: asyncio.AbstractEventLoop
    transport: Transport
    limiter: RateLimiter
    scale_doubted: bool = False
