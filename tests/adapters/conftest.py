"""What the adapters' tests share: every door into them, and a provider to load scorers of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.doors import DOORS, KINDS, Door
from support.keyed_provider import installed_provider


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Any]:
    """Return each adapter's class in turn."""
    return request.param


@pytest.fixture(params=DOORS, ids=str)
def door(request: pytest.FixtureRequest) -> Door:
    """Return each framework's adapter in turn, called sync and async."""
    return request.param


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Install the provider ``keyed`` for a test."""
    with installed_provider(tmp_path, monkeypatch) as module:
        yield module
