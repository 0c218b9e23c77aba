"""How many cores this process may use, and what they can do."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_FEATURES = _VNNI | {"avx2", "avx512f"}
_CGROUP = Path("/sys/fs/cgroup/cpu.max")
_CPUS = Path("/sys/devices/system/cpu")
_SIBLINGS = "topology/thread_siblings_list"


def usable_threads(threads: int | None) -> int:
    """Return how many threads a model runs in: those asked for, or all, but no more than the quota allows."""
    return available_cores() if threads is None else min(threads, _limit_by_quota(threads))


def available_cores() -> int:
    """Return the physical cores that this process may run on, no more than its container's CPU quota allows.

    Two hardware threads of one core share its arithmetic units, so they count once; where the system does not say
    which threads share a core (outside Linux), each counts. The quota is that of control groups (version 2),
    rounded down, because waiting threads use it up too. At least 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(set(map(_core_of, affinity(0)))) if affinity is not None else os.cpu_count() or 1
    return _limit_by_quota(cores)


def multiplies_bytes() -> bool:
    """Tell whether this is an x86 CPU with instructions for sums of products of bytes (VNNI, AMX)."""
    return not _VNNI.isdisjoint(cpu_features())


def cpu_features() -> frozenset[str]:
    """Return the instruction sets that decide about int8, as Linux calls them: x86's, or ``arm64``."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return frozenset({"arm64"})
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:  # other systems list none; nearly all x86 CPUs have this one
        return frozenset({"avx2"})
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return _FEATURES.intersection(flags.split())


def _core_of(cpu: int) -> str:
    """Return what is the same for all hardware threads of a core."""
    try:
        return (_CPUS / f"cpu{cpu}" / _SIBLINGS).read_text(encoding="utf-8").strip()
    except OSError:
        return str(cpu)


def _limit_by_quota(cores: int) -> int:
    try:
        limit, _, period = _CGROUP.read_text(encoding="utf-8").strip().partition(" ")
        return cores if limit == "max" else max(1, min(cores, int(limit) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return cores
