"""The list of known models."""

from __future__ import annotations

from rerank_tools.cli.choosing import _list_models
from rerank_tools.known_models import known_models


def test_local_models_show_their_facts() -> None:
    """Temperature, scale and cautions of models that run in this process; refused ones are left out."""
    known = {model.name: model for model in known_models() if model.local}
    assert known["cross-encoder:<owner>/zerank-2"].temperature == 5.0
    assert "not centred" in (known["cross-encoder:<owner>/ctxl-rerank-v2*"].caution or "")
    for refused in ("zerank-1", "jina-reranker-v3*"):
        assert f"cross-encoder:<owner>/{refused}" not in known


def test_prices_are_shown_with_all_their_decimals() -> None:
    """Nothing is rounded: $0.115 is not $0.12."""
    prices = {row[0]: row[2] for row in _list_models(known_models()).rows}
    assert prices["dashscope:gte-rerank-v2"] == "$0.115/1M"
    assert prices["bedrock:amazon.rerank-v1:0"] == "$1.00/1k"
