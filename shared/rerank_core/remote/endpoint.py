"""What differs from one JSON endpoint to another: the request's fields; the response's are its base class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from rerank_core.errors import ConfigurationError
from rerank_core.model_facts import look_up
from rerank_core.remote.response import ResponseFormat
from rerank_core.remote.service import Service
from rerank_core.scorer import Scale

__all__ = ["Endpoint"]


@dataclass(frozen=True, kw_only=True)
class Endpoint(Service, ResponseFormat):
    """How to talk to a service or a kind of server.

    In ``path``, ``headers`` and the strings of ``body``, ``{model}`` stands for the model's name, and a name in
    capitals, such as ``{GOOGLE_CLOUD_PROJECT}``, for the environment variable of that name.

    Attributes:
        path: of the endpoint, after the address.
        own_path: path at an address of one's own, where that is another one; no key is required there.
        auth: header that carries the key, with ``{key}`` for it.
        headers: further headers.
        model: request key of the model's name; empty where it is not sent.
        query: request key of the query.
        query_wrapper: key of an object around the query, ``[]`` for a list around it; empty for the string itself.
        documents: request key of the documents.
        document_wrapper: key of an object around each document; empty for strings.
        document_id: key of a number, as a string, beside each document; empty for none.
        top: request key of how many results to return; empty where there is none.
        instruction: request key of an instruction; empty where it is written before the query.
        body: further request fields, the same in every request.
        scale: of its scores, for models that have no scale of their own.
        scales: of the scores of some models, see :func:`rerank_core.model_facts.look_up`.
        context_path: where the server lists its models with ``max_model_len``, after the address; empty for none.
    """

    path: str = "/v1/rerank"
    own_path: str = ""
    auth: str = "Authorization: Bearer {key}"
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = "model"
    query: str = "query"
    query_wrapper: str = ""
    documents: str = "documents"
    document_wrapper: str = ""
    document_id: str = ""
    top: str = "top_n"
    instruction: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    scale: Scale = "probability"
    scales: Mapping[str, Scale] = field(default_factory=dict)
    context_path: str = ""

    def scale_of(self, model: str) -> Scale:
        """Return the scale of a model's scores here."""
        return look_up(self.scales, model) or self.scale

    def fill_path(self, model: str) -> str:
        """Return the path for a model.

        Raises:
            ConfigurationError: it needs a model, or an environment variable that is not set.
        """
        if not model and "{model}" in self.path:
            raise ConfigurationError(f"names no model: give '{self.provider}:<model>'")
        return _fill(self.path, _Values(model=quote(model, safe="/:")))

    def fill_headers(self) -> dict[str, str]:
        """Return the further headers.

        Raises:
            ConfigurationError: they need an environment variable that is not set.
        """
        return {name: _fill(value, _Values()) for name, value in self.headers.items()}

    def make_fields(self, model: str, instruction: str | None, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request fields that are the same in every request; of ``more``, None removes one.

        Raises:
            ConfigurationError: they need an environment variable that is not set.
        """
        fields = {**self.body, **more}
        values = _Values(model=model)
        for name, value in self.body.items():
            if isinstance(value, str) and name not in more:
                fields[name] = _fill(value, values)
        if self.model and model:
            fields = {self.model: model, **fields}
        if self.instruction and instruction is not None:
            fields[self.instruction] = instruction
        return {name: value for name, value in fields.items() if value is not None}

    def make_request(self, query: str, texts: Sequence[str]) -> dict[str, Any]:
        """Return the request fields that hold the query and the texts."""
        request: dict[str, Any] = {self.query: _wrap(self.query_wrapper, query)}
        if self.document_id:
            request[self.documents] = [
                {self.document_id: str(index), self.document_wrapper: text} for index, text in enumerate(texts)
            ]
        elif self.document_wrapper:
            request[self.documents] = [{self.document_wrapper: text} for text in texts]
        else:
            request[self.documents] = texts
        if self.top:
            request[self.top] = len(texts)
        return request


def _wrap(wrapper: str, value: str) -> object:
    if wrapper == "[]":
        return [value]
    return {wrapper: value} if wrapper else value


def _fill(template: str, values: Mapping[str, str]) -> str:
    try:
        return template.format_map(values)
    except ConfigurationError:
        raise
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ConfigurationError(
            f"{template!r} has braces around something else than a name: write {{{{ and }}}} for braces"
        ) from None


class _Values(dict[str, str]):
    """What a placeholder stands for: the given values, else the environment's."""

    def __missing__(self, name: str) -> str:
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigurationError(f"set the environment variable {name}")
        return value
