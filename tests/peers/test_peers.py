"""Partner packages' own rerankers as scorers, against the services on loopback; ``make peers`` installs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from langchain_aws import BedrockRerank
from langchain_community.cross_encoders import HuggingFaceCrossEncoder
from langchain_community.document_compressors import FlashrankRerank
from langchain_nvidia_ai_endpoints import NVIDIARerank
from support.loopback import Loopback, score
from support.models import Shape
from support.providers import KEY

from langchain_rerankers import CompressorScorer
from llamaindex_rerankers import RerankPostprocessor
from rerank_core import Reranker, Selection, load_scorer

QUERY = "find a memory leak"
TEXTS = ["a memory leak", "Paris in spring", "how to find it", "leak of memory"]
EXPECTED = pytest.approx([score(QUERY, text) for text in TEXTS], abs=1e-6)


def bedrock(loopback: Loopback, **options: Any) -> CompressorScorer:
    """Return langchain-aws's reranker as a scorer."""
    arn = "arn:aws:bedrock:us-west-2::foundation-model/amazon.rerank-v1:0"
    client = boto3.client("bedrock-agent-runtime", region_name="us-west-2", endpoint_url=loopback.url("bedrock"))
    peer = BedrockRerank(model_arn=arn, client=client, top_n=100)
    return CompressorScorer(peer, **options)


def test_bedrocks_scores_are_taken_and_thresholds_apply(loopback: Loopback) -> None:
    """They lie in [0, 1]."""
    loopback.plan()
    scorer = bedrock(loopback)
    assert Reranker(scorer).rerank(QUERY, TEXTS).scores == EXPECTED
    kept = Reranker(scorer, selection=Selection(score_threshold=0.5)).rerank(QUERY, TEXTS)
    assert [each.document for each in kept] == ["a memory leak", "leak of memory"]


def test_bedrocks_reranker_works_in_llamaindex(loopback: Loopback) -> None:
    """With a name that says what it is."""
    from llama_index.core.schema import NodeWithScore, TextNode

    loopback.plan()
    postprocessor = RerankPostprocessor(reranker=bedrock(loopback), top_n=1)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    assert [node.text for node in postprocessor.postprocess_nodes(nodes, query_str=QUERY)] == ["a memory leak"]
    assert bedrock(loopback).name == "langchain:BedrockRerank"


@pytest.mark.filterwarnings("ignore")
def test_nvidias_logits_need_a_scale(loopback: Loopback) -> None:
    """By themselves only their order counts."""
    loopback.plan(models={"data": [{"id": "any-model"}]})
    peer = NVIDIARerank(
        base_url=loopback.url("nvidia") + "/v1", model="any-model", api_key=KEY, top_n=100,
        usage_telemetry_enabled=False,
    )  # fmt: skip
    assert Reranker(CompressorScorer(peer, scale="logit")).rerank(QUERY, TEXTS).scores == EXPECTED
    bare = CompressorScorer(peer)
    order = [each.document for each in Reranker(bare).rerank(QUERY, TEXTS)]
    assert order == sorted(TEXTS, key=lambda text: -score(QUERY, text))
    assert bare.ordinal


def test_flashrank_ranks_as_our_onnx_scorer_does(checkpoint: Callable[[Shape], Path], tmp_path: Path) -> None:
    """On the same files, in the folder where its package looks before it downloads."""
    from flashrank import Ranker

    name = "ms-marco-TinyBERT-L-2-v2"
    folder = Path(shutil.copytree(checkpoint("bert-1"), tmp_path / name))
    (folder / "model.onnx").rename(folder / "flashrank-TinyBERT-L-2-v2.onnx")
    (folder / "special_tokens_map.json").write_text('{"pad_token": "[PAD]"}', encoding="utf-8")
    client = Ranker(model_name=name, cache_dir=str(tmp_path), max_length=64)
    peer = FlashrankRerank(client=client, model=name, top_n=100)
    ours = Reranker(load_scorer(f"onnx:{checkpoint('bert-1')}")).rerank(QUERY, TEXTS)
    assert Reranker(CompressorScorer(peer)).rerank(QUERY, TEXTS).scores == pytest.approx(
        list(ours.scores), abs=1e-4
    )


def test_a_cross_encoder_of_hugging_face_ranks_as_ours_does(checkpoint: Callable[[Shape], Path]) -> None:
    """langchain-community's class, by itself."""
    folder = str(checkpoint("bert-1"))
    ours = Reranker(load_scorer(f"cross-encoder:{folder}")).rerank(QUERY, TEXTS)
    peer = HuggingFaceCrossEncoder(model_name=folder, model_kwargs={"device": "cpu"})
    theirs = Reranker(CompressorScorer(peer)).rerank(QUERY, TEXTS)
    assert theirs.scores == pytest.approx(list(ours.scores), abs=1e-4)
