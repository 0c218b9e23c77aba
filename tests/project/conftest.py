"""What the tests of notebooks and the demo share: the core that they run on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def one_core() -> Iterator[None]:
    """Start a test's processes on one core: where others run beside them, a model's threads wait busily."""
    if not hasattr(os, "sched_setaffinity"):  # as on macOS and Windows
        yield
        return
    cores = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})
    yield
    os.sched_setaffinity(0, cores)
