"""Every scorer into every fault: the correct result or one documented error, never a wrong ranking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.faults import FaultTable, expected_outcomes
from support.loopback import FAULTS, Loopback

from rerank_core.remote import sending

# One provider for each format; tests/benchmarks/faults.py prints the table of all of them.
PROVIDERS = ("bedrock", "cohere", "voyage", "jina", "tei", "llamacpp", "deepinfra", "nvidia", "oci", "vertex")


@pytest.fixture(scope="module")
def table(loopback: Loopback) -> Iterator[FaultTable]:
    """Return the fault table, with waits of some milliseconds between attempts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "_backoff", lambda attempt: 0.005)
        table = FaultTable(loopback)
        yield table
        table.close()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_fault_ends_in_the_documented_outcome(table: FaultTable, provider: str, fault: str) -> None:
    """A fault that passes is survived, any other ends in its one error."""
    assert table.outcomes(provider, fault) == expected_outcomes(provider, fault)
