"""The chat server that the tests of judging by language models share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.chat import ChatServer, serving


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    """Return a running server."""
    with serving() as server:
        yield server
