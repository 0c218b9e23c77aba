"""What a provider is, the options of a scorer that asks it, and what one call needs of both."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx
from pydantic import SecretStr

from rerank_core._support.checks import check_choice, check_count, check_seconds, check_text
from rerank_core.errors import ConfigurationError
from rerank_core.model_facts import Limits, ModelFacts
from rerank_core.pricing import Price, price_of
from rerank_core.remote.access import call_for_key
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import ParsedReply
from rerank_core.scorer import ConfiguredScorer, ScorerOptions

__all__ = ["RemoteModel", "RemoteOptions", "Service", "Transport"]

_SECRET_ENDINGS = ("authorization", "cookie", "key", "token", "secret")
_OPTIONAL_COUNTS = ("requests_per_minute", "tokens_per_minute", "documents_per_request")


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


@dataclass(frozen=True, kw_only=True)
class RemoteOptions(ScorerOptions):
    """Options of a scorer that asks a service.

    Attributes:
        api_key: by default the provider's environment variable. A function that returns it, async or not, is
            called for each request, as for tokens that expire (Entra, Google, IAM); it may block.
        base_url: the service's address, where it is not the usual one; no password in it.
        headers: further headers of each request. Pickles and dumps hold them, and are refused where one of these
            names is usual for secrets: ``Authorization``, ``Cookie``, or one that ends in ``key``, ``token`` or
            ``secret``.
        body: further fields of each request; a value of None removes the field.
        http_client: an ``httpx.AsyncClient`` to send by, for proxies, certificates and gateways; not closed.
        timeout: seconds that one request may take, above 0; a request that takes longer is repeated.
        max_retries: how often a request is repeated at most, at least 0, where that may help: after statuses
            408, 409, 424, 425, 429 and from 500 on, a failed connection or a timeout. Waits grow exponentially
            from 0.5 s to 20 s with full jitter, or last as long as the service asks (up to 60 s), and never go
            beyond the call's deadline.
        max_concurrency: requests under way at once, at least 1, of all calls together.
        requests_per_minute: requests begun in any 60 seconds, at least 1; None for no limit.
        tokens_per_minute: (estimated) tokens sent in any 60 seconds, at least 1; None for no limit.
        documents_per_request: at least 1; by default what the provider takes or recommends.
        instruction: what the model shall prefer, for models that follow an instruction.
        allow_split: let a listwise model score more texts than it takes in one request, in several requests; the
            scores of different requests are then not quite comparable.
        missing: what an answer with fewer scores than texts means: ``"error"``, or ``"lowest"``: texts that it
            leaves out come last, with the score 0.0 and a warning, for servers that leave some out. No scores at
            all are always an error.
        prices: prices that override or extend the list, by model: :class:`rerank_core.pricing.Price`, or a
            dictionary of its fields.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    api_key: SecretStr | str | Callable[[], Any] | None = field(default=None, repr=False)
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict)
    http_client: httpx.AsyncClient | None = field(default=None, repr=False)
    timeout: float = 60.0
    max_retries: int = 4
    max_concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    documents_per_request: int | None = None
    instruction: str | None = None
    allow_split: bool = False
    missing: Literal["error", "lowest"] = "error"
    prices: Mapping[str, Price | Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_seconds("timeout", self.timeout)
        check_count("max_retries", self.max_retries, least=0)
        check_count("max_concurrency", self.max_concurrency)
        for name in _OPTIONAL_COUNTS:
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if not (self.api_key is None or isinstance(self.api_key, (SecretStr, str)) or callable(self.api_key)):
            raise ConfigurationError(
                f"api_key is a {type(self.api_key).__name__}: give a string, a pydantic.SecretStr or a function"
            )
        if not isinstance(self.headers, Mapping) or not all(map(_is_header, self.headers.items())):
            raise ConfigurationError("headers are no dictionary of printable ASCII strings")
        if not isinstance(self.body, Mapping):
            raise ConfigurationError(f"body is a {type(self.body).__name__}: give a dictionary of request fields")
        if self.http_client is not None and not isinstance(self.http_client, httpx.AsyncClient):
            raise ConfigurationError(
                f"http_client is a {type(self.http_client).__name__}: give an httpx.AsyncClient"
            )
        check_choice("missing", self.missing, ("error", "lowest"))
        if self.instruction is not None:
            check_text("instruction", self.instruction)

    def check_headers(self) -> None:
        """Check that no header is likely to hold a secret, before the options are stored.

        Raises:
            ConfigurationError: one is; names it.
        """
        for name in self.headers:
            if name.lower().endswith(_SECRET_ENDINGS):
                raise ConfigurationError(
                    f"headers= holds {name!r}, which may be a secret, so it is not stored: give it as api_key=, "
                    "or make the scorer where it is used"
                )


class Transport(Protocol):
    """One service's client: sends a request once each time it is told to."""

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        """Send one request; a failure is returned, not raised, so that no traceback holds a key or a text."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close the connections; may be called again."""


class RemoteModel(ConfiguredScorer):
    """What one call needs of the scorer that it is made for."""

    options: RemoteOptions
    model_facts: ModelFacts
    _key: SecretStr

    @property
    def price(self) -> Price | None:
        """The price of the model, None where it is not known."""
        return price_of(self.name, self.model, self.options.prices)

    async def fetch_key(self) -> SecretStr:
        """Return the key to send with the next request, empty for none."""
        return await call_for_key(self.options.api_key) if callable(self.options.api_key) else self._key

    def full_query(self, query: str) -> str:
        """Return the query as it is sent: with the instruction before it, where there is one."""
        template, instruction = self.model_facts.instructions, self.options.instruction
        if instruction is None or template is None:
            return query
        return template.format(instruction=instruction, query=query)


def _is_header(item: tuple[object, object]) -> bool:
    return all(isinstance(part, str) and part.isascii() and part.isprintable() for part in item)
