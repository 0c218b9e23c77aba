"""Nodes without text, index nodes, relationships, and passages: what RerankPostprocessor does with each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)
from pydantic import ValidationError
from support.doors import BEST_FIRST, QUERY, TEXTS

from llamaindex_rerankers import RerankPostprocessor
from rerank_core import ConfigurationError, Passage, Reranker, Scored, Scorer
from rerank_core.testing import FakeScorer

Postprocess = Callable[[RerankPostprocessor, list[NodeWithScore]], list[NodeWithScore]]

IMAGE = MediaResource(url="https://example.org/leak.png")
UNREADABLE: list[BaseNode] = [
    ImageNode(image_path="leak.png"),
    ImageNode(image_url="https://example.org/leak.png", metadata={"file_path": "memory leak.png"}),
    ImageDocument(image_resource=IMAGE),
    Node(image_resource=IMAGE),
    Node(audio_resource=MediaResource(url="https://example.org/leak.mp3")),
    Node(video_resource=MediaResource(url="https://example.org/leak.mp4")),
    IndexNode(text="", index_id="child"),
]


class Passages(Scorer):
    """Names in each text the passage from the first occurrence of a word to the end of that word's sentence."""

    name = "passages"

    def __init__(self, word: str) -> None:
        self.word = word

    async def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Return 0.9 and a passage where the word is, 0.1 and none elsewhere."""
        found = [text.find(self.word) for text in texts]
        ends = [text.find(".", start) for text, start in zip(texts, found, strict=True)]
        return Scored(
            [0.1 if start < 0 else 0.9 for start in found],
            passages=[None if s < 0 else Passage(s, e + 1) for s, e in zip(found, ends, strict=True)],
        )


@pytest.fixture(params=["sync", "async"])
def postprocess(request: pytest.FixtureRequest) -> Postprocess:
    """Return a function that calls a postprocessor, sync and async in turn."""

    def call(postprocessor: RerankPostprocessor, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        if request.param == "sync":
            return postprocessor.postprocess_nodes(nodes, query_str=QUERY)
        return asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=QUERY))

    return call


def fake(**options: Any) -> RerankPostprocessor:
    """Return a postprocessor around a scorer without a model."""
    return RerankPostprocessor(reranker=Reranker(FakeScorer()), **options)


def mixed() -> list[NodeWithScore]:
    """Return the usual texts between two images, all with the first stage's scores."""
    nodes = [ImageNode(image_path="a.png", id_="a"), *(TextNode(text=text) for text in TEXTS)]
    nodes.append(ImageNode(image_path="b.png", id_="b"))
    return [NodeWithScore(node=node, score=0.9 - number / 10) for number, node in enumerate(nodes)]


# Nodes without text


@pytest.mark.parametrize("node", UNREADABLE, ids=lambda node: type(node).__name__)
def test_what_cannot_be_read_comes_last_unscored(postprocess: Postprocess, node: BaseNode) -> None:
    """The very node, whatever its metadata; what the model does read is scored."""
    scorer = FakeScorer()
    given = [NodeWithScore(node=node, score=0.99), NodeWithScore(node=TextNode(text="Paris"), score=0.1)]
    ranked = postprocess(RerankPostprocessor(reranker=Reranker(scorer), without_text="keep"), given)
    assert scorer.seen == ["Paris"]
    assert [found.node for found in ranked] == [given[1].node, node]
    assert ranked[1].node is node
    assert (ranked[1].score, given[0].score) == (None, 0.99)
    assert ranked[0].score is not None


def test_images_follow_in_the_first_stages_order(postprocess: Postprocess) -> None:
    """After all texts, within top_n; a threshold drops what has no score, down to min_keep."""

    def ids(**options: Any) -> list[str]:
        ranked = postprocess(fake(without_text="keep", **options), mixed())
        return [node.node.get_content(MetadataMode.NONE) or node.node_id for node in ranked]

    assert ids() == [*BEST_FIRST, "a", "b"]
    assert ids(top_n=5) == [*BEST_FIRST, "a"]
    assert ids(top_n=1) == BEST_FIRST[:1]
    assert ids(score_threshold=0.1) == BEST_FIRST[:3]
    assert ids(adaptive_ratio=1.0) == BEST_FIRST[:1]
    assert ids(score_threshold=1.0, min_keep=5) == [*BEST_FIRST, "a"]
    kept = postprocess(fake(without_text="keep", keep_retrieval_score=True), mixed())
    assert [(node.node_id, node.score, node.metadata["retrieval_score"]) for node in kept[4:]] == [
        ("a", None, 0.9),
        ("b", None, pytest.approx(0.4)),
    ]


