"""The list of known models."""

from __future__ import annotations

from rerank_tools.known_models import known_models


def test_local_models_show_their_facts() -> None:
    """Temperature, scale and cautions of models that run in this process; refused ones are left out."""
    known = {model.name: model for model in known_models() if model.local}
    assert known["cross-encoder:<owner>/zerank-2"].temperature == 5.0
    listwise = known["cross-encoder:<owner>/jina-reranker-v3*"]
    assert (listwise.listwise, listwise.scale, listwise.context) == (True, "cosine", 131_072)
    assert "not centred" in (known["cross-encoder:<owner>/ctxl-rerank-v2*"].caution or "")
    assert "cross-encoder:<owner>/zerank-1" not in known
