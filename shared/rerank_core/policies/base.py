"""What the scorers that are made of scorers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rerank_core.errors import ConfigurationError
from rerank_core.registry import as_scorer
from rerank_core.scorer import Scale, Scorer

__all__ = ["Policy"]


class Policy(Scorer):
    """A scorer made of scorers, on whatever scales they are; its own scores are in [0, 1].

    What it learns while it runs (``state``) is of this process: copies and pickles start afresh.

    Args:
        kind: the policy's part of the name.
        scorers: scorers, or names for :func:`rerank_core.load_scorer`; at least one.

    Raises:
        ConfigurationError: there is no scorer, or one of them is something else.
    """

    scale: Scale = "probability"
    scorers: tuple[Scorer, ...]

    state: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that hold what was learned; :meth:`forget` makes them."""

    def __init__(self, kind: str, scorers: Iterable[Scorer | str]) -> None:
        if isinstance(scorers, (str, Scorer)):
            raise ConfigurationError(f"{kind} got a single scorer: give a list of scorers")
        self.scorers = tuple(as_scorer(scorer) for scorer in scorers)
        if not self.scorers:
            raise ConfigurationError(f"{kind} got no scorer: give at least one")
        self.name = f"{kind}({', '.join(scorer.name for scorer in self.scorers)})"
        self.listwise = any(scorer.listwise for scorer in self.scorers)
        self.forget()

    def forget(self) -> None:
        """Start with nothing learned."""

    async def warm_up(self) -> None:
        """Load what each scorer's first call would load."""
        for scorer in self.scorers:
            await scorer.warm_up()

    async def aclose(self) -> None:
        """Release each scorer's connections."""
        for scorer in self.scorers:
            await scorer.aclose()

    def cache_key(self) -> str:
        """Return a digest of the policy's options and of its scorers' keys."""
        return self.fingerprint_options(self.read_options(scorer=self.scorers))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self.state}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
