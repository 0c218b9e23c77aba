"""The scorer that asks a language model, whatever the way to the model."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, get_args

import anyio

from rerank_core._call.asking import Consumption, add_consumption, answer_deadline
from rerank_core._call.event_loop import run_text_work
from rerank_core._call.fan_out import fan_out
from rerank_core._support.checks import check_amount, check_choice, check_count, check_fraction, check_text
from rerank_core._support.files import digest
from rerank_core.errors import (
    ConfigurationError,
    InvalidResponseError,
    ScorerError,
    ScorerTimeoutError,
    name_scorer,
)
from rerank_core.llm.answer import (
    Judged,
    Reply,
    complete,
    expect_grade,
    merge_samples,
    place_to_score,
    read_answer,
    sort_judged,
)
from rerank_core.llm.prompt import (
    PROMPT,
    Mode,
    Prompt,
    Question,
    build_messages,
    build_schema,
    check_messages,
    cut_text,
)
from rerank_core.llm.windows import Strategy, count_questions, rank_by_pivot, rank_by_sliding
from rerank_core.pricing import Price, price_of
from rerank_core.reading import Reading, WindowRequest, estimate_reading, estimate_tokens
from rerank_core.scorer import ConfiguredScorer, ScorerOptions, WrappingScorer
from rerank_core.types import Scored
from rerank_core.usage import Usage

__all__ = ["JudgeOptions", "JudgeScorer", "ModelScorer"]

_COUNTS = {"window": 2, "max_input_tokens": 1, "max_tokens_per_doc": 1, "samples": 1}
_OUTPUT_TOKENS = 12
"""Tokens that an answer takes per document, about."""


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


class JudgeScorer(ConfiguredScorer):
    """A scorer that lets a language model judge texts; subclasses say how a question is asked.

    Each answer is checked: ids that do not exist, repeated ones and grades out of range count for nothing, and an
    answer that leaves out too much is asked for once more, and then is an error. See
    :class:`JudgeOptions` for the options.

    Raises:
        ConfigurationError: an option is out of its range, or ``max_cost`` is given and the price is not known.
    """

    Options: ClassVar[type[Any]] = JudgeOptions
    options: Any

    options_without_effect_on_scores: ClassVar[frozenset[str]] = frozenset({"max_cost", "prices"})

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        self.listwise = self.options.mode != "pointwise" or self.options.depth is not None
        self.ordinal = self.options.mode == "order"
        with name_scorer(self.name):
            if self.options.max_cost is not None and self.price is None:
                raise ConfigurationError(
                    "max_cost= needs a price, and the model's is not known: give "
                    f"prices={{{self.model!r}: {{'per_1m_tokens': …, 'per_1m_output_tokens': …}}}}"
                )

    @abstractmethod
    async def ask(self, question: Question) -> Reply:
        """Ask a language model once.

        Raises:
            ScorerError: there is no answer.
        """

    @property
    def price(self) -> Price | None:
        """The price of the model, None where it is not known."""
        return price_of(self.name, self.model, self.options.prices)

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return one score per text; ``tiers`` holds the order of the answers for equal grades.

        Raises:
            ScorerError: the model did not answer, or not usably; ``partial`` holds the scores that there are.
        """
        return await _Call(self, query, texts).run()

    async def read_tokens(self, query: str, texts: Sequence[str], request: WindowRequest) -> Reading:  # noqa: ARG002
        """Return an estimate, by ``max_tokens_per_doc``."""
        return await run_text_work(estimate_reading, texts, request, self.options.max_tokens_per_doc)

    def cache_key(self) -> str:
        """Return what a cache tells scorers apart by; another prompt of ours changes it."""
        return digest(super().cache_key(), PROMPT)


