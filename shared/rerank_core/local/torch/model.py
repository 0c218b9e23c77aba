"""What runs: a ``CrossEncoder`` on its devices, or a model that ranks all texts of a call by its own code."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, InvalidResponseError
from rerank_core.local.engine import ModelJob
from rerank_core.local.hub import ModelFiles
from rerank_core.local.scorer import Activation, logits_to_scores
from rerank_core.local.torch.loading import keep_class_unpatched
from rerank_core.local.torch.readers import Features, Reader
from rerank_core.reading import estimate_token_ends, estimate_tokens

_PURPOSE = "a model that ranks all texts together"

_CPU_TOKENS = 1024
_ACCELERATOR_TOKENS = 8192
_CUDA_TOKENS = 65_536
_LEAST_CUDA_TOKENS = 2048
_MEMORY_SHARE = 0.4
_LIVE = 2
"""How often the widths of a layer's activations are alive at once, residuals and attention included."""
_LEAST_COMPILED_PAIRS = 2
"""One compiled graph serves batches of all sizes but one, which would be compiled by itself."""


class TorchPairs:
    """A ``CrossEncoder`` on its devices, each of several in a thread of its own; for the engine's thread only.

    Args:
        models: the same one on each device.
        reader: makes batches of pairs.
        activation: how outputs become numbers.
        tokens_per_batch: padded tokens per batch on each device; None for what suits it.
        compiled: run them through ``torch.compile``.
    """

    def __init__(
        self,
        models: Sequence[Any],
        reader: Reader,
        *,
        activation: Activation,
        tokens_per_batch: int | None,
        compiled: bool,
    ) -> None:
        import torch

        self.tokens_per_batch = (tokens_per_batch or min(map(choose_tokens_per_batch, models))) * len(models)
        self._activation = activation
        self._features = reader.features
        self._replicas = [Replica(model) for model in models]
        self._pool = ThreadPoolExecutor(len(models), "rerank-core-device") if len(models) > 1 else None
        # Then the outputs are probabilities, of which the logits are wanted.
        self._ends_in_sigmoid = isinstance(getattr(models[0][-1], "activation_function", None), torch.nn.Sigmoid)
        self.tokenize = reader.tokenize
        self.max_text_tokens = reader.max_text_tokens
        self.token_ends = reader.token_ends
        if compiled:
            probe = self._features(self.tokenize("Which of them is longer?", ["this", "this one here"]))
            for replica in self._replicas:
                replica.compile(probe)

    def forward(self, items: Sequence[Any], /) -> Sequence[float]:
        """Return one number per pair; raises what the first device raised that failed, when all have ended."""
        import torch

        if self._pool is None:
            outputs = self._replicas[0].outputs(self._features(items))
        else:
            parts = _split_evenly(list(map(len, items)), len(self._replicas))
            batches = [self._features(items[part]) for part in parts]
            running = [
                self._pool.submit(replica.outputs, batch)
                for replica, batch in zip(self._replicas, batches, strict=False)
            ]
            wait(running)
            outputs = torch.cat([future.result() for future in running])
        if self._ends_in_sigmoid and self._activation != "identity":
            outputs = torch.logit(outputs, eps=1e-12)
        return logits_to_scores(outputs.numpy(), self._activation)


