"""RerankPostprocessor: what happens to nodes, what the model reads of them, and calls from loops and tasks."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from support.doors import BEST_FIRST, QUERY, TEXTS
from support.scorers import Answers, Calls, Endless
from support.waiting import until

from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ConfigurationError, Reranker, ScorerError
from rerank_core.testing import FakeScorer

Postprocess = Callable[..., list[NodeWithScore]]


class Section(TextNode):
    """A node with a field of its own."""

    number: int = 0


class Found(NodeWithScore):
    """A result with a field of its own."""

    source: str = ""


@pytest.fixture(params=["sync", "async"])
def postprocess(request: pytest.FixtureRequest) -> Postprocess:
    """Return a function that calls a postprocessor, sync and async in turn."""

    def call(
        postprocessor: RerankPostprocessor, nodes: list[NodeWithScore], query: str | None = QUERY, **options: Any
    ) -> list[NodeWithScore]:
        if request.param == "sync":
            return postprocessor.postprocess_nodes(nodes, query_str=query, **options)
        return asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=query, **options))

    return call


def fake(**options: Any) -> RerankPostprocessor:
    """Return a postprocessor around a scorer without a model."""
    return RerankPostprocessor(reranker=Reranker(FakeScorer()), **options)


def nodes() -> list[NodeWithScore]:
    """Return nodes with ids, metadata and the first stage's scores."""
    return [
        NodeWithScore(
            node=TextNode(text=text, id_=f"id-{number}", metadata={"source": f"{number}.md", "secret": "x"}),
            score=0.9 - number / 10,
        )
        for number, text in enumerate(TEXTS)
    ]


def texts(ranked: Sequence[NodeWithScore]) -> list[str]:
    """Return the texts of nodes."""
    return [node.text for node in ranked]


def test_nodes_come_back_best_first_with_new_scores(postprocess: Postprocess) -> None:
    """Python floats in [0, 1]; ids and metadata are kept."""
    ranked = postprocess(fake(), nodes())
    assert texts(ranked) == BEST_FIRST
    assert [node.node_id for node in ranked] == ["id-1", "id-2", "id-3", "id-0"]
    assert ranked[0].metadata == {"source": "1.md", "secret": "x"}
    scores = [node.score for node in ranked]
    assert all(type(score) is float and 0.0 <= score <= 1.0 for score in scores)
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize("keep_retrieval_score", [False, True])
def test_the_callers_nodes_are_never_changed(postprocess: Postprocess, keep_retrieval_score: bool) -> None:
    """Scores, metadata, excluded keys, hashes and the list stay as they were, twice in a row."""
    given = nodes()
    objects, snapshot = list(given), copy.deepcopy(given)
    hashes = [node.node.hash for node in given]
    postprocessor = fake(top_n=2, keep_retrieval_score=keep_retrieval_score)
    first = postprocess(postprocessor, given)
    assert texts(postprocess(postprocessor, given)) == texts(first)
    assert all(one is other for one, other in zip(given, objects, strict=True))
    assert [node.to_dict() for node in given] == [node.to_dict() for node in snapshot]
    assert [node.node.hash for node in given] == hashes
    assert not any(result is node for result in first for node in given)


def test_scores_are_not_in_the_nodes_metadata(postprocess: Postprocess) -> None:
    """The score is the result's; the node is the very one that was given, for others to share."""
    given = nodes()
    [best] = postprocess(fake(top_n=1), given)
    assert best.node is given[1].node
    assert set(best.metadata) == {"source", "secret"}


@pytest.mark.parametrize("mode", [MetadataMode.LLM, MetadataMode.EMBED])
def test_a_kept_retrieval_score_is_hidden_from_models(postprocess: Postprocess, mode: MetadataMode) -> None:
    """It is in the metadata, and neither the LLM's nor the embedder's text changes."""
    given = nodes()
    ranked = postprocess(fake(keep_retrieval_score=True), given)
    by_id = {node.node_id: node for node in given}
    for node in ranked:
        original = by_id[node.node_id]
        assert node.metadata["retrieval_score"] == original.score
        assert node.score != original.score
        assert node.node is not original.node
        assert node.get_content(mode) == original.get_content(mode)
        assert "retrieval_score" in node.get_content(MetadataMode.ALL)


