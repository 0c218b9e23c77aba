"""What the scorers of all services share: their settings, their connection, and one way to score."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from rerank_core._call.event_loop import run_text_work, run_work
from rerank_core._call.reaper import clean_up_after
from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.model_facts import ModelFacts, find_model_facts
from rerank_core.pricing import price_of
from rerank_core.reading import Reading, WindowRequest, estimate_reading, estimate_tokens
from rerank_core.remote.access import check_address, find_key, first_variable
from rerank_core.remote.scoring import RemoteCall
from rerank_core.remote.sending import ClientSession, RateLimiter
from rerank_core.remote.service import RemoteModel, RemoteOptions, Service, Transport
from rerank_core.types import Scored

__all__ = ["RemoteScorer"]

_IMPORTING_STEPS = 1_000_000
_CLOSING_SECONDS = 2.0


class RemoteScorer(RemoteModel):
    """A scorer that asks a service.

    A copy keeps the key and none of the connections. A pickle holds no key: the copy that comes out of it looks
    in the environment again.

    Args:
        model: the model's name; one that is not known is used as it is, without limits or price of its own.
        options: the fields of :class:`~rerank_core.remote.service.RemoteOptions` or of the class's own options.

    Attributes:
        service: the provider, or the kind of server.
        base_url: the service's address, None for the SDK's own.
        model_facts: what is known of the model, with the options that change it.

    Raises:
        AuthenticationError: there is no key; names the environment variables.
        ConfigurationError: an option is unknown or out of its range.
        MissingExtraError: the provider's SDK is not installed.
    """

    Options: ClassVar[type[RemoteOptions]] = RemoteOptions
    options: RemoteOptions
    service: Service
    sdk: ClassVar[str] = ""
    """The package that asks, of the extra that is called like the provider; empty for none."""

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {
            "http_client",
            "max_concurrency",
            "max_retries",
            "prices",
            "requests_per_minute",
            "timeout",
            "tokens_per_minute",
        }
    )

    def __init__(self, model: str = "", **options: Any) -> None:
        if self.sdk:
            check_installed(self.sdk, extra=self.provider, purpose=f"{self.provider}:")
        if isinstance(options.get("api_key"), str):
            options["api_key"] = SecretStr(options["api_key"])
        super().__init__(model, **options)
        with name_scorer(self.name):
            self._check_model()
            address = self.options.base_url or first_variable(self.service.address_variables)
            address = address or self.service.base_url
            self.base_url = None if address is None else check_address(address)
            self._key = SecretStr("") if callable(self.options.api_key) else self._find_key()
            self.model_facts = self._find_model_facts()
            self.listwise = self.model_facts.listwise
            self._check_prices_and_instruction()
        self._session: ClientSession | None = None
        self._inherited: ClientSession | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.options.http_client is not None:
            raise ConfigurationError("http_client= holds connections: a scorer with one cannot be pickled")
        self.options.check_headers()
        return super().__reduce__()

    @abstractmethod
    def open_transport(self) -> Transport:
        """Return a new client; runs in a worker thread, because importing an SDK takes its time."""

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, in as many requests as the provider's limits ask for.

        Raises:
            ScorerError: a request failed for good; its ``partial`` holds the scores of those that did not.
        """
        return await RemoteCall(self, await self._open_session(), query, texts).run()

    def max_text_tokens(self, query: str) -> int | None:
        """Return about how many tokens of a text are read beside a query; None where no limit is known."""
        limits = self.model_facts.limits
        length = estimate_tokens(self.full_query(query))
        read = [max(limit - length, limit // 2) for limit in (limits.pair, limits.tokens) if limit is not None]
        return min([*read, *([] if limits.document is None else [limits.document])], default=None)

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:
        """Return an estimate: a service's tokens are not known here."""
        return await run_text_work(estimate_reading, texts, request, self.max_text_tokens(query))

    async def warm_up(self) -> None:
        """Import the SDK and make the client; nothing is sent."""
        await self._open_session()

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.transport.aclose()

    async def _open_session(self) -> ClientSession:
        loop = asyncio.get_running_loop()
        # The session of another loop is a parent process's: its sockets are not ours to use or to close.
        if self._session is None or self._session.loop is not loop:
            transport = await run_work(_IMPORTING_STEPS, self.open_transport)
            if self._session is None or self._session.loop is not loop:
                self._inherited = self._session
                clean_up_after(self, _close_transport, transport, loop)
                self._session = ClientSession(loop, transport, RateLimiter(self.options))
        return self._session

    def _check_model(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise ConfigurationError(f"names no model: give '{self.provider}:<model>'")

    def _find_key(self) -> SecretStr:
        return self._look_up_key()

    def _look_up_key(self, *variables: str, required: bool = False) -> SecretStr:
        service, host = self.service, urlsplit(self.base_url or "").hostname or ""
        by_host = [name for ending, name in service.keys_by_host.items() if host.endswith(ending)]
        given = None if callable(self.options.api_key) else self.options.api_key
        variables = (*service.key_variables, *variables, *by_host)
        return find_key(given, variables, required=required or service.key_required)

    def _find_model_facts(self) -> ModelFacts:
        service, documents = self.service, self.options.documents_per_request
        facts = service.models.get(self.model) or find_model_facts(self.model) or service.default
        limits = facts.limits.within(service.limits)
        return replace(
            facts, limits=limits if documents is None else replace(limits, documents=documents, multiple=1)
        )

    def _check_prices_and_instruction(self) -> None:
        price_of(self.name, self.model, self.options.prices)
        if self.options.instruction is not None and self.model_facts.instructions is None:
            raise ConfigurationError("follows no instruction: leave out instruction=")
        if self.model_facts.successor is not None:
            successor = f"{self.provider}:{self.model_facts.successor}"
            warnings.warn(
                f"{self.name} was retired by its provider: use '{successor}'", FutureWarning, stacklevel=4
            )


def _close_transport(transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Close what nobody closed, so that no library warns about it."""
    closing = transport.aclose()
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(closing, loop).result(_CLOSING_SECONDS)  # before the loops end, at exit
        return
    # The loop is closed, at exit: there is nothing to wait for any more.
    with contextlib.suppress(Exception):
        closing.send(None)
    closing.close()
