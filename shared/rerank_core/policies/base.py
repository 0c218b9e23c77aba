"""Base class of the scorers that are made of scorers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from rerank_core.errors import ConfigurationError
from rerank_core.registry import as_scorer
from rerank_core.scorer import Scale, Scorer
from rerank_core.usage import Usage

__all__ = ["Policy"]


class Policy(Scorer):
    """A scorer made of other scorers, on any scale; its own scores are in [0, 1].

    Copies and pickles are made by the constructor from the same arguments, so they start with nothing learned.
    A subclass keeps each of its arguments in an attribute of the same name; this class keeps the scorers.

    Args:
        kind: the policy's part of the name.
        scorers: scorers, or names for :func:`rerank_core.load_scorer`; at least one.

    Raises:
        ConfigurationError: there is no scorer, or one of them is neither a scorer nor a name.
    """

    scale: Scale = "probability"
    scorers: tuple[Scorer, ...]

    def __init__(self, kind: str, scorers: Iterable[Scorer | str]) -> None:
        if isinstance(scorers, (str, Scorer)):
            raise ConfigurationError(f"{kind} got a single scorer: give a list of scorers")
        self.scorers = tuple(as_scorer(scorer) for scorer in scorers)
        if not self.scorers:
            raise ConfigurationError(f"{kind} got no scorer: give at least one")
        self.name = f"{kind}({', '.join(scorer.name for scorer in self.scorers)})"
        self.listwise = any(scorer.listwise for scorer in self.scorers)
        self.stores_vectors = any(scorer.stores_vectors for scorer in self.scorers)

    @property
    def ordinal(self) -> bool:  # type: ignore[override]
        """Whether a scorer's scores only say the order."""
        return any(scorer.ordinal for scorer in self.scorers)

    @property
    def scorer(self) -> Scorer:
        """The first scorer, and for most policies the only one."""
        return self.scorers[0]

    async def warm_up(self) -> None:
        """Load what each scorer's first call would load."""
        for scorer in self.scorers:
            await scorer.warm_up()

    async def precompute(self, texts: Sequence[str]) -> Usage:
        """Encode and store texts for each scorer that stores vectors."""
        if not self.stores_vectors:
            return await super().precompute(texts)
        usage = Usage()
        for scorer in self.scorers:
            if scorer.stores_vectors:
                usage += await scorer.precompute(texts)
        return usage

    async def aclose(self) -> None:
        """Release each scorer's connections."""
        for scorer in self.scorers:
            await scorer.aclose()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._options_by_name()), ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
