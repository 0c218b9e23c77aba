"""The two wire formats: what a request may hold, and what an answer looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rerank_core.types import Ranking

__all__ = ["COHERE", "JINA", "CohereRequest", "Format", "JinaRequest", "TextDocument"]

Model = Annotated[str, Field(description="Any name: the server has one model, whose name is in the answer.")]
Query = Annotated[str, Field(pattern=r"\S", description="Not blank.")]


def _whole(value: object) -> object:
    """Return 60.0 as 60, which is the same number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
TopN = Annotated[Count | None, Field(description="How many results to return; all by default.")]


class CohereRequest(BaseModel):
    """The body of Cohere's ``POST /v2/rerank``; fields that this server has no use for are ignored."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: Model = ""
    query: Query
    documents: Annotated[list[str], Field(min_length=1)]
    top_n: TopN = None

    def texts(self) -> list[str]:
        """Return the documents' texts."""
        return self.documents


class TextDocument(BaseModel):
    """A document with its text."""

    model_config = ConfigDict(strict=True)

    text: str


class JinaRequest(BaseModel):
    """The body of Jina AI's ``POST /v1/rerank``; fields that this server has no use for are ignored."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: Model = ""
    query: Query
    documents: Annotated[list[str | TextDocument], Field(min_length=1)]
    top_n: TopN = None
    return_documents: bool = True

    def texts(self) -> list[str]:
        """Return the documents' texts."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


Request = CohereRequest | JinaRequest


@dataclass(frozen=True)
class Format:
    """One wire format.

    Attributes:
        path: where it is served.
        request: what the body is.
        answer: returns the answer's body from the request and its ranking.
        error: returns an error's body from its message.
    """

    path: str
    request: type[CohereRequest] | type[JinaRequest]
    answer: Callable[[Any, Ranking[str]], dict[str, Any]]
    error: Callable[[str], dict[str, Any]]


def _cohere_answer(request: CohereRequest, ranking: Ranking[str]) -> dict[str, Any]:
    results = [{"index": ranked.index, "relevance_score": ranked.score} for ranked in ranking]
    units = -(-len(request.documents) // 100)
    return {
        "id": str(uuid4()),
        "results": results,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": float(units)}},
    }


def _jina_answer(request: JinaRequest, ranking: Ranking[str]) -> dict[str, Any]:
    results: list[dict[str, Any]] = [
        {"index": ranked.index, "relevance_score": ranked.score} for ranked in ranking
    ]
    if request.return_documents:
        for result, ranked in zip(results, ranking, strict=True):
            result["document"] = {"text": ranked.document}
    return {
        "model": ranking.model,
        "object": "list",
        "usage": {"total_tokens": ranking.usage.tokens},
        "results": results,
    }


COHERE = Format("/v2/rerank", CohereRequest, _cohere_answer, lambda message: {"message": message})
JINA = Format("/v1/rerank", JinaRequest, _jina_answer, lambda message: {"detail": message})
