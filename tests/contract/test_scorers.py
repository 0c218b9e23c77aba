"""Every scorer of this package keeps the contract that third parties' scorers are asked to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.colbert import Layout
from support.models import SHAPES, Shape

from rerank_core import Scored, Scorer, load_scorer
from rerank_core.testing import FakeScorer, ScorerContract


class TestFakeScorer(ScorerContract):
    """The scorer without a model."""

    def make_scorer(self) -> Scorer:
        """Return one on the probability scale."""
        return FakeScorer()


class TestFakeScorerWithLogits(ScorerContract):
    """The scorer without a model, in log-odds."""

    def make_scorer(self) -> Scorer:
        """Return one on the logit scale."""
        return FakeScorer(scale="logit")


class TestListwiseScorer(ScorerContract):
    """A scorer whose scores depend on the other texts of the request, and which says so."""

    def make_scorer(self) -> Scorer:
        """Return one that divides by the number of texts."""
        return Listwise()


class Listwise(FakeScorer):
    """Divides each score by the number of texts."""

    listwise = True

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return the quotients."""
        scored = await super().score(query, texts)
        return Scored([score / len(texts) for score in scored.scores], scored.usage)


class TestEmbedded(ScorerContract):
    """The late-interaction scorer: its int8 weights make a score depend a little on the batch's other texts."""

    tolerance = 0.02

    def make_scorer(self) -> Scorer:
        """Return the default one."""
        return load_scorer("embedded")


@pytest.mark.parametrize("shape", SHAPES)
class _OnCheckpoints(ScorerContract):
    """Scorers of checkpoints, once a shape."""

    provider: str

    @pytest.fixture(autouse=True)
    def _use(self, shape: Shape, checkpoint: Callable[[Shape], Path]) -> None:
        self.folder = checkpoint(shape)

    def make_scorer(self) -> Scorer:
        """Return one of the checkpoint."""
        return load_scorer(f"{self.provider}:{self.folder}")


class TestOnnx(_OnCheckpoints):
    """Cross-encoders on ONNX Runtime."""

    provider = "onnx"
    tolerance = 1e-5


@pytest.mark.parametrize("layout", ["stanford", "pylate-modernbert"])
class TestLate(ScorerContract):
    """ColBERT checkpoints: without torch, and on it."""

    tolerance = 1e-4

    @pytest.fixture(autouse=True)
    def _use(self, layout: Layout, colbert: Callable[[Layout], Path]) -> None:
        self.folder = colbert(layout)

    def make_scorer(self) -> Scorer:
        """Return one of the checkpoint."""
        return load_scorer(f"late:{self.folder}")


class TestCrossEncoder(_OnCheckpoints):
    """Cross-encoders of sentence-transformers."""

    provider = "cross-encoder"
    tolerance = 1e-5
