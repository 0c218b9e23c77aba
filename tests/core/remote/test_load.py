"""Many calls at once into a service that fails now and then; tests/benchmarks/load.py makes ten times as many."""

from __future__ import annotations

import pytest
from support.load import Load
from support.loopback import Loopback

from rerank_core.remote import sending


@pytest.mark.parametrize("door", ["threads", "loop"])
@pytest.mark.parametrize("provider", ["cohere", "voyage", "jina"])
def test_no_call_is_wrong_and_none_is_lost(
    loopback: Loopback, provider: str, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one request in twenty refused and one in fifty dropped."""
    monkeypatch.setattr(sending, "_backoff", lambda attempt: 0.02)
    load = Load(loopback, provider, calls=200)
    result = load.from_threads() if door == "threads" else load.from_one_loop()
    assert (result.wrong, result.lost) == (0, 0)
    assert result.retries > 0
    assert result.extra_memory < 100
