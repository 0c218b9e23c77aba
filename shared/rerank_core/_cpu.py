"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cores", "thread_count"]

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def available_cores() -> int:
    """Return the cores that this process may run on, no more than its container's CPU quota allows.

    The affinity mask is the scheduler's, the quota that of control groups (``cpu.max`` in version 2,
    ``cpu.cfs_quota_us`` in version 1), rounded up; at least 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def thread_count(threads: int | None) -> int:
    """Return the threads to use: all available cores for None, and never more than those."""
    return available_cores() if threads is None else min(threads, available_cores())


def _quota() -> float | None:
    try:
        limit, _, period = _CGROUP_V2.read_text().strip().partition(" ")
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        microseconds = int((_CGROUP_V1 / "cpu.cfs_quota_us").read_text())
        period_us = int((_CGROUP_V1 / "cpu.cfs_period_us").read_text())
        return microseconds / period_us if microseconds > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
