"""What the scorers of services share: their options, their connection, and one way to score."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
import weakref
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Protocol

import anyio.to_thread
from pydantic import SecretStr

from rerank_core.errors import ConfigurationError
from rerank_core.pricing import Price, price_of
from rerank_core.reading import Reading, WindowRequest, estimate_token_ends, estimate_tokens
from rerank_core.remote._access import checked_address, find_key
from rerank_core.remote.rate_limit import Limiter, Turns
from rerank_core.remote.response import Failure, Reply, Wire
from rerank_core.remote.splitting import Limits
from rerank_core.scorer import Scorer
from rerank_core.types import Scored

__all__ = ["ModelFacts", "RemoteScorer", "Service", "Session", "Transport"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known about a model; the default is what holds for one that is not known.

    Attributes:
        limits: what it takes in one request.
        instructions: how it reads an instruction before the query, as a template of ``{instruction}`` and
            ``{query}``; None where it follows none.
        listwise: a score depends on the other texts of the request.
        successor: the model to use instead, of one that was retired.
        cosine: its scores are cosines in [-1, 1], not probabilities.
    """

    limits: Limits = field(default_factory=Limits)
    instructions: str | None = None
    listwise: bool = False
    successor: str | None = None
    cosine: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A provider, or a kind of server.

    Attributes:
        provider: what stands before the colon of a scorer's name.
        key_variables: environment variables that may hold the key, the first one that is set wins.
        key_required: whether there must be a key.
        wire: where its answers keep what.
        models: what is known about its models.
        default: what holds for all others.
    """

    provider: str
    key_variables: Sequence[str] = ()
    key_required: bool = True
    wire: Wire = field(default_factory=Wire)
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    default: ModelFacts = field(default_factory=ModelFacts)


class Transport(Protocol):
    """One service's client: sends a request, as often as it is told to."""

    async def send(self, query: str, texts: Sequence[str]) -> Reply | Failure:
        """Send one request; a failure is returned, not raised, so that no traceback holds a key or a text."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close the connections; may be called again."""


@dataclass(frozen=True, slots=True)
class Session:
    """What belongs to one event loop: the client with its connections, and the limiter."""

    loop: asyncio.AbstractEventLoop
    transport: Transport
    limiter: Turns