def test_images_alone_make_no_request(postprocess: Postprocess) -> None:
    """They come back as they were, or not at all."""
    scorer = FakeScorer()
    given = [NodeWithScore(node=ImageNode(image_path="a.png"), score=0.5)]
    keeping = RerankPostprocessor(reranker=Reranker(scorer), without_text="keep")
    assert postprocess(keeping, given)[0].node is given[0].node
    assert postprocess(RerankPostprocessor(reranker=Reranker(scorer)), given) == []
    assert scorer.calls == 0


def test_dropping_is_the_default_and_warns_once(
    postprocess: Postprocess, caplog: pytest.LogCaptureFixture
) -> None:
    """Each postprocessor says so once, with the way out."""
    postprocessor = fake(top_n=3)
    for _ in range(2):
        assert [node.text for node in postprocess(postprocessor, mixed())] == BEST_FIRST[:3]
    assert [record.getMessage() for record in caplog.records] == [
        "nodes[0], a ImageNode, has no text to rank by and is dropped, as all such nodes are: "
        "give text_fn=, or without_text='keep'"
    ]


def test_one_node_given_twice_stays_twice(postprocess: Postprocess) -> None:
    """Also where it is the same object."""
    image, text = mixed()[0], mixed()[1]
    assert len(postprocess(fake(without_text="keep"), [image, text, image, text])) == 4


def test_a_caption_is_read(postprocess: Postprocess) -> None:
    """An image with a text competes by it."""
    given = [NodeWithScore(node=TextNode(text="Paris")), NodeWithScore(node=ImageNode(text=QUERY, image="aGk="))]
    ranked = postprocess(fake(top_n=1), given)
    assert type(ranked[0].node) is ImageNode
    assert ranked[0].score is not None


def test_images_can_be_given_a_text(postprocess: Postprocess) -> None:
    """By text_fn, or by the names of metadata; then they are scored."""
    image = ImageNode(image_path="a.png", metadata={"caption": QUERY})
    given = [NodeWithScore(node=TextNode(text="Paris")), NodeWithScore(node=image)]
    by_name = postprocess(fake(metadata_fields=["caption"], top_n=1), given)
    by_function = postprocess(fake(text_fn=lambda found: found.metadata.get("caption", "-"), top_n=1), given)
    assert by_name[0].node is by_function[0].node is image
    assert by_name[0].score is not None


def test_blank_texts_score_nothing(postprocess: Postprocess) -> None:
    """If they are kept: 0.0, behind all others, and under any threshold."""
    given = [NodeWithScore(node=TextNode(text=text)) for text in [" \n", "Paris", ""]]
    assert [node.score for node in postprocess(fake(without_text="keep"), given)][1:] == [0.0, 0.0]
    cut = fake(score_threshold=0.01, without_text="keep")
    assert [node.text for node in postprocess(cut, given)] == ["Paris"]


def test_nodes_without_text_can_be_dropped(postprocess: Postprocess) -> None:
    """Images and blank texts alike."""
    given = [*mixed(), NodeWithScore(node=TextNode(text=" ", metadata={"page": 1}))]
    ranked = postprocess(fake(without_text="drop", top_n=None), given)
    assert [node.text for node in ranked] == BEST_FIRST
    only = [NodeWithScore(node=node) for node in UNREADABLE]
    assert postprocess(fake(without_text="drop"), only) == []


@pytest.mark.parametrize(
    "node", [UNREADABLE[0], Document(text=""), TextNode(text=" ")], ids=lambda n: type(n).__name__
)
def test_nodes_without_text_can_be_refused(postprocess: Postprocess, node: BaseNode) -> None:
    """The error names the position, the class and the ways out."""
    given = [NodeWithScore(node=TextNode(text="Paris")), NodeWithScore(node=node)]
    name = type(node).__name__
    with pytest.raises(ConfigurationError, match=rf"nodes\[1\], a {name}, has no text to rank by: give text_fn="):
        postprocess(fake(without_text="raise"), given)
    assert len(postprocess(fake(without_text="raise"), given[:1])) == 1
    assert len(postprocess(fake(without_text="raise", text_fn=lambda found: "some text"), given)) == 2


def test_another_word_for_it_is_refused() -> None:
    """Three words are known."""
    with pytest.raises(ValidationError, match="without_text"):
        fake(without_text="ignore")


# What stays as it is


