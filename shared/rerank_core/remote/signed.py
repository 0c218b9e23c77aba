"""For scorers whose requests an SDK makes and signs, and our client sends: no thread waits for an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import anyio.to_thread
import httpx
from pydantic import SecretStr

from rerank_core._call.event_loop import run_work
from rerank_core.errors import ConfigurationError
from rerank_core.remote.client import HttpClient, failure_of
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import BYTES_PER_STEP, ParsedReply, ResponseFormat, read_reply
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions


@dataclass(frozen=True, kw_only=True)
class SignedOptions(RemoteOptions):
    """Options of a scorer whose requests are signed.

    Attributes:
        region: such as ``"us-west-2"``; by default that of the provider's configuration.
        profile: of the provider's configuration.
    """

    credentials: ClassVar[str]
    """What to do where somebody gives a key."""

    region: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api_key is not None:
            raise ConfigurationError(
                f"requests are signed with credentials, so there is no api_key=: {self.credentials}"
            )
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigurationError("body holds what JSON cannot: give strings, numbers, lists, …") from None


class SignedScorer(RemoteScorer):
    """A scorer whose provider has credentials in place of a key."""

    options_without_effect_on_scores = RemoteScorer.options_without_effect_on_scores | {"profile", "region"}

    def _find_key(self) -> SecretStr:
        return SecretStr("")


class _SignedError(Exception):
    """Ends a call of an SDK once its request is signed, in place of sending it."""

    def __init__(self, request: Any) -> None:
        self.request = request


def raise_signed(request: Any, **_: Any) -> NoReturn:
    """Take the place of the function by which an SDK sends a request."""
    raise _SignedError(request)


class SignedTransport(HttpClient):
    """Sends what an SDK signs; ``credential_error`` is the class of what it raises where credentials fail."""

    credential_error: type[Exception]

    async def ask(
        self, call: Callable[[], object], most: int, form: ResponseFormat
    ) -> ParsedReply | RequestFailure:
        """Send the request that a call of the SDK makes; return what its reply of at most ``most`` bytes says."""
        try:
            request = await _sign(call)
            reply = await self.fetch(request.url, request.headers, most, request.body)
        except self.credential_error as exc:
            return RequestFailure("key", message=f"no credentials ({type(exc).__name__})")
        except Exception as exc:
            return failure_of(exc)
        answer = await run_work(len(reply.body) // BYTES_PER_STEP, read_reply, reply, form)
        if isinstance(answer, RequestFailure):
            return answer.without_quotes(httpx.Headers(request.headers).get("x-amz-security-token", ""), ())
        return answer


async def _sign(call: Callable[[], object]) -> Any:
    """Return the request as the SDK would send it; a thread, because credentials are fetched and renewed."""
    try:
        await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except _SignedError as signed:
        return signed.request
