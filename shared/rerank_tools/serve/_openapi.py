"""The OpenAPI description of the routes."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from rerank_tools.serve._wire import COHERE, JINA, CohereRequest, JinaRequest

__all__ = ["description"]

_SCORE = {"type": "number", "minimum": 0.0, "maximum": 1.0}
_RESULT: dict[str, Any] = {
    "type": "object",
    "required": ["index", "relevance_score"],
    "properties": {"index": {"type": "integer", "minimum": 0}, "relevance_score": _SCORE},
}
_REFUSALS = {
    "400": "The body is not as described.",
    "413": "More documents or bytes than the server takes.",
    "429": "Too many requests wait: try again after Retry-After seconds.",
    "503": "The scorer cannot be reached, or its deadline passed.",
}


def description(*, token: bool) -> dict[str, Any]:
    """Return the description; ``token`` says whether a bearer token is asked for."""
    _, schemas = models_json_schema(
        [(CohereRequest, "validation"), (JinaRequest, "validation")], ref_template="#/components/schemas/{model}"
    )
    components: dict[str, Any] = {"schemas": schemas["$defs"]}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-bridge, for development and tests", "version": "1"},
        "paths": {
            COHERE.path: {"post": _operation("CohereRequest", ["id", "results", "meta"], "message", token=token)},
            JINA.path: {"post": _operation("JinaRequest", ["model", "results", "usage"], "detail", token=token)},
        },
        "components": components,
    }


def _operation(request: str, required: list[str], message: str, *, token: bool) -> dict[str, Any]:
    refusal = {
        "type": "object",
        "required": [message],
        "properties": {message: {"type": "string"}},
    }
    refusals = {**_REFUSALS, **({"401": "The token is missing or wrong."} if token else {})}
    answer = {
        "type": "object",
        "required": required,
        "properties": {"results": {"type": "array", "items": _RESULT}},
    }
    return {
        "requestBody": {"required": True, "content": _json({"$ref": f"#/components/schemas/{request}"})},
        "responses": {
            "200": {"description": "The ranking, best first.", "content": _json(answer)},
            **{status: {"description": text, "content": _json(refusal)} for status, text in refusals.items()},
        },
        **({"security": [{"token": []}]} if token else {}),
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
