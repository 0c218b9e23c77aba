"""``torch.compile`` for the transformer inside a ``CrossEncoder``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rerank_core.errors import ConfigurationError
from rerank_core.local.torch.readers import Features

__all__ = ["LEAST_PAIRS", "compile_model"]

LEAST_PAIRS = 2
"""Pairs in a batch at least: one graph serves all sizes but one, which would be compiled by itself."""


def compile_model(model: Any, run: Callable[[Features], Any], probe: Features, *, scorer: str) -> None:
    """Put a compiled ``forward`` into a ``CrossEncoder``, for batches of any size, and run it once.

    Args:
        model: the ``CrossEncoder``.
        run: runs a batch through it.
        probe: a batch of at least :data:`LEAST_PAIRS`.
        scorer: its name, for errors.

    Raises:
        ConfigurationError: it cannot be compiled here, most often because there is no compiler.
    """
    import torch

    transformer = model.transformers_model
    try:
        transformer.forward = torch.compile(transformer.forward, dynamic=True)
        run(probe)
    except Exception as exc:
        raise ConfigurationError(
            f"{scorer} cannot be compiled on {model.device} ({type(exc).__name__}, see the cause): install a C++ "
            "compiler, such as g++, and for CUDA triton, or leave out compile=True"
        ) from exc
