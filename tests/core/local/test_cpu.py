"""How many cores there are: the scheduler's mask, and a container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rerank_core.local import cpu


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for the files of control groups, with eight cores in the scheduler's mask."""
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path / "cpu.max")
    monkeypatch.setattr(cpu, "_CPUS", tmp_path / "cpus")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def test_without_a_quota_the_mask_decides(cgroup: Path) -> None:
    """No file of control groups means no limit."""
    assert cpu.available_cores() == 8


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("nonsense\n", 8),
        ("", 8),
        ("100000 0\n", 8),
    ],
)
def test_the_quota_of_version_2_bounds_the_mask(cgroup: Path, content: str, cores: int) -> None:
    """Rounded down, at least 1; a file that cannot be read as a quota is none."""
    (cgroup / "cpu.max").write_text(content)
    assert cpu.available_cores() == cores


def test_without_a_mask_all_cores_count(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems have no such call; and where nothing is known there is one core."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert cpu.available_cores() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu.available_cores() == 1


def test_hardware_threads_of_a_core_count_once(cgroup: Path) -> None:
    """Eight of them on four cores, as the system lists siblings; one that it does not list is a core."""
    for number in range(7):
        folder = cgroup / "cpus" / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert cpu.available_cores() == 5


@pytest.mark.parametrize(("asked", "threads"), [(None, 2), (1, 1), (2, 2), (16, 2)])
def test_threads_never_exceed_the_quota(cgroup: Path, asked: int | None, threads: int) -> None:
    """However many are asked for."""
    (cgroup / "cpu.max").write_text("250000 100000\n")
    assert cpu.usable_threads(asked) == threads


def test_without_a_quota_as_many_threads_as_asked_for(cgroup: Path) -> None:
    """More than there are cores may be meant."""
    assert cpu.usable_threads(16) == 16
