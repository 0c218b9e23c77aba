"""What a model reads: checked, cleaned, without blanks and repetitions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rerank_core.errors import ConfigurationError

__all__ = ["Texts", "checked_query", "checked_texts"]

D = TypeVar("D")
S = TypeVar("S")

_SURROGATE = re.compile("[\ud800-\udfff]")


def checked_query(query: object) -> str:
    """Return the query, cleaned as texts are.

    Raises:
        ConfigurationError: it is not a string, or blank.
    """
    if not isinstance(query, str):
        raise ConfigurationError(f"the query is a {type(query).__name__}: give a string")
    if not query.strip():
        raise ConfigurationError("the query is empty: give at least one word to rank by")
    return _clean(query)


def checked_texts(documents: Sequence[D], text_fn: Callable[[D], str] | None) -> list[str]:
    """Return the text of each document, by ``text_fn`` where one is given.

    Lone surrogates, which no encoding can carry, become U+FFFD.

    Raises:
        ConfigurationError: a document is None, or its text is not a string; names the position.
    """
    return [_text(position, document, text_fn) for position, document in enumerate(documents)]


def _text(position: int, document: D, text_fn: Callable[[D], str] | None) -> str:
    if document is None:
        raise ConfigurationError(f"documents[{position}] is None: leave it out, or give an empty string")
    text: object = document if text_fn is None else text_fn(document)
    if not isinstance(text, str):
        if text_fn is None:
            raise ConfigurationError(
                f"documents[{position}] is a {type(text).__name__}, not a string: "
                "pass text_fn=, a function that returns a document's text"
            )
        raise ConfigurationError(
            f"text_fn returned a {type(text).__name__} for documents[{position}]: it must return a string"
        )
    return _clean(text)


def _clean(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Texts:
    """The distinct texts worth scoring, and where each came from.

    Attributes:
        distinct: texts that are not blank, each once, in order of first appearance.
        slots: for each input text its position in ``distinct``, or None for a blank one.
    """

    distinct: list[str]
    slots: list[int | None]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Separate the texts worth scoring from blanks and repetitions."""
        positions: dict[str, int] = {}
        slots: list[int | None] = []
        for text in texts:
            if text and not text.isspace():
                slots.append(positions.setdefault(text, len(positions)))
            else:
                slots.append(None)
        return cls(list(positions), slots)

    def spread(self, values: Sequence[S], *, blank: S) -> list[S]:
        """Return one value an input text, from one value a distinct text."""
        return [blank if slot is None else values[slot] for slot in self.slots]

    def positions(self, values: Mapping[int, S]) -> dict[int, S]:
        """Return values by position in the input, from values by position in ``distinct``."""
        return {
            position: values[slot]
            for position, slot in enumerate(self.slots)
            if slot is not None and slot in values
        }
