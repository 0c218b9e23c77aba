"""What a cache keeps of an answer: numbers, and no text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rerank_core.types import Passage, Scored

__all__ = ["Entry", "from_bytes", "to_bytes"]


@dataclass(frozen=True, slots=True)
class Entry:
    """The part of an answer that is remembered under one key: one text's, or a whole call's.

    Attributes:
        scores: in [0, 1].
        passages: one a score, None for the whole text.
        tiers: one a score.
        model: who answered.
    """

    scores: Sequence[float]
    passages: Sequence[Passage | None]
    tiers: Sequence[int]
    model: str | None

    @classmethod
    def of(cls, scored: Scored, start: int, stop: int) -> Entry:
        """Return a part of a checked answer."""
        count = stop - start
        return Entry(
            list(scored.scores[start:stop]),
            list(scored.passages[start:stop]) if scored.passages else [None] * count,
            list(scored.tiers[start:stop]) if scored.tiers else [0] * count,
            scored.model,
        )


def to_bytes(entry: Entry) -> bytes:
    """Return an entry as JSON, which gives every float back exactly."""
    return json.dumps(list(asdict(entry).values()), separators=(",", ":")).encode()


def from_bytes(value: bytes, texts: Sequence[str]) -> Entry | None:
    """Return the entry of these texts, None where the value is not one: then it counts as missing."""
    try:
        scores, passages, tiers, model = json.loads(value)
        spans = [None if span is None else Passage(*span) for span in passages]
        whole = len(scores) == len(spans) == len(tiers) == len(texts)
        sound = (
            whole
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
    return Entry([float(score) for score in scores], spans, tiers, model) if sound else None