def test_a_kept_retrieval_score_is_hidden_from_a_second_reranker(postprocess: Postprocess) -> None:
    """Which reads what the first one read; other exclusions stay."""
    scorer = FakeScorer()
    given = nodes()
    given[1].node.excluded_embed_metadata_keys = ["secret"]
    given[1].node.excluded_llm_metadata_keys = ["source"]
    [best] = postprocess(fake(keep_retrieval_score=True, top_n=1), given)
    postprocess(RerankPostprocessor(reranker=Reranker(scorer)), [best])
    assert scorer.seen == ["source: 1.md\n\nfinding a memory leak"]
    assert best.get_content(MetadataMode.LLM) == "secret: x\n\nfinding a memory leak"


@pytest.mark.parametrize("score", [np.float32(0.5), np.float64(0.5), 0.5, None])
def test_a_kept_retrieval_score_is_a_python_float(postprocess: Postprocess, score: Any) -> None:
    """Though the first stage's was numpy's; what had none keeps none."""
    given = nodes()[:1]
    given[0].score = score
    [kept] = postprocess(fake(keep_retrieval_score=True), given)
    assert kept.metadata["retrieval_score"] == score
    assert type(kept.metadata["retrieval_score"]) in (float, type(None))
    assert json.loads(kept.to_json())["node"]["metadata"]["retrieval_score"] == score


def test_results_can_be_written_as_json(postprocess: Postprocess) -> None:
    """Though the scorer returned numpy's numbers."""
    postprocessor = RerankPostprocessor(reranker=Reranker(Answers(np.array([0.25, 0.5, 0.75, 1.0], np.float32))))
    ranked = postprocess(postprocessor, nodes())
    assert [json.loads(node.to_json())["score"] for node in ranked] == [1.0, 0.75, 0.5, 0.25]
    assert TextNode.from_json(ranked[0].node.to_json()) == ranked[0].node


def test_nodes_with_one_id_keep_their_own_scores(postprocess: Postprocess) -> None:
    """Results are matched by position, not by id."""
    given = [NodeWithScore(node=TextNode(text=text, id_="same")) for text in TEXTS]
    ranked = postprocess(fake(), given)
    assert texts(ranked) == BEST_FIRST
    assert len({node.score for node in ranked}) == 4


@pytest.mark.parametrize("keep_retrieval_score", [False, True])
@pytest.mark.parametrize(
    "node",
    [
        Section(text="memory leak", number=7),
        IndexNode(text="memory leak", index_id="child", obj=TextNode(text="inner")),
        ImageNode(text="memory leak", image_path="/tmp/leak.png"),
        Document(text="memory leak"),
        Node(text_resource=MediaResource(text="memory leak")),
    ],
    ids=lambda node: type(node).__name__,
)
def test_the_class_of_a_node_is_kept(postprocess: Postprocess, node: BaseNode, keep_retrieval_score: bool) -> None:
    """With its own fields, and its text is read whatever the class."""
    scorer = FakeScorer()
    postprocessor = RerankPostprocessor(
        reranker=Reranker(scorer), top_n=1, keep_retrieval_score=keep_retrieval_score
    )
    [best] = postprocess(postprocessor, [NodeWithScore(node=TextNode(text="Paris")), NodeWithScore(node=node)])
    assert type(best.node) is type(node)
    assert best.node_id == node.node_id
    assert scorer.seen == ["Paris", "memory leak"]
    for name in ("number", "index_id", "obj", "image_path", "text_resource"):
        assert getattr(best.node, name, None) == getattr(node, name, None)


def test_the_class_of_a_result_is_kept(postprocess: Postprocess) -> None:
    """A subclass of NodeWithScore stays one, with its own fields."""
    [best] = postprocess(fake(), [Found(node=TextNode(text="memory leak"), source="bm25")])
    assert (type(best), best.source) == (Found, "bm25")  # type: ignore[attr-defined]


