"""A ``CrossEncoder`` on one device or several: how much of a batch each takes, and ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import Any, TypeVar

from rerank_core.errors import ConfigurationError
from rerank_core.local.torch.readers import Features

__all__ = ["Replica", "Replicas", "choose_tokens_per_batch", "split_evenly"]

Item = TypeVar("Item", bound=Sized)

_CPU_TOKENS = 1024
_ACCELERATOR_TOKENS = 8192
_CUDA_TOKENS = 65_536
_LEAST_CUDA_TOKENS = 2048
_MEMORY_SHARE = 0.4
_LIVE = 2
"""How often the widths of a layer's activations are alive at once, residuals and attention included."""
_LEAST_COMPILED_PAIRS = 2
"""One compiled graph serves batches of all sizes but one, which would be compiled by itself."""


class Replica:
    """A model on one device.

    Args:
        model: a ``CrossEncoder``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = model.device
        self._least_pairs = 1

    def compile(self, probe: Features) -> None:
        """Run the transformer through ``torch.compile`` from now on, for batches of any size.

        Args:
            probe: a batch of two pairs or more, which is run once.

        Raises:
            ConfigurationError: it cannot be compiled here, most often because there is no compiler.
        """
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


class Replicas:
    """The same model on one device, or on several, each of which then runs in a thread of its own."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = list(replicas)
        self._pool = ThreadPoolExecutor(len(replicas), "rerank-core-device") if len(replicas) > 1 else None

    def __len__(self) -> int:
        return len(self._replicas)

    def outputs(self, items: Sequence[Item], features: Callable[[Sequence[Item]], Features]) -> Any:
        """Return the outputs of items, longest first, in their order.

        Raises:
            Exception: whatever the first of the devices raised that failed, when all of them have ended.
        """
        import torch

        if self._pool is None:
            return self._replicas[0].outputs(features(items))
        batches = [features(items[part]) for part in split_evenly(list(map(len, items)), len(self._replicas))]
        running = [
            self._pool.submit(replica.outputs, batch)
            for replica, batch in zip(self._replicas, batches, strict=False)
        ]
        wait(running)
        return torch.cat([future.result() for future in running])


def split_evenly(lengths: Sequence[int], count: int) -> list[slice]:
    """Return at most ``count`` slices of about the same number of tokens each, none of them empty.

    >>> split_evenly([60, 30, 20, 10, 10, 10], 2), split_evenly([9], 2)
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
