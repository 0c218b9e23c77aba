"""The one interface that a scorer implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from rerank_core._fingerprint import fingerprint
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

    inert: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that change no score (a timeout, say), so that a cache need not tell them apart."""

    @abstractmethod
    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score a text, in the order of the texts, higher is more relevant."""

    async def warm_up(self) -> None:  # noqa: B027 - optional
        """Load what the first call would load; nothing to do for most scorers."""

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Release connections and the like; the scorer may be used again, and then opens new ones."""

    def cache_key(self) -> str:
        """Return what a cache tells this scorer's scores from others' by: equal keys, equal scores.

        By default a digest of the class, the name and the options, which are the constructor's parameters, read
        from the attributes of the same names; without those in ``inert`` and without keys of services. Override
        it where options are kept otherwise or cannot be compared across processes.

        Raises:
            ConfigurationError: there is an option like that.
        """
        return fingerprint(self)