@pytest.mark.parametrize("keep_retrieval_score", [False, True])
def test_metadata_may_hold_what_cannot_be_copied(postprocess: Postprocess, keep_retrieval_score: bool) -> None:
    """A lock, say: the result refers to the same object."""
    lock = threading.Lock()
    given = [NodeWithScore(node=TextNode(text="memory leak", metadata={"lock": lock}))]
    [best] = postprocess(fake(keep_retrieval_score=keep_retrieval_score), given)
    assert best.metadata["lock"] is lock


@pytest.mark.parametrize("query", [QUERY, " ", None], ids=["scorer fails", "blank query", "no query"])
def test_a_passthrough_keeps_the_first_stages_scores(postprocess: Postprocess, query: Any) -> None:
    """And its order, cut to top_n, whatever the thresholds; the nodes say that they were not reranked."""
    reranker = Reranker(FakeScorer(error=RuntimeError("down")), on_error="passthrough")
    given = nodes()
    image = NodeWithScore(node=ImageNode(image_path="a.png"), score=0.3)
    given.insert(1, image)
    postprocessor = RerankPostprocessor(
        reranker=reranker, top_n=3, score_threshold=0.9, without_text="keep", order="edges", diversity=0.5
    )
    ranked = postprocess(postprocessor, given, query)
    assert [(node.node_id, node.score) for node in ranked] == [(node.node_id, node.score) for node in given[:3]]
    assert [node.metadata["reranked"] for node in ranked] == [False] * 3
    assert "reranked" not in ranked[0].node.get_content(MetadataMode.LLM)
    assert "reranked" not in given[0].metadata


def test_llamaindexs_own_cutoff_works_on_the_scores(postprocess: Postprocess) -> None:
    """SimilarityPostprocessor after a model on the logit scale drops what is under its cutoff, and no more."""
    reranker = Reranker(Answers([-4.0, 2.0, 1.0, -0.5], scale="logit"))
    ranked = postprocess(RerankPostprocessor(reranker=reranker), nodes())
    assert len(ranked) == 4
    kept = SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(ranked)
    assert texts(kept) == TEXTS[1:3]
    assert len(SimilarityPostprocessor().postprocess_nodes(ranked)) == 4


def test_the_embedded_model_scores_nodes(postprocess: Postprocess) -> None:
    """The default, without any fake."""
    ranked = postprocess(RerankPostprocessor(top_n=1), nodes(), "How do I find a memory leak?")
    assert texts(ranked) == ["finding a memory leak"]
    assert type(ranked[0].score) is float


# What the model reads


@pytest.mark.parametrize(
    ("mode", "read"),
    [
        (MetadataMode.NONE, "text"),
        (MetadataMode.EMBED, "title: T\n\ntext"),
        (MetadataMode.LLM, "page: 3\n\ntext"),
        (MetadataMode.ALL, "title: T\npage: 3\n\ntext"),
        ("none", "text"),
    ],
)
def test_metadata_mode_says_which_metadata_is_read(postprocess: Postprocess, mode: Any, read: str) -> None:
    """Each node says which of its metadata the embedder and which the LLM sees."""
    scorer = FakeScorer()
    node = TextNode(
        text="text",
        metadata={"title": "T", "page": 3},
        excluded_embed_metadata_keys=["page"],
        excluded_llm_metadata_keys=["title"],
    )
    postprocess(RerankPostprocessor(reranker=Reranker(scorer), metadata_mode=mode), [NodeWithScore(node=node)])
    assert scorer.seen == [read]


def test_metadata_fields_replace_the_mode(postprocess: Postprocess) -> None:
    """Exactly the named metadata is read, also what the node hides from the embedder."""
    scorer = FakeScorer()
    node = TextNode(text="text", metadata={"title": "T", "page": 3}, excluded_embed_metadata_keys=["page"])
    postprocessor = RerankPostprocessor(
        reranker=Reranker(scorer), metadata_mode=MetadataMode.ALL, metadata_fields=["page"]
    )
    postprocess(postprocessor, [NodeWithScore(node=node)])
    assert scorer.seen == ["page: 3\ntext"]


