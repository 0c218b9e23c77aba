"""The one interface that a scorer implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rerank_core.batching import Scale
from rerank_core.types import Scored

__all__ = ["Scorer"]


class Scorer(ABC):
    """Scores texts against a query; everything else (order, thresholds, deadlines) is the Reranker's.

    All methods run on the background event loop of :mod:`rerank_core.runtime`, whoever calls, so a client or
    a lock that is bound to one loop is safe to keep. ``score`` must not block that loop, and must stop when it
    is cancelled. It gets at least one text, none of them blank, none twice.

    Attributes:
        name: ``"provider:model"``, as :func:`rerank_core.load_scorer` takes it.
        scale: ``"probability"`` for scores in [0, 1], ``"logit"`` for scores that the sigmoid makes
            probabilities; the Reranker applies it, once.
        listwise: True where a score depends on the other texts of the request.
    """

    name: str
    scale: Scale = "probability"
    listwise: bool = False

    @abstractmethod
    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score a text, in the order of the texts, higher is more relevant."""

    async def warm_up(self) -> None:  # noqa: B027 - optional
        """Load what the first call would load; nothing to do for most scorers."""

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Release connections and the like; the scorer may be used again, and then opens new ones."""