@dataclass(frozen=True)
class RemoteScorer(Scorer):
    """A scorer that asks a service; subclasses are frozen dataclasses of their options.

    A copy keeps the key and none of the connections. A pickle holds no key: the copy that comes out of it looks
    in the environment again.

    Attributes:
        model: the model's name; one that is not known is used as it is, without limits or price of its own.
        api_key: by default the provider's environment variable.
        base_url: the service's address, where it is not the usual one; no password in it.
        timeout: seconds that one request may take, above 0; a request that takes longer is repeated.
        max_retries: how often a request is repeated at most, at least 0, where that may help: after statuses
            408, 409, 425, 429 and from 500 on, a failed connection or a timeout. Waits grow exponentially from
            0.5 s to 20 s with full jitter, or last as long as the service asks (up to 60 s), and never go
            beyond the call's deadline.
        max_concurrency: requests under way at once, at least 1, of all calls together.
        requests_per_minute: requests begun in any 60 seconds, at least 1; None for no limit.
        tokens_per_minute: (estimated) tokens sent in any 60 seconds, at least 1; None for no limit.
        documents_per_request: at least 1; by default what the provider takes or recommends.
        instruction: written before the query, for models that follow one.
        allow_split: let a listwise model score more texts than it takes in one request, in several; the scores of
            different requests are then not quite comparable.
        prices: prices that override or extend the list, by model: :class:`rerank_core.pricing.Price`, or a
            dictionary of its fields.

    Raises:
        AuthenticationError: there is no key; names the environment variables.
        ConfigurationError: an option is out of its range.
        MissingExtraError: the provider's SDK is not installed.
    """

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {"max_concurrency", "max_retries", "prices", "requests_per_minute", "timeout", "tokens_per_minute"}
    )

    model: str
    _: KW_ONLY
    api_key: SecretStr | str | None = field(default=None, repr=False)
    base_url: str | None = None
    timeout: float = 60.0
    max_retries: int = 4
    max_concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    documents_per_request: int | None = None
    instruction: str | None = None
    allow_split: bool = False
    prices: Mapping[str, Price | Mapping[str, Any]] = field(default_factory=dict, hash=False)
    name: str = field(init=False)
    listwise: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set("name", self.scorer_name())
        self._set("api_key", self.find_key())
        if self.base_url is not None:
            self._set("base_url", checked_address(self.base_url, scorer=self.name))
        self._check_numbers()
        facts = self.facts
        self._set("listwise", facts.listwise)
        price_of(self.name, self.model, self.prices)
        if self.instruction is not None and not (isinstance(self.instruction, str) and self.instruction.strip()):
            raise ConfigurationError("instruction is no text: give what the model shall prefer, or leave it out")
        if self.instruction is not None and facts.instructions is None:
            raise ConfigurationError(f"{self.name} follows no instruction: leave out instruction=")
        if facts.successor is not None:
            warnings.warn(
                f"{self.name} was retired by its provider: use '{self.service.provider}:{facts.successor}'",
                FutureWarning,
                stacklevel=4,
            )

    @abstractmethod
    def open_transport(self) -> Transport:
        """Return a new client; runs in a worker thread, because importing an SDK takes its time."""

    @property
    @abstractmethod
    def service(self) -> Service:
        """The provider, or the kind of server."""

    def scorer_name(self) -> str:
        """Return the scorer's name, from the options as they were given."""
        if not isinstance(self.model, str) or not self.model.strip():
            raise ConfigurationError(
                f"{self.service.provider}: names no model: give '{self.service.provider}:<model>'"
            )
        return f"{self.service.provider}:{self.model}"

    def find_key(self) -> SecretStr:
        """Return the key, from the options or the environment."""
        service = self.service
        return find_key(self.api_key, service.key_variables, scorer=self.name, required=service.key_required)

    @property
    def facts(self) -> ModelFacts:
        """What is known about the model, with the options that change it."""
        facts = self.service.models.get(self.model, self.service.default)
        if self.documents_per_request is None:
            return facts
        limits = replace(facts.limits, documents=self.documents_per_request, multiple=1)
        return replace(facts, limits=limits)

    @property
    def price(self) -> Price | None:
        """The price of the model, None where it is not known."""
        return price_of(self.name, self.model, self.prices)

    def secret(self) -> str:
        """Return the key for the one expression that needs it; keep it in no variable."""
        return self.api_key.get_secret_value() if isinstance(self.api_key, SecretStr) else self.api_key or ""

    def full_query(self, query: str) -> str:
        """Return the query as it is sent: with the instruction before it, where there is one."""
        template = self.facts.instructions
        if self.instruction is None or template is None:
            return query
        return template.format(instruction=self.instruction, query=query)

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score a text, in as many requests as the provider's limits ask for.

        Raises:
            ScorerError: a request failed for good; its ``partial`` holds the scores of those that did not.
        """
        from rerank_core.remote.scoring import Call

        return await Call(self, await self._opened(), query, texts).run()

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:
        """Return an estimate: a service's tokens are not known here."""
        limits = self.facts.limits
        length = estimate_tokens(self.full_query(query))
        read = [max(limit - length, limit // 2) for limit in (limits.pair, limits.tokens) if limit is not None]
        read += [] if limits.document is None else [limits.document]
        size = request.window_tokens(min(read, default=None))
        return Reading(size, [estimate_token_ends(text, request.tokens_to_read(size)) for text in texts])

    async def warm_up(self) -> None:
        """Import the SDK and make the client; nothing is sent."""
        await self._opened()

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        session: Session | None = self.__dict__.pop("_session", None)
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.transport.aclose()

    async def _opened(self) -> Session:
        loop = asyncio.get_running_loop()
        session: Session | None = self.__dict__.get("_session")
        # The session of another loop is a parent process's: its sockets are not ours to use or to close.
        if session is None or session.loop is not loop:
            transport = await anyio.to_thread.run_sync(self.open_transport)
            session = self.__dict__.get("_session")
            if session is None or session.loop is not loop:
                self.__dict__["_abandoned"] = session
                weakref.finalize(self, _close_later, transport, loop, os.getpid())
                make_limiter: Callable[[], Turns] = self.__dict__.get("_make_limiter", self._own_limiter)
                session = self.__dict__["_session"] = Session(loop, transport, make_limiter())
        return session

    def share_limiter(self, make_limiter: Callable[[], Turns]) -> None:
        """Let another limiter than this object's own say when requests go out; a copy has its own again."""
        self.__dict__["_make_limiter"] = make_limiter

    def _own_limiter(self) -> Limiter:
        return Limiter(
            self.max_concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_numbers(self) -> None:
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, (int, float)) or not self.timeout > 0:
            raise ConfigurationError(f"timeout is {self.timeout!r}: give seconds above 0")
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL_COUNTS:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigurationError(f"{name} is {value!r}: give a whole number of at least {least}")

    def __copy__(self) -> RemoteScorer:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteScorer:
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name[0] != "_" and name != "api_key"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set("api_key", None)
        self._set("api_key", self.find_key())


def _close_later(transport: Transport, loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Close what nobody closed, so that no library warns about it."""
    if os.getpid() != process:
        return
    closing = transport.aclose()
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(closing, loop)
        return
    # The loop is closed, at exit: there is nothing to wait for any more.
    with contextlib.suppress(Exception):
        closing.send(None)
    closing.close()


_COUNTS = {
    "max_retries": 0,
    "max_concurrency": 1,
    "requests_per_minute": 1,
    "tokens_per_minute": 1,
    "documents_per_request": 1,
}
_OPTIONAL_COUNTS = ("requests_per_minute", "tokens_per_minute", "documents_per_request")
