"""Asking a scorer: whatever it is, what comes back is checked, or is an error of the tree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from rerank_core.batching import checked_probabilities
from rerank_core.errors import InvalidResponseError, RerankError, ScorerError
from rerank_core.scorers.base import Scorer
from rerank_core.types import Scored

__all__ = ["ask", "guarded"]

T = TypeVar("T")


async def ask(scorer: Scorer, query: str, texts: Sequence[str]) -> Scored:
    """Return a scorer's answer: relevance scores in [0, 1], the model named and the documents counted.

    Args:
        scorer: on any scale.
        query: not blank.
        texts: none of them blank, none twice.

    Raises:
        ScorerError: the scorer failed (``partial`` in [0, 1] too), or its answer cannot be trusted.
    """
    try:
        scored: object = await guarded(scorer, scorer.score, query, texts)
    except ScorerError as exc:
        exc.partial = _probabilities(exc.partial, scorer)
        raise
    if not isinstance(scored, Scored):
        raise InvalidResponseError(f"{scorer.name} returned a {type(scored).__name__}: a Scored was expected")
    expected = len(texts)
    scores = checked_probabilities(scored.scores, expected=expected, scale=scorer.scale, scorer=scorer.name)
    for name, values in (("passages", scored.passages), ("tiers", scored.tiers)):
        if values and len(values) != expected:
            raise InvalidResponseError(
                f"{scorer.name} returned {len(values)} {name} for {expected} texts: give one each, or none at all"
            )
    usage = scored.usage
    usage = replace(usage, documents=usage.documents or expected - usage.cached)
    return replace(scored, scores=scores, usage=usage, model=scored.model or scorer.name)


async def guarded(scorer: Scorer, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Await a scorer's work.

    Raises:
        ScorerError: instead of an exception from outside the tree, with that as its cause.
    """
    try:
        return await work(*arguments)
    except RerankError:
        raise
    except Exception as exc:
        # The message stays out: a foreign exception may quote a document or a key.
        raise ScorerError(f"{scorer.name} failed with {type(exc).__name__}: see the cause") from exc


def _probabilities(partial: Mapping[int, float], scorer: Scorer) -> dict[int, float]:
    try:
        scores = checked_probabilities(
            list(partial.values()), expected=len(partial), scale=scorer.scale, scorer=scorer.name
        )
    except InvalidResponseError:
        return {}  # the scorer's own error says more
    return dict(zip(partial, scores, strict=True))
