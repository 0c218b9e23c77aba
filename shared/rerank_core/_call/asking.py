"""Calls a scorer: checks its answer, and names it in every error."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio

from rerank_core._call.consumption import Consumption, add_consumption
from rerank_core._call.event_loop import run_work
from rerank_core._call.scores import validate_scores
from rerank_core.errors import InvalidResponseError, RerankError, ScorerError, name_scorer
from rerank_core.scorer import Scorer
from rerank_core.types import Scored

T = TypeVar("T")


async def call_scorer(scorer: Scorer, query: str, texts: Sequence[str]) -> Scored:
    """Return a scorer's answer, with relevance scores in [0, 1], the model's name and the number of documents.

    What the call consumed is added to the caller's :class:`~rerank_core._call.consumption.Consumption`.

    Args:
        scorer: on any scale.
        query: not blank.
        texts: none of them blank, none twice.

    Raises:
        ScorerError: the scorer failed (``partial`` is in [0, 1] too), or its answer cannot be trusted.
    """
    try:
        with Consumption(pass_on=False) as consumed:
            answer: object = await translate_errors(scorer, scorer.score, query, texts)
    except ScorerError as exc:
        with anyio.CancelScope(shield=True):
            exc.partial = await run_work(len(exc.partial), _partial_probabilities, exc.partial, scorer)
        exc.usage = exc.usage or consumed.usage
        add_consumption(exc.usage)
        raise
    except BaseException:
        add_consumption(consumed.usage)
        raise
    try:
        with name_scorer(scorer.name):
            scored = await run_work(len(texts), _validate, answer, scorer, len(texts))
    except BaseException:
        add_consumption(answer.usage if isinstance(answer, Scored) else consumed.usage)
        raise
    add_consumption(scored.usage)
    return scored


async def translate_errors(scorer: Scorer, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Await a scorer's work, and put the scorer's name into its errors.

    Raises:
        ScorerError: the work raised an exception from outside the tree, which is the cause.
    """
    with name_scorer(scorer.name):
        try:
            return await work(*arguments)
        except RerankError:
            raise
        except Exception as exc:
            # The message stays out: a foreign exception may quote a document or a key.
            raise ScorerError(f"failed with {type(exc).__name__}: see the cause") from exc


def answer_deadline() -> float:
    """Return when a scorer must end: a little before its caller gives up, so that it can say what it has."""
    deadline = anyio.current_effective_deadline()
    if deadline == math.inf:
        return deadline
    return deadline - min(0.02, 0.05 * max(0.0, deadline - anyio.current_time()))


def _validate(scored: object, scorer: Scorer, expected: int) -> Scored:
    if not isinstance(scored, Scored):
        raise InvalidResponseError(f"returned a {type(scored).__name__}: a Scored was expected")
    scores = validate_scores(scored.scores, expected=expected, scale=scorer.scale)
    for name, values in (("passages", scored.passages), ("tiers", scored.tiers)):
        if values and len(values) != expected:
            raise InvalidResponseError(
                f"returned {len(values)} {name} for {expected} texts: give one each, or none at all"
            )
    usage = scored.usage
    if not usage.documents:
        usage = replace(usage, documents=expected - usage.cached)
    return replace(scored, scores=scores, usage=usage, model=scored.model or scorer.name)


def _partial_probabilities(partial: Mapping[int, float], scorer: Scorer) -> dict[int, float]:
    try:
        scores = validate_scores(list(partial.values()), expected=len(partial), scale=scorer.scale)
    except InvalidResponseError:
        return {}  # the scorer's own error says more
    return dict(zip(partial, scores, strict=True))
