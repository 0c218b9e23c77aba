"""A third-party provider of scorers, installed as a distribution's folder on ``sys.path`` describes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rerank_core.registry import ENTRY_POINT_GROUP

KEY = "sk-5ecret-0f-the-pr0vider"
CHANGED_OPTIONS: dict[str, Any] = {
    "model": "keyed:large",
    "top_n": None,
    "score_threshold": 0.25,
    "adaptive_ratio": 0.5,
    "min_keep": 2,
    "base_url": "https://rerank.example/v1",
    "timeout": 12.5,
    "on_error": "passthrough",
    "retrieval_weight": 0.25,
    "metadata_fields": ["title", "year"],
    "model_options": {"max_length": 128},
    "return_passage": True,
    "diversity": 0.5,
    "order": "edges",
    "collapse_duplicates": True,
}
"""The options that both adapters dump, each unlike its default, for this provider."""

_SOURCE = '''
import threading

from pydantic import SecretStr
from rerank_core import Scored, Scorer

made = []

class KeyedScorer(Scorer):
    """Scores by length, remembers its options, holds a lock as a client does, and pickles without its key."""

    def __init__(self, model, *, api_key=None, base_url=None, max_length=512):
        if api_key is not None and not isinstance(api_key, SecretStr):
            raise TypeError(f"api_key is a {type(api_key).__name__}")
        self.name = f"keyed:{model}"
        self.api_key = api_key
        self.base_url = base_url
        self.max_length = max_length
        self.lock = threading.Lock()
        made.append(self)

    def __getstate__(self):
        return {**self.__dict__, "api_key": None, "lock": None}

    async def score(self, query, texts):
        """Return a score that grows with the length."""
        return Scored([len(text) / (1 + len(text)) for text in texts])
'''


@contextmanager
def installed_provider(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Install the provider ``keyed``; gives its module, whose ``made`` lists the scorers made so far."""
    (folder / "keyed_scorers.py").write_text(_SOURCE)
    metadata = folder / "keyed_scorers-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: keyed-scorers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nkeyed = keyed_scorers:KeyedScorer\n")
    monkeypatch.syspath_prepend(folder)
    import keyed_scorers  # type: ignore[import-not-found]

    try:
        yield keyed_scorers
    finally:
        del sys.modules["keyed_scorers"]
