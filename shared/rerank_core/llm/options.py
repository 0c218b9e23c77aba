"""The options of every scorer that asks a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from rerank_core._support.checks import check_amount, check_choice, check_count, check_fraction, check_text
from rerank_core.errors import ConfigurationError
from rerank_core.llm.prompt import Mode, Prompt
from rerank_core.llm.windows import Strategy
from rerank_core.pricing import Price
from rerank_core.scorer import ScorerOptions

__all__ = ["JudgeOptions"]

_COUNTS = {"window": 2, "max_input_tokens": 1, "max_tokens_per_doc": 1, "samples": 1}


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(ScorerOptions):
    """Options of a scorer that asks a language model.

    Attributes:
        mode: ``"grades"``: one answer grades all documents of a window from 0 to 10, and a score is a tenth of a
            grade. ``"order"``: only their order is asked, so thresholds are refused. ``"pointwise"``: one question
            per document, for models that report log-probabilities; the score is the expected grade.
        window: documents of one question at most, at least 2.
        max_input_tokens: (estimated) tokens of the documents of one question at most, at least 1.
        strategy: how windows are chosen where there are several: ``"pivot"`` or ``"sliding"``.
        depth: how many of the texts are judged, the first ones; the others keep their order below, with a score
            of 0. None for all.
        instruction: what counts as relevant.
        prompt: messages of one's own instead of ours; see :data:`rerank_core.llm.prompt.Prompt`.
        max_tokens_per_doc: (estimated) tokens of a text that are sent, at least 1.
        samples: how often each window is judged; from the second time on the documents are shuffled, against
            position bias, and the score is the mean.
        min_coverage: share of a window's documents that an answer must judge, above 0; the missing ones come
            after the others. Below it the question is asked once more, and then the call fails.
        max_cost: US dollars that a call may cost; checked by an estimate before each question is sent.
        prices: prices that override or extend the list, by model: :class:`rerank_core.pricing.Price`, or a
            dictionary of its fields.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    mode: Mode = "grades"
    window: int = 20
    max_input_tokens: int = 24_000
    strategy: Strategy = "pivot"
    depth: int | None = None
    instruction: str | None = None
    prompt: Prompt | None = None
    max_tokens_per_doc: int = 512
    samples: int = 1
    min_coverage: float = 0.8
    max_cost: float | None = None
    prices: Mapping[str, Price | Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, get_args(Mode))
        check_choice("strategy", self.strategy, get_args(Strategy))
        for name, least in _COUNTS.items():
            check_count(name, getattr(self, name), least=least)
        if self.depth is not None:
            check_count("depth", self.depth)
        check_fraction("min_coverage", self.min_coverage, above_0=True)
        if self.max_cost is not None:
            check_amount("max_cost", self.max_cost, unit="US dollars")
        if self.instruction is not None:
            check_text("instruction", self.instruction)
        if self.prompt is not None and not callable(self.prompt):
            raise ConfigurationError("prompt is no function: give one from the query and the texts to messages")
        if self.prompt is not None and self.instruction is not None:
            raise ConfigurationError("prompt= and instruction= were given: write the instruction into the prompt")
