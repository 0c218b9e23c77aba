"""What all tests share: no network, deterministic limits, and checkpoints that are built once."""

from __future__ import annotations

import os

# Read when the hub's client is imported: a test that would fetch something fails at once instead.
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from support.models import Shape, build_checkpoint, export_onnx

# Cores are shared with whatever else runs, so an example may take any time.
settings.register_profile("rerank-bridge", deadline=None, max_examples=60)
settings.load_profile("rerank-bridge")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Shape], Path]:
    """Return a function that builds the random-weight checkpoint of a shape, with ``model.onnx``, once."""
    built: dict[Shape, Path] = {}

    def build(shape: Shape) -> Path:
        if shape not in built:
            folder = build_checkpoint(tmp_path_factory.mktemp(shape), shape)
            export_onnx(folder, folder / "model.onnx")
            built[shape] = folder
        return built[shape]

    return build
