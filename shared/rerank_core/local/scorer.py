"""What the scorers of local models share: their options, one engine per model, and pairs as its jobs."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from rerank_core._support.checks import check_amount, check_choice, check_count, check_text
from rerank_core.errors import ConfigurationError
from rerank_core.local.checkpoint import find_local_facts
from rerank_core.local.engine import Engine, LocalModel, ModelJob, shared_engine
from rerank_core.local.tokens import check_template
from rerank_core.reading import Reading, WindowRequest
from rerank_core.scorer import ConfiguredScorer, Scale, ScorerOptions
from rerank_core.types import Scored
from rerank_core.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "LocalOptions",
    "LocalScorer",
    "PairOptions",
    "PairScorer",
    "logits_to_scores",
]

_CPU_TOKENS_PER_BATCH = 1024
"""Padded tokens per batch where neither the options nor the model give another number: what suits a CPU."""


@dataclass(frozen=True, kw_only=True)
class LocalOptions(ScorerOptions):
    """The options of every local model.

    Attributes:
        max_length: tokens that the model reads at once, at least 1; by default the model's own limit.
        tokens_per_batch: padded tokens per batch, at least 1; by default 1,024, which suits a CPU.
        threads: cores to use, at least 1; by default all physical ones; never more than the container's quota.
    """

    max_length: int | None = None
    tokens_per_batch: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_length", "tokens_per_batch", "threads"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))


class LocalScorer(ConfiguredScorer):
    """A scorer whose model runs in this process.

    Scorers of one class, model and options share one engine, so that two rerankers load a model once.
    """

    Options: ClassVar[type[ScorerOptions]] = LocalOptions
    options: LocalOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset({"threads", "tokens_per_batch"})

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        self._engine: Engine | None = None

    @abstractmethod
    def load(self) -> LocalModel:
        """Load the model; runs in the engine's thread."""

    @property
    def engine(self) -> Engine:
        """The engine of this process for this model and these options; the scorers that use it keep it alive."""
        if self._engine is None:
            # The engine's thread keeps the method's owner: a copy, which does not keep the engine in turn.
            self._engine = shared_engine(
                (type(self), self.model, self.options),
                copy(self).load,
                self.options.tokens_per_batch or _CPU_TOKENS_PER_BATCH,
            )
        return self._engine

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:
        """Return how the model splits texts into tokens, and how many fit beside the query."""
        job = _ReadingJob(query, texts, request)
        await self.engine.run(job)
        return Reading(job.window_tokens, job.token_ends)

    async def warm_up(self) -> None:
        """Load the model and run it once, as the first call would."""
        await self.score("warm up", ["warm up"])


class _ReadingJob(ModelJob[Any, Any]):
    """Asks a model for its tokens, by its ``max_text_tokens`` and ``token_ends``; nothing is left to run."""

    def __init__(self, query: str, texts: Sequence[str], request: WindowRequest) -> None:
        self.count = len(texts)
        self.window_tokens = 0
        self.token_ends: list[Sequence[int]] = []
        self._query = query
        self._texts = texts
        self._request = request

    def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, Any]]:
        if not start:
            self.window_tokens = self._request.window_tokens(model.max_text_tokens(self._query))
        self.token_ends += model.token_ends(
            self._texts[start:stop], self._request.tokens_to_read(self.window_tokens)
        )
        return ()

    def accept(self, position: int, output: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PairOptions(LocalOptions):
    """The options of every local cross-encoder.

    Attributes:
        max_length: tokens of query and text together that are read, at least 1; by default the model's own limit.
        score_scale: what the model returns, ``"probability"``, ``"logit"`` or ``"cosine"``: one number, or two of
            which the second is for "relevant"; by default what is known of the model, else logits.
        temperature: by which logits are divided before the sigmoid, above 0; by default the model's, mostly 1.
        instruction: what to prefer, for models that follow an instruction; by default the model's own.
        template: prompt of a language model, with ``{query}``, ``{document}`` and, where it follows one,
            ``{instruction}``; by default the model's own.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; use what its cache on this machine has.
    """

    score_scale: Scale | None = None
    temperature: float | None = None
    instruction: str | None = None
    template: str | None = None
    revision: str | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("score_scale", self.score_scale, (None, *get_args(Scale)))
        if self.temperature is not None and check_amount("temperature", self.temperature) == 0:
            raise ConfigurationError("temperature is 0: give a number above 0")
        if self.template is not None:
            check_template(self.template)
        if self.instruction is not None:
            check_text("instruction", self.instruction)


class PairScorer(LocalScorer):
    """A cross-encoder in this process.

    Its model's ``tokenize`` returns the pairs of a query with texts, in order, whose length is their number of
    tokens; its ``forward`` returns one number per pair.

    Attributes:
        model_facts: what is known of the model.
    """

    Options: ClassVar[type[ScorerOptions]] = PairOptions
    options: PairOptions
    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset(
        {*LocalScorer.options_without_effect_on_scores, "local_files_only"}
    )

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        self.model_facts = find_local_facts(model)
        self.scale = self.options.score_scale or self.model_facts.scale or "logit"

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text, on the scorer's scale."""
        job = _PairJob(query, texts)
        await self.engine.run(job)
        scores = job.scores.tolist()
        if self.scale == "logit":
            temperature = self.options.temperature or self.model_facts.temperature
            scores = [score / temperature for score in scores]
        return Scored(scores, Usage(requests=1, tokens=job.tokens))


class _PairJob(ModelJob[Any, float]):
    def __init__(self, query: str, texts: Sequence[str]) -> None:
        self.count = len(texts)
        self.scores = array("d", bytes(8 * len(texts)))
        self.tokens = 0
        self._query = query
        self._texts = texts

    def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, Any]]:
        items = model.tokenize(self._query, self._texts[start:stop])
        self.tokens += sum(map(len, items))
        return list(enumerate(items, start))

    def accept(self, position: int, output: float) -> None:
        self.scores[position] = output


def logits_to_scores(outputs: npt.NDArray[np.floating[Any]], scale: Scale) -> list[float]:
    """Return one number per pair from outputs of shape (pairs, labels), on this scale.

    The difference of two logits is the logit of the softmax's second label, so both kinds of model give logits.

    Raises:
        ConfigurationError: there are neither one label nor two.
    """
    labels = outputs.shape[1]
    if labels not in (1, 2):
        raise ConfigurationError(
            f"the model has {labels} output labels: a reranker has one, or two with the second one for 'relevant'"
        )
    numbers = outputs.astype("float64")
    scores = numbers[:, 1] - numbers[:, 0] if labels == 2 and scale == "logit" else numbers[:, -1]
    return [float(score) for score in scores]
