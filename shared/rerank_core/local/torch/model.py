"""The engine's model of a ``CrossEncoder``: reads pairs, runs them on its devices, makes one number of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_core.local.scorer import Activation, logits_to_scores
from rerank_core.local.torch.readers import Reader
from rerank_core.local.torch.replicas import Replicas

__all__ = ["TorchPairs"]


class TorchPairs:
    """A ``CrossEncoder`` on its devices, in the engine's thread.

    Args:
        reader: makes batches of pairs.
        replicas: run them.
        activation: how outputs become numbers.
        tokens_per_batch: padded tokens per batch on each device.
        ends_in_sigmoid: whether the outputs are probabilities already, of which the logits are wanted.
    """

    def __init__(
        self,
        reader: Reader,
        replicas: Replicas,
        *,
        activation: Activation,
        tokens_per_batch: int,
        ends_in_sigmoid: bool,
    ) -> None:
        self.tokens_per_batch = tokens_per_batch * len(replicas)
        self._activation = activation
        self._reader = reader
        self._replicas = replicas
        self._ends_in_sigmoid = ends_in_sigmoid
        self.tokenize = reader.tokenize
        self.max_text_tokens = reader.max_text_tokens
        self.token_ends = reader.token_ends

    def forward(self, items: Sequence[Any], /) -> Sequence[float]:
        """Return one number per pair."""
        import torch

        outputs = self._replicas.outputs(items, self._reader.features)
        if self._ends_in_sigmoid and self._activation != "identity":
            outputs = torch.logit(outputs, eps=1e-12)
        return logits_to_scores(outputs.numpy(), self._activation)
