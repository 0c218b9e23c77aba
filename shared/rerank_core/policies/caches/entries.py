"""What a cache holds for each key, as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerank_core.types import Passage, Scored

__all__ = ["Entry", "read_entries", "to_bytes"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered under one key: the answer for one text, or for a whole listwise call.

    Attributes:
        scores: in [0, 1].
        passages: one per score, None for the whole text.
        tiers: one per score.
        model: name of the scorer that answered.
    """

    scores: Sequence[float]
    passages: Sequence[Passage | None]
    tiers: Sequence[int]
    model: str | None

    @classmethod
    def slice(cls, scored: Scored, start: int, stop: int) -> Entry:
        """Return the part of a checked answer that is about these texts."""
        return cls(
            list(scored.scores[start:stop]),
            list(scored.passages[start:stop]) if scored.passages else [None] * (stop - start),
            list(scored.tiers[start:stop]) if scored.tiers else [0] * (stop - start),
            scored.model,
        )


def to_bytes(entry: Entry) -> bytes:
    """Return an entry as JSON, which gives every float back exactly."""
    return json.dumps([entry.scores, entry.passages, entry.tiers, entry.model], separators=(",", ":")).encode()


def read_entries(found: Mapping[bytes, bytes], work: Mapping[bytes, tuple[str, ...]]) -> dict[bytes, Entry]:
    """Return the entries of those keys whose values are valid; others count as missing."""
    entries = ((key, _from_bytes(found[key], work[key])) for key in work if key in found)
    return {key: entry for key, entry in entries if entry is not None}


def _from_bytes(value: bytes, texts: Sequence[str]) -> Entry | None:
    """Return the entry of these texts; None if the value is no such entry, which counts as missing."""
    try:
        scores, passages, tiers, model = json.loads(value)
        spans = [None if span is None else Passage(*span) for span in passages]
        is_valid = (
            len(scores) == len(spans) == len(tiers) == len(texts)
            and all(type(score) in (int, float) and 0.0 <= score <= 1.0 for score in scores)
            and all(type(tier) is int for tier in tiers)
            and all(
                span is None or 0 <= span.start <= span.end <= len(text)
                for span, text in zip(spans, texts, strict=True)
            )
            and (model is None or isinstance(model, str))
        )
    except (TypeError, ValueError):
        return None
    return Entry([float(score) for score in scores], spans, tiers, model) if is_valid else None
