"""How many cores there are: the scheduler's mask, and a container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rerank_core import _cpu


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for the files of control groups, with eight cores in the scheduler's mask."""
    monkeypatch.setattr(_cpu, "_CGROUP_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(_cpu, "_CGROUP_V1", tmp_path / "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu").mkdir()
    return tmp_path


def test_without_a_quota_the_mask_decides(cgroup: Path) -> None:
    """No file of control groups means no limit."""
    assert _cpu.available_cores() == 8


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("nonsense\n", 8),
        ("", 8),
        ("100000 0\n", 8),
    ],
)
def test_the_quota_of_version_2_bounds_the_mask(cgroup: Path, content: str, cores: int) -> None:
    """Rounded up, at least 1; a file that cannot be read as a quota is none."""
    (cgroup / "cpu.max").write_text(content)
    assert _cpu.available_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", 8), ("200000\n", 2), ("100\n", 1), ("?\n", 8)])
def test_the_quota_of_version_1_bounds_the_mask(cgroup: Path, quota: str, cores: int) -> None:
    """-1 means none."""
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert _cpu.available_cores() == cores


def test_without_a_mask_all_cores_count(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems have no such call; and where nothing is known there is one core."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert _cpu.available_cores() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _cpu.available_cores() == 1
