"""The contract of scorers, kept by every provider's scorer over a real socket."""

from __future__ import annotations

import pytest
from support.loopback import Loopback
from support.providers import KEY, scorer_of

from rerank_core import Scorer
from rerank_core.testing import ScorerContract


class ProviderContract(ScorerContract):
    """A provider on loopback; the key is in the environment too, where a pickled copy looks for it."""

    provider: str
    key_variable: str
    tolerance = 1e-9

    @pytest.fixture(autouse=True)
    def service(self, loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give the tests the service and the key."""
        loopback.plan(record=False)
        monkeypatch.setenv(self.key_variable, KEY)
        self.loopback = loopback

    def make_scorer(self) -> Scorer:
        """Return the provider's scorer."""
        return scorer_of(self.provider, self.loopback)


class TestBedrock(ProviderContract):
    """Signed by boto3."""

    provider, key_variable = "bedrock", "AWS_SESSION_TOKEN"


class TestCohere(ProviderContract):
    """Cohere's SDK."""

    provider, key_variable = "cohere", "CO_API_KEY"


class TestOci(ProviderContract):
    """Signed by Oracle's SDK."""

    provider, key_variable = "oci", "OCI_COMPARTMENT_ID"


class TestVoyage(ProviderContract):
    """Voyage AI's SDK."""

    provider, key_variable = "voyage", "VOYAGE_API_KEY"


class TestJina(ProviderContract):
    """The Cohere-like JSON."""

    provider, key_variable = "jina", "JINA_API_KEY"


class TestTei(ProviderContract):
    """A bare list."""

    provider, key_variable = "tei", "TEI_API_KEY"


class TestLlamaCpp(ProviderContract):
    """Raw logits."""

    provider, key_variable = "llamacpp", "LLAMA_API_KEY"


class TestMixedbread(ProviderContract):
    """Other keys for everything."""

    provider, key_variable = "mixedbread", "MXBAI_API_KEY"


class TestListwise(ProviderContract):
    """A listwise model, whose scores are cosines."""

    provider, key_variable = "jina", "JINA_API_KEY"

    def make_scorer(self) -> Scorer:
        """Return the listwise scorer."""
        return scorer_of("jina", self.loopback, "jina-reranker-v3")
