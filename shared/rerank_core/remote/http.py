"""The scorer for every rerank endpoint that speaks JSON over HTTP; :mod:`.endpoints` lists them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, cast, get_args

from pydantic import SecretStr

from rerank_core._call.event_loop import run_work
from rerank_core._support.checks import check_choice
from rerank_core.errors import ConfigurationError
from rerank_core.model_facts import ModelFacts, look_up
from rerank_core.reading import Reading, WindowRequest
from rerank_core.remote.access import check_address, first_variable, join_address
from rerank_core.remote.client import HttpClient, encode_json, failure_of, max_reply_bytes
from rerank_core.remote.endpoint import Endpoint
from rerank_core.remote.endpoints import ENDPOINTS
from rerank_core.remote.failure import RequestFailure
from rerank_core.remote.response import BYTES_PER_STEP, ParsedReply, parse_json, read_reply
from rerank_core.remote.scorer import RemoteScorer
from rerank_core.remote.service import RemoteOptions, Transport
from rerank_core.scorer import Scale

__all__ = ["HttpOptions", "HttpScorer"]

_logger = logging.getLogger("rerank_core")

_REPLY_BYTES_PER_STEP = 1000  # that a reply may have, for what is written of its request in a microsecond
_MAX_MODELS_BYTES = 1_000_000
_FORMAT = tuple(
    field.name
    for field in fields(Endpoint)
    if isinstance(field.default, str) and field.name not in ("own_path", "provider", "scale")
)
"""What ``format`` may change; other options are for the rest."""
_AUTH = re.compile(r"[!-9;-~]+: [ -~]*\{key\}[ -~]*")


@dataclass(frozen=True, kw_only=True)
class HttpOptions(RemoteOptions):
    """Options of :class:`HttpScorer`.

    Attributes:
        endpoint: how to talk to the server: a name or a row of
            :data:`~rerank_core.remote.endpoints.ENDPOINTS`.
        format: what differs from that row: fields of :class:`~rerank_core.remote.endpoint.Endpoint` that are
            strings, such as ``{"path": "/v2/rerank", "documents": "passages", "results": "data"}``. No key: in
            ``auth``, ``{key}`` stands for it.
        score_scale: what the server returns: ``"probability"``, ``"logit"`` or ``"cosine"``; by default what is
            known of the model and the server.
        listwise: whether a score depends on the other texts of the request, so that a call is never split
            silently; by default what is known of the model.
    """

    endpoint: Endpoint | str = "http"
    format: Mapping[str, Any] = field(default_factory=dict)
    score_scale: Scale | None = None
    listwise: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_scale is not None:
            check_choice("score_scale", self.score_scale, get_args(Scale))
        check_choice("listwise", self.listwise, (None, True, False))


class HttpScorer(RemoteScorer):
    """A rerank model behind an HTTP endpoint.

    ``model`` is the model's name, the server's address, or both:
    ``"http://127.0.0.1:8000#BAAI/bge-reranker-v2-m3"``. Without a name the server uses what it serves.
    """

    Options: ClassVar[type[RemoteOptions]] = HttpOptions
    options: HttpOptions

    def __init__(self, model: str = "", **options: Any) -> None:
        given = model.strip() if isinstance(model, str) else ""
        if given.startswith(("http://", "https://")):
            options["base_url"], _, given = given.partition("#")
        self.endpoint = self.service = _find_endpoint(options)
        self.provider = self.endpoint.provider
        super().__init__(given, **options)
        self.name = f"{self.provider}:{given or self.base_url}"
        row = self.endpoint
        self.scale = self.options.score_scale or self.model_facts.scale or look_up(row.scales, given) or row.scale
        self.url = join_address(self.base_url or "", row.fill_path(given))
        if self.options.missing == "lowest" and not row.score:
            raise ConfigurationError(
                "missing='lowest' needs answers that say whose scores they hold; this server's are bare lists: "
                "leave it out"
            )
        self.headers = row.fill_headers()
        self.fields = row.make_fields(given, self.options.instruction, self.options.body)
        self._context_asked = not row.context_path

    def open_transport(self) -> Transport:
        """Return an HTTP client."""
        return _HttpTransport(self)

    def full_query(self, query: str) -> str:
        """Return the query as it is sent: with the instruction, unless the request has a field for that."""
        return query if self.endpoint.instruction else super().full_query(query)

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:
        """Return an estimate, for a window of which the server is asked once how much its model reads."""
        if not self._context_asked and self.model_facts.limits.pair is None:
            self._context_asked = True
            transport = cast("_HttpTransport", (await self._open_session()).transport)
            pair = await transport.fetch_context(await self.fetch_key(), self.model)
            limits = replace(self.model_facts.limits, pair=pair)
            self.model_facts = replace(self.model_facts, limits=limits)
        return await super().read_tokens(query, texts, request)

    def _check_model(self) -> None:
        if not (self.options.base_url or first_variable(self.service.address_variables) or self.service.base_url):
            variables = "".join(f", or set {name}" for name in self.service.address_variables)
            raise ConfigurationError(
                f"has no address: give '{self.provider}:http://host:port' or base_url={variables}"
            )
        if self.service.key_required:
            super()._check_model()

    def _find_model_facts(self) -> ModelFacts:
        facts = super()._find_model_facts()
        return facts if self.options.listwise is None else replace(facts, listwise=self.options.listwise)


class _HttpTransport(HttpClient):
    def __init__(self, scorer: HttpScorer) -> None:
        super().__init__(scorer.options)
        # Not the scorer itself: what closes the connections once it is gone would keep it.
        self._endpoint, self._fields, self._url = scorer.endpoint, scorer.fields, scorer.url
        self._further_headers = scorer.headers
        self._context_url = join_address(scorer.base_url or "", scorer.endpoint.context_path)

    async def send(self, key: SecretStr, query: str, texts: Sequence[str]) -> ParsedReply | RequestFailure:
        fields = {**self._fields, **self._endpoint.make_request(query, texts)}
        most = max_reply_bytes(query, texts)
        try:
            content = await run_work(most // _REPLY_BYTES_PER_STEP, encode_json, fields)
            reply = await self.fetch(self._url, self._with_key(key), most, content)
        except Exception as exc:
            return failure_of(exc)
        return await run_work(len(reply.body) // BYTES_PER_STEP, read_reply, reply, self._endpoint)

    async def fetch_context(self, key: SecretStr, model: str) -> int | None:
        """Return how many tokens of query and document the served model reads, None where the server says none."""
        try:
            reply = await self.fetch(self._context_url, self._with_key(key), _MAX_MODELS_BYTES)
            models = (await run_work(len(reply.body) // BYTES_PER_STEP, parse_json, reply.body))["data"]
            served = next((entry for entry in models if entry["id"] == model), models[0])
            return int(served["max_model_len"])
        except Exception as exc:
            _logger.debug("%s says no context length: %s", self._context_url, type(exc).__name__)
            return None

    def _with_key(self, key: SecretStr) -> dict[str, str]:
        name, _, value = self._endpoint.auth.partition(": ")
        secret = {name: value.replace("{key}", key.get_secret_value())} if key else {}
        return {**secret, **self._further_headers}


def _check_format(changes: object) -> dict[str, Any]:
    if not isinstance(changes, Mapping):
        raise ConfigurationError(f"format is a {type(changes).__name__}: give a dictionary of strings")
    if not set(changes) <= set(_FORMAT):
        raise ConfigurationError(f"format holds {', '.join(map(str, changes))}: give some of {', '.join(_FORMAT)}")
    for name, value in changes.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"format[{name!r}] is a {type(value).__name__}: give a string")
    if not _AUTH.fullmatch(changes.get("auth", Endpoint.auth)):
        raise ConfigurationError("format['auth'] names no header: give 'Header: {key}', and the key as api_key=")
    return dict(changes)


def _find_endpoint(options: dict[str, Any]) -> Endpoint:
    """Return the row that the options name, with the fields that ``format`` changes."""
    row = options.get("endpoint", "http")
    if not isinstance(row, Endpoint):
        if row not in ENDPOINTS:
            raise ConfigurationError(f"endpoint is {row!r}: give one of {', '.join(ENDPOINTS)}")
        row = ENDPOINTS[row]
    changes: dict[str, Any] = _check_format(options.get("format", {}))
    if row.own_path:
        address = options.get("base_url") or first_variable(row.address_variables)
        if address and check_address(address) != row.base_url:
            changes = {"path": row.own_path, "key_required": False, **changes}
    row = replace(row, **changes)
    names = [name for name in (row.model, row.query, row.documents, row.top, row.instruction) if name]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"format has one name for two fields of the request: {', '.join(names)}")
    return row
