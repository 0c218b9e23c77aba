"""New documents from given ones, which are never changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document


def copy_document(document: Document, metadata: Mapping[str, Any], *, text: str | None = None) -> Document:
    """Return a plain document with the same id, with metadata added; containers in it are copied.

    Subclasses carry state that tracers and checkpoints cannot hold, such as the embeddings of LangChain's filters.
    """
    return Document(
        page_content=document.page_content if text is None else text,
        id=document.id,
        metadata={**_copy(document.metadata, {}), **metadata},
    )


def _copy(value: Any, done: dict[int, Any]) -> Any:
    """Copy dictionaries, lists, tuples and sets all the way down, and share everything else (locks, say)."""
    if id(value) in done:
        return done[id(value)]
    if type(value) is dict:
        copied: Any = done.setdefault(id(value), {})
        copied.update((key, _copy(part, done)) for key, part in value.items())
        return copied
    if type(value) is list:
        copied = done.setdefault(id(value), [])
        copied.extend(_copy(part, done) for part in value)
        return copied
    if type(value) is tuple:
        return tuple(_copy(part, done) for part in value)
    return set(value) if type(value) is set else value
