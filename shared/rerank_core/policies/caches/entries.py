"""What a cache holds for each key, as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from rerank_core.types import Passage


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of one text.

    Attributes:
        score: in [0, 1].
        passage: what the score is about, None for the whole text.
        tier: as in :class:`rerank_core.Scored`.
        model: name of the scorer that answered.
        ordinal: whether its scores only say the order, which some scorers know only by their answers.
    """

    score: float
    passage: Passage | None
    tier: int
    model: str | None
    ordinal: bool = False


def to_bytes(entry: Entry) -> bytes:
    """Return an entry as JSON, which gives every float back exactly."""
    values = [entry.score, entry.passage, entry.tier, entry.model, *([True] if entry.ordinal else [])]
    return json.dumps(values, separators=(",", ":")).encode()


def read_entries(found: Mapping[bytes, bytes], work: Mapping[bytes, str]) -> dict[bytes, Entry]:
    """Return the entries of those keys whose values are valid; others count as missing."""
    entries = ((key, _from_bytes(found[key], work[key])) for key in work if key in found)
    return {key: entry for key, entry in entries if entry is not None}


def _from_bytes(value: bytes, text: str) -> Entry | None:
    """Return the entry of this text; None if the value is no such entry, which counts as missing."""
    try:
        score, span, tier, model, *ordinal = json.loads(value)
        passage = None if span is None else Passage(*span)
        is_valid = (
            type(score) in (int, float)
            and 0.0 <= score <= 1.0
            and (passage is None or 0 <= passage.start <= passage.end <= len(text))
            and type(tier) is int
            and (model is None or isinstance(model, str))
            and ordinal in ([], [True])
        )
    except (TypeError, ValueError):
        return None
    return Entry(float(score), passage, tier, model, bool(ordinal)) if is_valid else None
