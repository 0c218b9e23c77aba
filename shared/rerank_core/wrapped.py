"""The base class of scorers over other frameworks' own rerankers."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias, get_args

import anyio
import anyio.to_thread

from rerank_core._call.event_loop import run_work
from rerank_core._call.scores import check_score, validate_scores
from rerank_core._support.checks import check_count
from rerank_core.errors import ConfigurationError, InvalidResponseError
from rerank_core.remote.failure import errors_by_status
from rerank_core.scorer import ScorerOptions, WrappingScorer
from rerank_core.types import Scale, Scored

__all__ = ["Method", "RankedText", "RerankerScorer", "WrappedOptions"]

RankedText: TypeAlias = "tuple[str, object]"
"""A text that a reranker returned, and the score that it gave it, None for none."""

Method: TypeAlias = "Callable[[str, Sequence[str]], Any]"
"""Ranks texts for a query: returns :data:`RankedText` rows, best first, or an awaitable of them."""


@dataclass(frozen=True, kw_only=True)
class WrappedOptions(ScorerOptions):
    """Options of a scorer over another framework's reranker.

    Attributes:
        scale: what the reranker's scores are: ``"probability"``, ``"logit"``, ``"cosine"``, or their lowest and
            highest value, such as ``(0, 10)``. By default scores that all lie in [0, 1] are taken as they are; of
            others only the order counts, and thresholds are refused.
        max_concurrency: calls at once, at least 1, where the reranker has no async method; 1 because many such
            classes are not safe to be used by several threads.
        identity: what a cache tells this reranker's scores from others' by; needed only for caches. It must change
            whenever the scores may.
    """

    scale: Scale | tuple[float, float] | None = None
    max_concurrency: int = 1
    identity: str | None = None

    def __post_init__(self) -> None:
        check_count("max_concurrency", self.max_concurrency)
        if self.scale is None or self.scale in get_args(Scale):
            return
        if not (isinstance(self.scale, tuple) and len(self.scale) == 2 and self.scale[0] < self.scale[1]):
            raise ConfigurationError(
                f"scale is {self.scale!r}: give one of {', '.join(get_args(Scale))}, or a pair of the lowest and "
                "the highest score"
            )


class RerankerScorer(WrappingScorer):
    """A scorer over another framework's reranker; subclasses say how it is called.

    The reranker gets texts only, each once. What it leaves out scores 0 and comes last; of what it returns twice
    the first one counts.

    Args:
        model: the framework's object.
        options: the fields of :class:`WrappedOptions` or of the class's own options.

    Attributes:
        ordinal: True once an answer had no scores, or others than ``scale`` says.
    """

    Options: ClassVar[type[WrappedOptions]] = WrappedOptions
    options: WrappedOptions
    listwise = True
    options_without_effect_on_scores = WrappingScorer.options_without_effect_on_scores | {"max_concurrency"}

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        self._threads = anyio.CapacityLimiter(self.options.max_concurrency)

    @abstractmethod
    def find_method(self) -> Method:
        """Return the function that ranks texts for a query: an async one where the reranker has one."""

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text; ``tiers`` holds the reranker's own order.

        Raises:
            InvalidResponseError: the reranker returned a text that it was not given, or a score off its scale.
            ScorerError: it failed.
        """
        query, *given = (text.encode(errors="replace").decode() for text in (query, *texts))
        method = self.find_method()
        with errors_by_status():
            if inspect.iscoroutinefunction(method):
                ranked = await method(query, given)
            else:
                work = partial(method, query, given)
                ranked = await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        return await run_work(2 * len(texts), self._to_scored, given, ranked)

    def cache_key(self) -> str:
        """Return what a cache tells scorers apart by.

        Raises:
            ConfigurationError: ``identity`` is not given.
        """
        if self.options.identity is None:
            raise ConfigurationError(
                f"{self.name} cannot be cached: give identity=, a text that changes whenever its scores may"
            )
        return super().cache_key()

    def _to_scored(self, texts: Sequence[str], ranked: Sequence[RankedText]) -> Scored:
        places = {text: place for place, text in reversed(list(enumerate(texts)))}
        found: dict[int, object] = {}
        for text, score in ranked:
            if text not in places:
                raise InvalidResponseError(
                    "returned a text that it was not given: what rewrites documents cannot be a scorer"
                )
            found.setdefault(places[text], score)
        scores = self._read_scores(list(found.values()))
        if scores is None:
            self.ordinal = True
            scores = [1.0 - (place + 0.5) / len(texts) for place in range(len(found))]
        by_place = dict(zip(found, scores, strict=True))
        order = [*found, *(place for place in range(len(texts)) if place not in found)]
        tiers = {place: tier for tier, place in enumerate(order)}
        count = range(len(texts))
        return Scored([by_place.get(place, 0.0) for place in count], tiers=[tiers[place] for place in count])

    def _read_scores(self, scores: list[object]) -> list[float] | None:
        """Return scores in [0, 1], None where only their order counts."""
        if any(score != score for score in scores):
            raise InvalidResponseError("returned nan: a number was expected")
        scale = self.options.scale
        if scale is None:
            try:
                return None if self.ordinal else validate_scores(scores, expected=len(scores), scale="probability")
            except InvalidResponseError:
                return None
        if None in scores:
            raise InvalidResponseError("returned a document without a score: leave out scale=")
        if isinstance(scale, str):
            return validate_scores(scores, expected=len(scores), scale=scale)
        lowest, highest = scale
        numbers = [check_score(score, at) for at, score in enumerate(scores)]
        shares = [(number - lowest) / (highest - lowest) for number in numbers]
        return validate_scores(shares, expected=len(scores), scale="probability")
