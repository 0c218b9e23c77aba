"""What differs from one JSON endpoint to another: the request's fields; the response's are its base class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from rerank_core.errors import ConfigurationError
from rerank_core.remote.access import first_variable
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

    def fill_path(self, model: str) -> str:
        """Return the path for a model."""
        if not model and "{model}" in self.path:
            raise ConfigurationError(f"names no model: give '{self.provider}:<model>'")
        return _fill(self.path, quote(model, safe="/:"))

    def make_fields(self, model: str, instruction: str | None, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request fields that are the same in every request; of ``more``, None removes one."""
        fields = {self.model: model} if self.model and model else {}
        for name, value in self.body.items():
            if name not in more:
                fields[name] = _fill(value, model) if isinstance(value, str) else value
        fields.update(more)
        if self.instruction and instruction is not None:
            fields[self.instruction] = instruction
        return {name: value for name, value in fields.items() if value is not None}

    def make_request(self, query: str, texts: Sequence[str]) -> dict[str, Any]:
        """Return the request fields that hold the query and the texts."""
        documents: Sequence[object] = texts
        if self.document_id:
            documents = [
                {self.document_id: str(index), self.document_wrapper: text} for index, text in enumerate(texts)
            ]
        elif self.document_wrapper:
            documents = [{self.document_wrapper: text} for text in texts]
        wrapped = [query] if self.query_wrapper == "[]" else {self.query_wrapper: query}
        top = {self.top: len(texts)} if self.top else {}
        return {self.query: wrapped if self.query_wrapper else query, self.documents: documents, **top}

    def fill_headers(self) -> dict[str, str]:
        """Return the further headers."""
        return {name: _fill(value) for name, value in self.headers.items()}


def _fill(template: str, model: str = "") -> str:
    """Return a text with the model's name, and with environment variables for names in braces."""

    def find(name: re.Match[str]) -> str:
        value = model if name[1] == "model" else first_variable([name[1]])
        if value is None:
            raise ConfigurationError(f"set the environment variable {name[1]}")
        return value

    return re.sub(r"\{(\w+)\}", find, template)