def test_relationships_and_ids_are_untouched(postprocess: Postprocess) -> None:
    """As are hash, metadata, embedding and the object that an index node refers to."""
    related = {
        NodeRelationship.SOURCE: RelatedNodeInfo(node_id="source", hash="h"),
        NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
    }
    inner = TextNode(text="inner")
    nodes: list[BaseNode] = [
        TextNode(text=TEXTS[1], id_="t", relationships=related, embedding=[0.5, 0.25], metadata={"n": 1}),
        IndexNode(text=TEXTS[2], id_="i", index_id="child", obj=inner, relationships=related),
    ]
    before = [(node.node_id, node.hash, node.to_dict()) for node in nodes]
    for keep in (False, True):
        ranked = postprocess(fake(keep_retrieval_score=keep), [NodeWithScore(node=node) for node in nodes])
        assert [(node.node_id, node.hash, node.to_dict()) for node in nodes] == before
        for result, node in zip(ranked, nodes, strict=True):
            assert (result.node.relationships, result.node.ref_doc_id) == (related, "source")
            assert (result.node.node_id, result.node.embedding) == (node.node_id, node.embedding)
            assert (result.node is node) is not keep
    assert isinstance(ranked[1].node, IndexNode)
    assert (ranked[1].node.obj, ranked[1].node.index_id) == (inner, "child")


# Passages

LONG = "Paris is lovely in spring. A leak was found at last. The roof is new."
PASSAGE = "leak was found at last."


def passages(**options: Any) -> RerankPostprocessor:
    """Return a postprocessor whose scorer names passages."""
    return RerankPostprocessor(reranker=Reranker(Passages("leak")), return_passage=True, **options)


def test_a_passage_replaces_the_text_of_a_copy(postprocess: Postprocess) -> None:
    """Id, relationships and metadata are kept; the span is in metadata that no model reads."""
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="source")}
    node = TextNode(text=LONG, id_="t", metadata={"page": 3}, relationships=source)
    other = TextNode(text="Paris")
    before = node.to_dict()
    first, second = postprocess(passages(), [NodeWithScore(node=other), NodeWithScore(node=node, score=0.5)])
    assert first.text == PASSAGE
    assert (first.node_id, first.node.relationships, first.metadata["page"]) == ("t", source, 3)
    start, end = first.metadata["passage"]
    assert LONG[start:end] == PASSAGE
    assert first.get_content(MetadataMode.LLM) == first.get_content(MetadataMode.EMBED) == f"page: 3\n\n{PASSAGE}"
    assert first.node.hash == TextNode(text=PASSAGE, metadata=first.metadata).hash != node.hash
    assert second.node is other
    assert node.to_dict() == before


def test_a_passage_is_of_the_nodes_own_text(postprocess: Postprocess) -> None:
    """Where it began in the metadata that the model read first, only its part of the text is returned."""
    node = TextNode(text=LONG, metadata={"title": "leak"})
    [result] = postprocess(passages(), [NodeWithScore(node=node)])
    assert result.text == LONG[: LONG.index(".") + 1]
    assert result.metadata["passage"] == [0, LONG.index(".") + 1]


def test_a_passage_knows_its_place_in_the_source(postprocess: Postprocess) -> None:
    """Where the node knew its own; a text of text_fn has no place there."""
    at = LONG.index(PASSAGE)
    node = TextNode(text=LONG, start_char_idx=100, end_char_idx=100 + len(LONG))
    [found] = postprocess(passages(keep_retrieval_score=True), [NodeWithScore(node=node, score=0.25)])
    assert isinstance(found.node, TextNode)
    assert (found.node.start_char_idx, found.node.end_char_idx) == (100 + at, 100 + at + len(PASSAGE))
    assert found.metadata == {"passage": [at, at + len(PASSAGE)], "retrieval_score": 0.25}
    [made] = postprocess(passages(text_fn=lambda found: "Another leak. End"), [NodeWithScore(node=node)])
    assert isinstance(made.node, TextNode)
    assert (made.text, made.node.start_char_idx, made.node.end_char_idx) == ("leak.", None, None)


@pytest.mark.parametrize("node", [Document(text=LONG), Node(text_resource=MediaResource(text=LONG))], ids=type)
def test_passages_of_other_nodes(postprocess: Postprocess, node: BaseNode) -> None:
    """Documents and multimodal nodes keep their class and their resources."""
    node = node.model_copy(update={"image_resource": IMAGE})
    [found] = postprocess(passages(), [NodeWithScore(node=node)])
    assert type(found.node) is type(node)
    assert found.node.get_content() == PASSAGE
    assert getattr(found.node, "image_resource", None) == IMAGE
    assert node.get_content() == LONG


def test_without_the_option_the_text_stays_whole(postprocess: Postprocess) -> None:
    """The passage is the ranking's to know."""
    node = TextNode(text=LONG)
    [found] = postprocess(RerankPostprocessor(reranker=Reranker(Passages("leak"))), [NodeWithScore(node=node)])
    assert found.node is node
