"""The reader of safetensors files, against the safetensors package."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rerank_core import ConfigurationError
from rerank_core.local.formats.safetensors import Weights, has_weights

VALUES = torch.tensor([[1.5, -2.25, 3e-5], [0.0, 65504.0, -0.0]])


def written(folder: Path, header: object, data: bytes = bytes(8)) -> Path:
    """Write a file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def entry(
    dtype: str = "F32", shape: tuple[object, ...] = (2,), offsets: tuple[int, ...] = (0, 8)
) -> dict[str, object]:
    """Return a header of one tensor, w."""
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floating_types_are_read_in_single_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    """Each value is what torch makes of it."""
    save_file({"w": VALUES.to(dtype), "scalar": torch.tensor(2.0, dtype=dtype)}, tmp_path / "model.safetensors")
    weights = Weights(tmp_path)
    assert has_weights(tmp_path)
    assert "w" in weights
    assert "v" not in weights
    np.testing.assert_array_equal(weights["w"], VALUES.to(dtype).float().numpy())
    assert weights["scalar"].shape == ()
    assert weights["scalar"] == 2


def test_single_precision_is_not_copied(tmp_path: Path) -> None:
    """Twice the same tensor is twice the same memory, the mapped file's, and changing it leaves the file alone."""
    save_file({"w": VALUES}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    weights = Weights(tmp_path)
    first, second = weights["w"], weights["w"]
    assert np.shares_memory(first, second)
    first[0, 0] = 7
    assert second[0, 0] == 7
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    """Each tensor comes from the file that holds it."""
    save_file({"a": VALUES}, tmp_path / "one.safetensors")
    save_file({"b": 2 * VALUES}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = Weights(tmp_path)
    assert has_weights(tmp_path)
    np.testing.assert_array_equal(weights["b"], 2 * weights["a"])


def test_a_tensor_of_integers_is_named(tmp_path: Path) -> None:
    """Opening the file is no error, because a checkpoint may have some that nobody asks for."""
    weights = Weights(written(tmp_path, entry("I32")))
    with pytest.raises(ConfigurationError, match="tensor 'w' is of type I32; F64, F32, F16, BF16 are read"):
        weights["w"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (entry(offsets=(0, 16), shape=(4,)), "tensor 'w' does not have as many bytes"),
        (entry(offsets=(8, 0)), "tensor 'w' does not have as many bytes"),
        (entry(shape=(3,)), "tensor 'w' does not have as many bytes"),
        (entry(shape=("a",)), "tensor 'w' does not have as many bytes"),
        (entry(shape=(1,) * 65), "tensor 'w' does not have as many bytes"),
        (entry(shape=(-1, -2)), "tensor 'w' does not have as many bytes"),
        (entry(shape=(2**32, 2**32), offsets=(0, 0)), "tensor 'w' does not have as many bytes"),
        (b'{"w":' + b"[" * 100_000, "header cannot be read"),
        (entry(offsets=(0,)), "header cannot be read"),
        ({"w": 1}, "header cannot be read"),
        ([], "header cannot be read"),
        (b"no json", "header cannot be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, header: object, message: str) -> None:
    """A header that does not fit its file is an error that names the file, at the latest when it is read."""
    with pytest.raises(ConfigurationError, match=rf"model\.safetensors is not a usable .*: .*{message}"):
        Weights(written(tmp_path, header))["w"]


@pytest.mark.parametrize("kept", [0, 5, 20, -1], ids=["empty", "length", "header", "data"])
def test_cut_files_are_refused(tmp_path: Path, kept: int) -> None:
    """Wherever a download stopped, the file is refused."""
    path = tmp_path / "model.safetensors"
    save_file({"w": VALUES}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigurationError, match=r"model\.safetensors"):
        Weights(tmp_path)["w"]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "has no model.safetensors"),
        ("[]", "lists no files"),
        ('{"weight_map": {"a": 1}}', "1 is not a usable"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "not beside it"),
        ('{"weight_map": {"a": "missing.safetensors"}}', "missing.safetensors"),
    ],
    ids=["none", "list", "number", "elsewhere", "missing"],
)
def test_an_index_must_name_files_beside_it(tmp_path: Path, index: str | None, message: str) -> None:
    """No index, a damaged one, or one that points elsewhere is an error."""
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigurationError, match=message):
        Weights(tmp_path)
