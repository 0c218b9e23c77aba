"""Models that rank all texts of a call in one pass, by their own code: jina-reranker-v3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, InvalidResponseError
from rerank_core.local.engine import ModelJob
from rerank_core.local.hub import ModelFiles
from rerank_core.local.torch.loading import keep_class_unpatched
from rerank_core.reading import estimate_token_ends, estimate_tokens

__all__ = ["ListwiseJob", "ListwiseModel"]


@dataclass(frozen=True, slots=True)
class _Call:
    """All texts of a call, which are one item; its length is about its number of tokens."""

    query: str
    texts: Sequence[str]
    tokens: int

    def __len__(self) -> int:
        return self.tokens


class ListwiseJob(ModelJob[_Call, Sequence[float]]):
    """Scores all texts of a call together."""

    count = 1

    def __init__(self, query: str, texts: Sequence[str]) -> None:
        self.scores: list[float] = []
        self.tokens = sum(map(estimate_tokens, (query, *texts)))
        self._query = query
        self._texts = texts

    def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, _Call]]:  # noqa: ARG002
        """Return the whole call as one item."""
        return [(0, _Call(self._query, self._texts, self.tokens))]

    def accept(self, position: int, output: Sequence[float]) -> None:  # noqa: ARG002
        """Take the scores of all texts."""
        self.scores = list(output)


class ListwiseModel:
    """A model with a ``rerank`` of its own, on one device; in the engine's thread only.

    Args:
        name: a local folder or a hub id.
        options: of the scorer.

    Raises:
        ConfigurationError: the options do not let the model's own code run, or do not fit it.
    """

    def __init__(self, name: str, options: Any) -> None:
        if not options.trust_remote_code:
            raise ConfigurationError(
                "the model ranks by code of its own: give trust_remote_code=True, or use the service 'jina:'"
            )
        for option in ("attention", "instruction", "template", "max_length"):
            if getattr(options, option) is not None:
                raise ConfigurationError(f"{option}= does not apply to a model that ranks by code of its own")
        if len(options.devices) > 1 or options.compile:
            raise ConfigurationError("a model that ranks by code of its own runs on one device, not compiled")
        transformers = require("transformers", extra="local", purpose="a model that ranks all texts together")
        files = ModelFiles(name, revision=options.revision, offline=options.local_files_only)
        with keep_class_unpatched():
            model = transformers.AutoModel.from_pretrained(
                name,
                revision=options.revision,
                local_files_only=files.is_cached,
                trust_remote_code=True,
                dtype=options.dtype,
            )
        library = require(
            "sentence_transformers.util", extra="local", purpose="a model that ranks all texts together"
        )
        self._model = model.to(options.devices[0] or library.get_device_name()).eval()

    def forward(self, items: Sequence[_Call], /) -> Sequence[Sequence[float]]:
        """Return the scores of each call's texts."""
        return [self._rank(item) for item in items]

    def max_text_tokens(self, query: str) -> None:
        """Return None: how much of a text is read depends on the others."""

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return about where the first tokens of texts end."""
        return [estimate_token_ends(text, limit) for text in texts]

    def _rank(self, item: _Call) -> list[float]:
        ranked = self._model.rerank(item.query, list(item.texts))
        scores = {result["index"]: float(result["relevance_score"]) for result in ranked}
        if scores.keys() != set(range(len(item.texts))):
            raise InvalidResponseError(f"the model's own code ranked {len(scores)} of {len(item.texts)} texts")
        return [scores[index] for index in range(len(item.texts))]
