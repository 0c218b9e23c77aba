"""The choice of a runtime by option, package and CPU."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Any

import pytest

from rerank_core import ConfigurationError, MissingExtraError
from rerank_core.local import cpu
from rerank_core.local.cpu import multiplies_bytes
from rerank_core.local.runtimes import SessionOptions, choose_runtime, open_session


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which openvino is not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openvino" else real(name)
    )


@pytest.mark.parametrize(
    ("machine", "flags", "precision", "expected"),
    [
        ("x86_64", "avx2", "auto", "openvino"),
        ("AMD64", "avx2", "fp32", "openvino"),
        ("x86_64", "avx2", "int8", "onnxruntime"),
        ("x86_64", "avx2 avx_vnni", "int8", "openvino"),
        ("aarch64", "", "fp32", "onnxruntime"),
    ],
)
def test_auto_is_the_faster_runtime_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str, precision: Any, expected: str
) -> None:
    """OpenVINO on x86, for int8 only where the CPU multiplies bytes; ONNX Runtime elsewhere."""
    pytest.importorskip("openvino")
    (tmp_path / "cpuinfo").write_text(f"model name: any\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert choose_runtime("auto", precision) == expected


@pytest.mark.usefixtures("without_openvino")
def test_without_openvino_auto_is_onnx_runtime() -> None:
    """What is not installed is not chosen, and is named with its extra where it is asked for."""
    assert choose_runtime("auto", "fp32") == "onnxruntime"
    with pytest.raises(MissingExtraError, match=r"^runtime='openvino'.*rerank-bridge\[openvino\]"):
        choose_runtime("openvino", "fp32")
    with pytest.raises(MissingExtraError, match=r"rerank-bridge\[openvino\]"):
        choose_runtime("auto", "bf16")


@pytest.mark.parametrize(
    ("runtime", "precision", "message"),
    [
        ("onnxruntime", "bf16", "needs runtime='openvino'"),
        ("torch", "fp32", "runtime is 'torch': give one of auto, onnxruntime, openvino"),
        ("auto", "fp16", "precision is 'fp16': give one of auto, fp32, bf16, int8"),
    ],
)
def test_what_does_not_go_together_is_refused(runtime: Any, precision: Any, message: str) -> None:
    """The error names the option and what it may be."""
    with pytest.raises(ConfigurationError, match=message):
        choose_runtime(runtime, precision)


def test_bf16_needs_a_cpu_that_has_it() -> None:
    """On a CPU without bfloat16 the error names what it lacks; on one with it a broken model is the error."""
    openvino = pytest.importorskip("openvino")
    has = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with pytest.raises(ConfigurationError, match="cannot load" if has else "needs a CPU with AVX512-BF16 or AMX"):
        open_session(b"no model", SessionOptions("openvino", "bf16"))


def test_without_a_list_of_flags_no_instructions_are_assumed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Other systems than Linux have no such file."""
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "missing")
    assert not multiplies_bytes()
