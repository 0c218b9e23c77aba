"""A ``CrossEncoder`` on each of several devices, and how much of a batch each takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import Any, TypeVar

from rerank_core.local.torch.readers import Features

__all__ = ["Replica", "Replicas", "parts", "suitable_tokens"]

Item = TypeVar("Item", bound=Sized)

_CPU_TOKENS = 1024
_ACCELERATOR_TOKENS = 8192
_CUDA_TOKENS = 65_536
_LEAST_CUDA_TOKENS = 2048
_MEMORY_SHARE = 0.4
_LIVE = 2
"""How often the widths of a layer's activations are alive at once, residuals and attention included."""


class Replica:
    """A model on one device.

    Args:
        model: a ``CrossEncoder``.
        least: pairs in a batch, to which the last one is repeated.
    """

    def __init__(self, model: Any, *, least: int = 1) -> None:
        self.model = model
        self.device = model.device
        self._least = least

    def outputs(self, features: Features) -> Any:
        """Return the raw outputs of a batch, of shape (pairs, labels), in double precision on the CPU."""
        import torch

        cuda = self.device.type == "cuda"
        pairs = len(features["input_ids"])
        with torch.inference_mode(), torch.cuda.device(self.device) if cuda else nullcontext():
            moved = {name: self._moved(value, pinned=cuda) for name, value in features.items()}
            scores = self.model(moved)["scores"][:pairs]
            return scores.reshape(pairs, -1).cpu().double()  # there, as not every device has doubles

    def _moved(self, value: Any, *, pinned: bool) -> Any:
        if not hasattr(value, "to"):
            return value
        if len(value) < self._least:
            value = value[[*range(len(value)), *[-1] * (self._least - len(value))]]
        return (value.pin_memory() if pinned else value).to(self.device, non_blocking=pinned)


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
        batches = [features(items[part]) for part in parts(list(map(len, items)), len(self._replicas))]
        running = [
            self._pool.submit(replica.outputs, batch)
            for replica, batch in zip(self._replicas, batches, strict=False)
        ]
        wait(running)
        return torch.cat([future.result() for future in running])


def parts(lengths: Sequence[int], count: int) -> list[slice]:
    """Return at most so many slices of about as many tokens each, none of them empty.

    >>> parts([60, 30, 20, 10, 10, 10], 2), parts([9], 2)
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


def suitable_tokens(model: Any) -> int:
    """Return how many padded tokens a batch suit the device that a ``CrossEncoder`` is on.

    Few on a CPU, whose caches they fill: 1,024. On CUDA as many as keep it busy, 65,536, or fewer where the
    activations of a layer for so many would take more than two fifths of the memory that is free. 8,192 elsewhere.
    """
    kind = model.device.type
    if kind != "cuda":
        return _CPU_TOKENS if kind == "cpu" else _ACCELERATOR_TOKENS
    import torch

    free, _ = torch.cuda.mem_get_info(model.device)
    return tokens_within(free, model.config, model.dtype.itemsize)


def tokens_within(free: int, config: Any, itemsize: int) -> int:
    """Return how many tokens' activations fit in a share of so many bytes, in the limits for CUDA.

    >>> from types import SimpleNamespace
    >>> large = SimpleNamespace(hidden_size=1024, intermediate_size=4096)
    >>> tokens_within(80 * 2**30, large, 2), tokens_within(4 * 2**30, large, 4), tokens_within(0, large, 4)
    (65536, 10485, 2048)
    """
    hidden = getattr(config, "hidden_size", 1024)
    width = 8 * hidden + 3 * getattr(config, "intermediate_size", 4 * hidden)
    fitting = int(free * _MEMORY_SHARE) // (width * itemsize * _LIVE)
    return max(_LEAST_CUDA_TOKENS, min(_CUDA_TOKENS, fitting))