class _Call:
    """One call: its questions, and what they bring."""

    def __init__(self, scorer: JudgeScorer, query: str, texts: Sequence[str]) -> None:
        self._scorer = scorer
        self._options: JudgeOptions = scorer.options
        self._query = query
        self._texts = [cut_text(text, self._options.max_tokens_per_doc) for text in texts[: self._options.depth]]
        self._truncated = sum(len(cut) < len(text) for cut, text in zip(self._texts, texts, strict=False))
        self._count = len(texts)
        self._schema = build_schema(self._options.mode)
        self._scores: dict[int, float] = {}
        self._spent = 0.0

    async def run(self) -> Scored:
        with Consumption() as consumed:
            add_consumption(Usage(truncated=self._truncated, documents=len(self._texts)))
            try:
                with anyio.CancelScope(deadline=answer_deadline()) as scope:
                    ranked = await self._rank()
                if scope.cancelled_caught:
                    raise ScorerTimeoutError(
                        f"the call's timeout passed with {len(self._scores)} of {len(self._texts)} texts judged: "
                        "give it longer, or send fewer documents"
                    )
            except ScorerError as exc:
                exc.partial = {} if self._scorer.ordinal else dict(self._scores)
                exc.usage = consumed.usage
                raise
            return replace(self._to_scored(ranked), usage=consumed.usage)

    async def _rank(self) -> Judged:
        """Return the judged texts, best first."""
        count, options = len(self._texts), self._options
        longest = max(map(estimate_tokens, self._texts))
        window = min(options.window, max(2, options.max_input_tokens // longest))
        if options.mode == "pointwise":
            self._check_cost(self._build([0]), count)
            await fan_out(self._grade_alone, range(count), progress=False)
            return sort_judged(sorted(self._scores.items()))
        questions = count_questions(count, window, options.strategy) * options.samples
        self._check_cost(self._build(range(min(count, window))), questions)
        rank = rank_by_pivot if options.strategy == "pivot" else rank_by_sliding
        return await rank(self._judge, range(count), window)

    def _to_scored(self, ranked: Judged) -> Scored:
        """Return the answer; a text never scores higher than one before it, so that scores say the order."""
        scores, tiers = [0.0] * self._count, list(range(self._count))
        lowest = 1.0
        for place, (position, score) in enumerate(ranked):
            lowest = min(lowest, score)
            scores[position], tiers[position] = lowest, place
        if self._scorer.ordinal:
            scores = [place_to_score(tier, self._count) for tier in tiers]
        return Scored(scores, tiers=tiers if self._scorer.listwise or len(ranked) < self._count else ())

    async def _judge(self, positions: Sequence[int]) -> Judged:
        """Return all these texts, best first, as the mean of the samples."""
        orders = [list(positions)]
        for number in range(1, self._options.samples):
            shuffled = list(positions)
            random.Random(digest(self._query, str(number))).shuffle(shuffled)  # noqa: S311 - no secret
            orders.append(shuffled)
        samples = await fan_out(self._ask_covering, orders, progress=False)
        judged = merge_samples(samples)
        self._scores.update(judged)
        return complete(judged, positions)

    async def _ask_covering(self, positions: Sequence[int], *, may_halve: bool = True) -> Judged:
        """Return the judged ones of these texts, of a second answer where the first one has too few."""
        note = ""
        answers: list[Judged] = []
        enough = self._options.min_coverage * len(positions)
        for _ in range(2):
            reply = await self._ask(self._build(positions, note))
            if reply.refused:
                return await self._halve(positions, reply.refused, may_halve=may_halve)
            answers.append(read_answer(reply, self._options.mode, len(positions)))
            if len(answers[-1]) >= enough:
                return [(positions[at], score) for at, score in answers[-1]]
            missing = sorted(set(range(len(positions))) - {at for at, _ in answers[-1]})
            ids = ", ".join(str(at + 1) for at in missing)
            note = (
                f"Your last answer could not be used: it left out {ids}. Name every id from 1 to {len(positions)}."
            )
        best = max(answers, key=len)
        self._scores.update((positions[at], score) for at, score in best)
        why = ", because it was cut off for its length" if reply.finish in ("length", "max_tokens") else ""
        raise InvalidResponseError(
            f"judged {len(best)} of {len(positions)} documents, twice asked{why}: nothing can be ranked from it; "
            "use a smaller window=, or another model"
        )

    async def _halve(self, positions: Sequence[int], reason: str, *, may_halve: bool) -> Judged:
        """Ask about the halves of a window that was refused, to find the document that is to blame."""
        if may_halve and len(positions) > 1:
            middle = len(positions) // 2
            judged: Judged = []
            for half in (positions[:middle], positions[middle:]):
                judged += await self._ask_covering(half, may_halve=False)
                self._scores.update(judged)
            if not self._scorer.ordinal:
                return sort_judged(judged)
        numbers = [position + 1 for position in positions]
        which = f"text {numbers[0]}" if len(numbers) == 1 else f"the texts {min(numbers)} to {max(numbers)}"
        raise ScorerError(f"refused to judge {which} of the call ({reason}): leave out what the model refuses")

    async def _grade_alone(self, position: int) -> None:
        reply = await self._ask(self._build([position]))
        if reply.refused:
            await self._halve([position], reply.refused, may_halve=False)
        self._scores[position] = expect_grade(reply.logprobs)

    def _build(self, positions: Sequence[int], note: str = "") -> Question:
        texts = [self._texts[position] for position in positions]
        options = self._options
        if options.prompt is not None:
            messages = check_messages(options.prompt(self._query, texts))
        else:
            messages = build_messages(self._query, texts, mode=options.mode, instruction=options.instruction)
        more = [("user", note)] if note else []
        return Question(messages=[*messages, *more], documents=len(texts), schema=self._schema)

    async def _ask(self, question: Question) -> Reply:
        estimate = self._check_cost(question)
        self._spent += estimate
        add_consumption(Usage(requests=1))
        reply = await self._scorer.ask(question)
        usage = self._count_usage(question, reply)
        add_consumption(usage)
        self._spent += (usage.cost or 0.0) - estimate
        return reply

    def _check_cost(self, question: Question, times: int = 1) -> float:
        """Return about what a question costs, so many times; the call may not cost more than ``max_cost``."""
        cost, limit = self._count_usage(question, Reply()).cost, self._options.max_cost
        cost = (cost or 0.0) * times
        if limit is not None and self._spent + cost > limit:
            raise ScorerError(
                f"would cost about ${self._spent + cost:.6f}, more than max_cost={limit}: nothing more was sent; "
                "judge fewer or shorter texts, or allow more"
            )
        return cost

    def _count_usage(self, question: Question, reply: Reply) -> Usage:
        """Return what a reply reports, and an estimate of what it does not."""
        tokens, output = reply.input_tokens, reply.output_tokens
        if tokens is None:
            tokens = sum(estimate_tokens(content) for _, content in question.messages)
        if output is None:
            output = question.documents * _OUTPUT_TOKENS
        cost, price = reply.cost, self._scorer.price
        if cost is None and price is not None:
            cost = price.cost(tokens=tokens, output_tokens=output)
        estimated = reply.input_tokens is None or reply.output_tokens is None
        return Usage(tokens=tokens, output_tokens=output, cost=cost, estimated=estimated)


class ModelScorer(WrappingScorer, JudgeScorer):
    """A judge over a framework's own object for a language model."""

    options_without_effect_on_scores = (
        WrappingScorer.options_without_effect_on_scores | JudgeScorer.options_without_effect_on_scores
    )

    @abstractmethod
    def describe_model(self) -> str:
        """Return what tells the wrapped object's answers from another's, without a key."""

    def cache_key(self) -> str:
        """Return what a cache tells scorers apart by."""
        return digest(super().cache_key(), self.describe_model())