class Replica:
    """A ``CrossEncoder`` on one device."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = model.device
        self._least_pairs = 1

    def compile(self, probe: Features) -> None:
        """Run the transformer through ``torch.compile`` from now on, for batches of any size; try it on one."""
        import torch

        transformer = self._model.transformers_model
        self._least_pairs = _LEAST_COMPILED_PAIRS
        try:
            transformer.forward = torch.compile(transformer.forward, dynamic=True)
            self.outputs(probe)
        except Exception as exc:
            raise ConfigurationError(
                f"the model cannot be compiled on {self._device} ({type(exc).__name__}, see the cause): install a "
                "C++ compiler, such as g++, and for CUDA triton, or leave out compile=True"
            ) from exc

    def outputs(self, features: Features) -> Any:
        """Return the raw outputs of a batch, of shape (pairs, labels), in double precision on the CPU."""
        import torch

        cuda = self._device.type == "cuda"
        pairs = len(features["input_ids"])
        with torch.inference_mode(), torch.cuda.device(self._device) if cuda else nullcontext():
            moved = {name: self._moved(value, pinned=cuda) for name, value in features.items()}
            scores = self._model(moved)["scores"][:pairs]
            return scores.reshape(pairs, -1).cpu().double()  # there, as not every device has doubles

    def _moved(self, value: Any, *, pinned: bool) -> Any:
        if not hasattr(value, "to"):
            return value
        if len(value) < self._least_pairs:  # the last pair is repeated
            value = value[[*range(len(value)), *[-1] * (self._least_pairs - len(value))]]
        return (value.pin_memory() if pinned else value).to(self._device, non_blocking=pinned)


def _split_evenly(lengths: Sequence[int], count: int) -> list[slice]:
    """Return at most ``count`` slices of about the same number of tokens each, none of them empty.

    >>> _split_evenly([60, 30, 20, 10, 10, 10], 2), _split_evenly([9], 2)
    ([slice(0, 2, None), slice(2, 6, None)], [slice(0, 1, None)])
    """
    share = sum(lengths) / count
    slices: list[slice] = []
    start, tokens = 0, 0
    for position, length in enumerate(lengths):
        tokens += length
        if tokens >= share * (len(slices) + 1) or position + 1 == len(lengths):
            slices.append(slice(start, position + 1))
            start = position + 1
    return slices


def choose_tokens_per_batch(model: Any) -> int:
    """Return how many padded tokens per batch suit the device that a ``CrossEncoder`` is on.

    On a CPU 1,024, which fit its caches. On CUDA 65,536, which keep it busy, or fewer where a layer's activations
    would take more than two fifths of the free memory. 8,192 elsewhere.
    """
    kind = model.device.type
    if kind != "cuda":
        return _CPU_TOKENS if kind == "cpu" else _ACCELERATOR_TOKENS
    import torch

    free, _ = torch.cuda.mem_get_info(model.device)
    return _tokens_within(free, model.config, model.dtype.itemsize)


def _tokens_within(free: int, config: Any, itemsize: int) -> int:
    """Return how many tokens' activations fit in a share of the free bytes, within the limits for CUDA.

    >>> from types import SimpleNamespace
    >>> large = SimpleNamespace(hidden_size=1024, intermediate_size=4096)
    >>> _tokens_within(80 * 2**30, large, 2), _tokens_within(4 * 2**30, large, 4), _tokens_within(0, large, 4)
    (65536, 10485, 2048)
    """
    hidden = getattr(config, "hidden_size", 1024)
    width = 8 * hidden + 3 * getattr(config, "intermediate_size", 4 * hidden)
    fitting = int(free * _MEMORY_SHARE) // (width * itemsize * _LIVE)
    return max(_LEAST_CUDA_TOKENS, min(_CUDA_TOKENS, fitting))


class ListwiseJob(ModelJob["ListwiseJob", Sequence[float]]):
    """Scores all texts of a call together; the job is its own only item, as long as its texts."""

    count = 1

    def __init__(self, query: str, texts: Sequence[str]) -> None:
        self.query = query
        self.texts = texts
        self.tokens = sum(map(estimate_tokens, (query, *texts)))
        self.scores: Sequence[float] = ()

    def __len__(self) -> int:
        return self.tokens

    def encode(self, model: Any, start: int, stop: int) -> Sequence[tuple[int, ListwiseJob]]:  # noqa: ARG002
        """Return the whole call as one item."""
        return [(0, self)]

    def accept(self, position: int, output: Sequence[float]) -> None:  # noqa: ARG002
        """Take the scores of all texts."""
        self.scores = output


class ListwiseModel:
    """A model with a ``rerank`` of its own, such as jina-reranker-v3, on one device; in the engine's thread only.

    Raises:
        ConfigurationError: the scorer's options do not let the model's own code run, or do not fit it.
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
        transformers = require("transformers", extra="local", purpose=_PURPOSE)
        files = ModelFiles(name, revision=options.revision, offline=options.local_files_only)
        with keep_class_unpatched():
            model = transformers.AutoModel.from_pretrained(
                name,
                revision=options.revision,
                local_files_only=files.is_cached,
                trust_remote_code=True,
                dtype=options.dtype,
            )
        library = require("sentence_transformers.util", extra="local", purpose=_PURPOSE)
        self._model = model.to(options.devices[0] or library.get_device_name()).eval()

    def forward(self, items: Sequence[ListwiseJob], /) -> Sequence[Sequence[float]]:
        """Return the scores of each call's texts."""
        return [self._rank(item) for item in items]

    def max_text_tokens(self, query: str) -> None:
        """Return None: how much of a text is read depends on the others."""

    def token_ends(self, texts: Sequence[str], limit: int) -> Sequence[Sequence[int]]:
        """Return about where the first tokens of texts end."""
        return [estimate_token_ends(text, limit) for text in texts]

    def _rank(self, item: ListwiseJob) -> list[float]:
        ranked = self._model.rerank(item.query, list(item.texts))
        scores = {result["index"]: float(result["relevance_score"]) for result in ranked}
        if scores.keys() != set(range(len(item.texts))):
            raise InvalidResponseError(f"the model's own code ranked {len(scores)} of {len(item.texts)} texts")
        return [scores[index] for index in range(len(item.texts))]
