"""Calls a scorer: checks its answer, names it in every error, and counts what it consumed.

An answer and a ``ScorerError`` carry their usage, but a cancelled call returns neither. So whoever calls a scorer
can also count what is consumed meanwhile, with a :class:`Consumption`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import TypeVar

import anyio

from rerank_core._call.event_loop import run_work
from rerank_core._call.scores import validate_scores
from rerank_core.errors import InvalidResponseError, RerankError, ScorerError, name_scorer
from rerank_core.scorer import Scorer
from rerank_core.types import Scored
from rerank_core.usage import Usage

T = TypeVar("T")

_NOTHING = Usage()


class Consumption:
    """Counts what is consumed inside a ``with`` block, also in tasks that are started inside.

    At the end the sum becomes the usage of a ``ScorerError`` that leaves the block, and with ``pass_on`` it is
    added to the next outer block, however this one ends. Without it a usage that the error states already stays.
    """

    __slots__ = ("_pass_on", "_token", "usage")
    _token: Token[Consumption | None]

    def __init__(self, *, pass_on: bool = True) -> None:
        self.usage = _NOTHING
        self._pass_on = pass_on

    def __enter__(self) -> Consumption:
        self._token = _innermost.set(self)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        _innermost.reset(self._token)
        # A scorer may count for itself, and say it in the error alone.
        if isinstance(exc, ScorerError) and (exc.usage is None or self._pass_on):
            exc.usage = self.usage
        if self._pass_on:
            add_consumption(self.usage)


_innermost: ContextVar[Consumption | None] = ContextVar("rerank_core_consumption", default=None)


def add_consumption(usage: Usage) -> None:
    """Add to the innermost :class:`Consumption`."""
    consumption = _innermost.get()
    if consumption is not None:
        consumption.usage = usage if consumption.usage is _NOTHING else consumption.usage + usage


async def call_scorer(scorer: Scorer, query: str, texts: Sequence[str]) -> Scored:
    """Return a scorer's answer, with relevance scores in [0, 1], the model's name and the number of documents.

    The texts are distinct and not blank. The ``partial`` scores of an error are in [0, 1] too. What the call
    consumed is added to the caller's :class:`Consumption`.
    """
    consumed = Consumption(pass_on=False)
    try:
        with consumed:
            answer: object = await translate_errors(scorer, scorer.score, query, texts)
        if isinstance(answer, Scored):
            consumed.usage = answer.usage
        with name_scorer(scorer.name):
            scored = await run_work(len(texts), _validate, answer, scorer, len(texts))
        consumed.usage = scored.usage
        return scored
    except ScorerError as exc:
        with anyio.CancelScope(shield=True):
            exc.partial = await run_work(len(exc.partial), _partial_probabilities, exc.partial, scorer)
        consumed.usage = exc.usage or consumed.usage
        raise
    finally:
        add_consumption(consumed.usage)


async def translate_errors(scorer: Scorer, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Await a scorer's work; its errors carry its name, and those from outside the tree become a ScorerError."""
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
