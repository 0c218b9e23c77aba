"""Pairs of a query and a text, tokenised and run through a cross-encoder's ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core.errors import ScorerError
from rerank_core.local.checkpoint import Checkpoint
from rerank_core.local.pairs import Pair, PairTokenizer
from rerank_core.local.runtimes.session import Session
from rerank_core.local.scorer import Activation, logits_to_scores

__all__ = ["OnnxPairs"]


class OnnxPairs:
    """An ONNX model, its tokenizer, and what makes one number of its outputs; in the engine's thread only.

    Args:
        scorer: whose model it is.
        activation: see :data:`Activation`.
        session: runs the model.
        tokenizer: with its truncation set.
        checkpoint: knows the padding and whether there are token types.
        one_at_a_time: run each pair alone, for a model whose scores depend on what else is in the batch.
    """

    def __init__(
        self,
        scorer: str,
        activation: Activation,
        session: Session,
        tokenizer: Any,
        checkpoint: Checkpoint,
        *,
        one_at_a_time: bool = False,
    ) -> None:
        self._scorer = scorer
        self._activation = activation
        self._session = session
        self._inputs = session.inputs
        self._one_at_a_time = one_at_a_time
        self._interrupted = False
        self._pairs = PairTokenizer(
            tokenizer,
            max_length=tokenizer.truncation["max_length"],
            pad_id=checkpoint.pad_id(tokenizer),
            token_types=checkpoint.has_token_types(),
        )
        self.tokenize = self._pairs.pairs
        self.max_text_tokens = self._pairs.max_text_tokens
        self.token_ends = self._pairs.token_ends

    def forward(self, items: Sequence[Pair], /) -> Sequence[float]:
        if not self._one_at_a_time:
            return self._run(items)
        return [number for item in items for number in self._run([item])]

    def _run(self, items: Sequence[Pair]) -> list[float]:
        if self._interrupted:
            raise ScorerError(f"{self._scorer} was interrupted: nobody waits for this batch any more")
        arrays = self._pairs.arrays(items)
        (logits, *_) = self._session.run({name: arrays[name] for name in arrays.keys() & self._inputs})
        return logits_to_scores(logits.reshape(len(items), -1), self._activation)

    def arm(self) -> None:
        self._interrupted = False
        self._session.arm()

    def interrupt(self) -> None:
        self._interrupted = True
        self._session.interrupt()
