"""What the scorers of local models share: one engine a model and its options, and pairs as its jobs."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

from rerank_core._support.checks import checked_count
from rerank_core.errors import ConfigurationError
from rerank_core.local.engine import Engine, Job, LocalModel, shared_engine
from rerank_core.reading import Reading, WindowRequest
from rerank_core.scorer import Scale, Scorer
from rerank_core.types import Scored
from rerank_core.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Activation", "LocalScorer", "PairModel", "PairScorer", "check_options", "one_number_each", "scale_of"]

Activation = Literal["auto", "sigmoid", "softmax", "identity"]
"""How a cross-encoder's output becomes a score in [0, 1].

- ``auto``: the sigmoid of one logit, the softmax's second label of two;
- ``sigmoid``: the output is one logit;
- ``softmax``: the output is two logits, the second one for "relevant" (monoBERT style);
- ``identity``: the output is a probability already, because the model ends in a sigmoid of its own.
"""


_TOKENS_PER_BATCH = 1024
"""Padded tokens a batch where neither options nor the model say another number: what suits a CPU."""


class LocalScorer(Scorer):
    """A scorer whose model runs in this process; subclasses are frozen dataclasses of their options.

    Equal options share one engine, so that two rerankers with the same model load it once.
    """

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {"cache_bytes", "local_files_only", "threads", "tokens_per_batch"}
    )

    tokens_per_batch: int | None

    @abstractmethod
    def load(self) -> LocalModel[Any, Any]:
        """Load the model; runs in the engine's thread."""

    @property
    def engine(self) -> Engine:
        """The engine of this process for these options; kept alive by the scorers that use it."""
        engine: Engine | None = self.__dict__.get("_engine")
        if engine is None:
            key = (type(self), *(getattr(self, option.name) for option in fields(self)))  # type: ignore[arg-type]
            # By a copy: the engine's thread keeps the method's owner, which must not keep the engine in turn.
            engine = shared_engine(key, copy(self).load, self.tokens_per_batch or _TOKENS_PER_BATCH)
            self.__dict__["_engine"] = engine
        return engine

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:
        """Return how the model splits texts into tokens, and how many fit beside the query."""
        job = _ReadingJob(query, texts, request)
        await self.engine.run(job)
        return Reading(job.window_tokens, job.token_ends)

    async def warm_up(self) -> None:
        """Load the model and run it once, as the first call would."""
        await self.score("warm up", ["warm up"])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_engine"}


class _ReadingJob(Job[Any, Any]):
    """Has a model's tokenizer look at texts; nothing is left for the model itself."""

    def __init__(self, query: str, texts: Sequence[str], request: WindowRequest) -> None:
        self.count = len(texts)
        self.window_tokens = 0
        self.token_ends: list[Sequence[int]] = []
        self._query = query
        self._texts = texts
        self._request = request

    def encode(self, model: TokenModel, start: int, stop: int) -> Sequence[tuple[int, Any]]:
        if not start:
            self.window_tokens = self._request.window_tokens(model.max_text_tokens(self._query))
        self.token_ends += model.token_ends(
            self._texts[start:stop], self._request.tokens_to_read(self.window_tokens)
        )
        return ()

    def accept(self, position: int, output: Any) -> None:
        raise NotImplementedError


class TokenModel(Protocol):
    """A model that can be asked for its tokens."""

    def max_text_tokens(self, query: str) -> int | None:
        """Return how many tokens of a text are read beside a query; None for no limit."""

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return where the first tokens of texts end, as many as ``limit``."""


class PairModel(LocalModel[Any, float], Protocol):
    """A model that reads query and text together and returns one number a pair."""

    def tokenize(self, query: str, texts: Sequence[str]) -> Sequence[Any]:
        """Return the tokenised pairs, in order; their length is their number of tokens."""


class _PairJob(Job[Any, float]):
    def __init__(self, query: str, texts: Sequence[str]) -> None:
        self.count = len(texts)
        self.scores = array("d", bytes(8 * len(texts)))
        self.tokens = 0
        self._query = query
        self._texts = texts

    def encode(self, model: PairModel, start: int, stop: int) -> Sequence[tuple[int, Any]]:
        items = model.tokenize(self._query, self._texts[start:stop])
        self.tokens += sum(map(len, items))
        return list(enumerate(items, start))

    def accept(self, position: int, output: float) -> None:
        self.scores[position] = output


class PairScorer(LocalScorer):
    """A cross-encoder in this process."""

    activation: Activation

    @abstractmethod
    def load(self) -> PairModel:
        """Load the model; runs in the engine's thread."""

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one logit a text, or one probability with ``activation="identity"``."""
        job = _PairJob(query, texts)
        await self.engine.run(job)
        return Scored(job.scores.tolist(), Usage(requests=1, tokens=job.tokens))


def scale_of(activation: Activation) -> Scale:
    """Return the scale of scores that come out of a model with this activation."""
    return "probability" if activation == "identity" else "logit"


def check_options(scorer: Any, *, counts: Sequence[str], optional: Sequence[str]) -> None:
    """Check the options that local scorers share: ``counts``, and ``optional`` ones which may be None.

    Raises:
        ConfigurationError: one that counts something is no whole number of at least 1, or the activation is
            unknown.
    """
    for name in (*counts, *optional):
        value = getattr(scorer, name)
        if value is None and name in optional:
            continue
        checked_count(name, value, least=1)
    activation = getattr(scorer, "activation", "auto")
    if activation not in get_args(Activation):
        raise ConfigurationError(f"activation is {activation!r}: give one of {', '.join(get_args(Activation))}")


def one_number_each(logits: npt.NDArray[np.floating[Any]], activation: Activation, scorer: str) -> list[float]:
    """Return one number a pair from outputs of shape (pairs, labels).

    The difference of two logits is the logit of the softmax's second label, so both kinds of model give logits.

    Raises:
        ConfigurationError: neither one label nor two, or not as many as the activation takes.
    """
    labels = logits.shape[1]
    wanted = {"auto": (1, 2), "sigmoid": (1,), "softmax": (2,), "identity": (1, 2)}[activation]
    if labels not in wanted:
        raise ConfigurationError(
            f"{scorer} has {labels} output labels, and activation={activation!r} takes "
            f"{' or '.join(map(str, wanted))}: a reranker has one, or two with the second one for 'relevant'"
        )
    numbers = logits.astype("float64")
    wanted_column = numbers[:, -1] if labels == 1 or activation == "identity" else numbers[:, 1] - numbers[:, 0]
    return [float(number) for number in wanted_column]