def test_text_fn_gets_the_result_with_its_score(postprocess: Postprocess) -> None:
    """So that it may look at the node, and at what the first stage thought."""
    scorer = FakeScorer()
    postprocessor = RerankPostprocessor(
        reranker=Reranker(scorer), text_fn=lambda node: f"{node.node_id} {node.score:.1f}"
    )
    postprocess(postprocessor, nodes())
    assert scorer.seen == ["id-0 0.9", "id-1 0.8", "id-2 0.7", "id-3 0.6"]


# Queries


def test_the_query_may_be_a_bundle_or_a_string(postprocess: Postprocess) -> None:
    """Of a bundle the query string is read, not the strings for the embedder."""
    scorer = FakeScorer(lambda query, text: float(query == QUERY))
    postprocessor = RerankPostprocessor(reranker=Reranker(scorer))
    bundle = QueryBundle(QUERY, custom_embedding_strs=["something else"])
    by_bundle = postprocess(postprocessor, nodes(), None, query_bundle=bundle)
    assert [node.score for node in by_bundle] == [1.0] * 4
    assert by_bundle == postprocess(postprocessor, nodes(), QUERY)


def test_both_at_once_is_an_error(postprocess: Postprocess) -> None:
    """As everywhere in LlamaIndex."""
    with pytest.raises(ValueError, match="both query_str and query_bundle"):
        postprocess(fake(), nodes(), QUERY, query_bundle=QueryBundle(QUERY))


def test_a_missing_query_is_an_error_only_with_nodes(postprocess: Postprocess) -> None:
    """Nothing to rank is nothing to complain about."""
    assert postprocess(fake(), [], None) == []
    with pytest.raises(ConfigurationError, match="no query was given: pass query_bundle= or query_str="):
        postprocess(fake(), nodes(), None)


# Loops and tasks


def test_one_postprocessor_serves_one_loop_after_another() -> None:
    """``asyncio.run`` twice, and a sync call in between."""
    postprocessor = fake()
    given = nodes()
    first = asyncio.run(postprocessor.apostprocess_nodes(given, query_str=QUERY))
    second = postprocessor.postprocess_nodes(given, query_str=QUERY)
    third = asyncio.run(postprocessor.apostprocess_nodes(given, query_str=QUERY))
    assert first == second == third


async def test_a_sync_call_works_inside_a_running_loop() -> None:
    """LlamaIndex itself makes such calls."""
    postprocessor = RerankPostprocessor(reranker=Reranker(FakeScorer(latency=0.01)))
    within = postprocessor.postprocess_nodes(nodes(), query_str=QUERY)
    assert texts(within) == texts(await postprocessor.apostprocess_nodes(nodes(), query_str=QUERY)) == BEST_FIRST


async def test_concurrent_calls_overlap() -> None:
    """Each of eight calls is under way before any ends: no thread pool, no queue in between."""
    arrived = 0

    async def all_arrived(query: str, texts: Sequence[str]) -> float:
        nonlocal arrived
        arrived += 1
        await until(lambda: arrived == 8)
        return float(query)

    postprocessor = RerankPostprocessor(reranker=Reranker(Calls(all_arrived)))
    queries = [str(number / 10) for number in range(8)]
    results = await asyncio.gather(
        *(postprocessor.apostprocess_nodes(nodes(), query_str=query) for query in queries)
    )
    assert [str(ranked[0].score) for ranked in results] == queries


async def test_cancelling_a_call_cancels_the_work() -> None:
    """Nothing runs on when the task has ended."""
    scorer = Endless()
    call = asyncio.create_task(
        RerankPostprocessor(reranker=Reranker(scorer)).apostprocess_nodes(nodes(), query_str=QUERY)
    )
    await until(lambda: scorer.active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (scorer.calls, scorer.active) == (1, 0)


def test_a_deadline_is_an_error(postprocess: Postprocess) -> None:
    """After which nothing runs on."""
    scorer = Endless()
    with pytest.raises(ScorerError, match="timeout"):
        postprocess(RerankPostprocessor(reranker=Reranker(scorer, timeout=0.05)), nodes())
    assert scorer.active == 0
