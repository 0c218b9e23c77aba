"""Other people's rerankers as scorers: the real classes of both frameworks, inside both frameworks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers.document_compressors import (
    CrossEncoderReranker,
    DocumentCompressorPipeline,
    LLMListwiseRerank,
)
from langchain_classic.retrievers.document_compressors.cross_encoder import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.schemas import Run
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.postprocessor import LLMRerank, LongContextReorder, SentenceTransformerRerank
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import Field
from support.langchain_parts import Scripted
from support.loopback import score
from support.models import Shape

from langchain_rerankers import CompressorScorer, RerankCompressor, RerankRetriever
from llamaindex_rerankers import PostprocessorScorer, RerankPostprocessor
from rerank_core import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    RateLimitError,
    Reranker,
    Scorer,
    ScorerError,
    ScorerTimeoutError,
    Selection,
    load_scorer,
)
from rerank_core.policies import Cached, Cascade, Fallback
from rerank_core.policies.caches import DiskCache, MemoryCache
from rerank_core.testing import FakeScorer, ScorerContract
from rerank_tools.evaluation import Dataset, evaluate

QUERY = "find a memory leak"
TEXTS = ["tea", "a leak", "snow", "a memory leak", "Paris"]
BEST_FIRST = ["a memory leak", "a leak"]


class SharedWords(BaseCrossEncoder):
    """Scores in [0, 1] by shared words; ``factor`` makes other numbers of them."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.active = self.most_active = 0

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return a score per pair."""
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        time.sleep(0.002)
        self.active -= 1
        return [self.factor * score(query, text) for query, text in text_pairs]


class Rows(BaseDocumentCompressor):
    """Returns these texts with these scores, as a colleague's compressor might."""

    rows: Sequence[tuple[str, Any]]

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """Return the rows."""
        assert all(not document.metadata for document in documents)
        return [
            Document(text, metadata={} if value is None else {"relevance_score": value})
            for text, value in self.rows
        ]


class LongContextTail(BaseDocumentTransformer):
    """Drops the first document."""

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """Return the others."""
        return documents[1:]


class Grader(CustomLLM):
    """Answers LLMRerank's prompt: a grade from 1 to 10 for each document that shares a word with the question."""

    threads: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        """Return the usual facts."""
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return a line for each relevant document."""
        self.threads.append(threading.current_thread().name)
        parts = prompt.rpartition("Let's try this now:")[2].split("Document ")[1:]
        question = prompt.rpartition("Question: ")[2].partition("\n")[0]
        texts = [part.partition("\n")[2].partition("\nQuestion: ")[0].strip() for part in parts]
        grades = [round(10 * score(question, text)) for text in texts]
        lines = [f"Doc: {number}, Relevance: {grade}" for number, grade in enumerate(grades, 1)]
        return CompletionResponse(text="\n".join(lines))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Nothing streams here."""
        raise NotImplementedError


def ranked(scorer: Scorer, **selection: Any) -> list[str]:
    """Return the surviving texts, best first."""
    return [each.document for each in Reranker(scorer, selection=Selection(**selection)).rerank(QUERY, TEXTS)]


class TestCrossEncoderRerankerContract(ScorerContract):
    """langchain-classic's CrossEncoderReranker: no scores, an order."""

    def make_scorer(self) -> Scorer:
        """Return it around a cross-encoder of our own."""
        return CompressorScorer(CrossEncoderReranker(model=SharedWords(), top_n=1000))


class TestCrossEncoderContract(ScorerContract):
    """A ``BaseCrossEncoder`` by itself."""

    def make_scorer(self) -> Scorer:
        """Return it, on a scale."""
        return CompressorScorer(SharedWords(), scale="probability")


class TestSentenceTransformerContract(ScorerContract):
    """LlamaIndex's SentenceTransformerRerank on a checkpoint of random weights."""

    tolerance = 1e-4

    @pytest.fixture(autouse=True)
    def folder(self, checkpoint: Callable[[Shape], Path]) -> None:
        """Build the checkpoint."""
        self.path = str(checkpoint("modernbert-1"))

    def make_scorer(self) -> Scorer:
        """Return it."""
        return PostprocessorScorer(SentenceTransformerRerank(model=self.path, top_n=1000, device="cpu"))


class TestLlmRerankContract(ScorerContract):
    """LlamaIndex's LLMRerank, with a language model that follows a script."""

    def make_scorer(self) -> Scorer:
        """Return it, on the scale of its grades."""
        return PostprocessorScorer(LLMRerank(llm=Grader(), top_n=1000, choice_batch_size=1000), scale=(0, 10))


def test_scores_in_0_to_1_are_taken_and_thresholds_apply() -> None:
    """Without a word about the scale."""
    scorer = CompressorScorer(Rows(rows=[("a leak", 0.4), ("a memory leak", 0.9), ("tea", 0.1)]))
    ranking = Reranker(scorer).rerank(QUERY, TEXTS)
    assert ranking.scores == (0.1, 0.4, 0.0, 0.9, 0.0)
    assert [each.index for each in ranking] == [3, 1, 0, 2, 4]
    assert ranked(scorer, score_threshold=0.3) == BEST_FIRST
    assert not scorer.ordinal


@pytest.mark.parametrize(
    ("scale", "given", "expected"),
    [
        ("logit", 0.0, 0.5),
        ("cosine", 0.0, 0.5),
        ((0, 10), 9.0, 0.9),
        ((1, 5), 5.0, 1.0),
        ("probability", 0.3, 0.3),
    ],
)
def test_other_scales_are_named(scale: Any, given: float, expected: float) -> None:
    """Then thresholds mean something."""
    scorer = CompressorScorer(Rows(rows=[("a leak", given)]), scale=scale)
    ranking = Reranker(scorer, selection=Selection(score_threshold=0.2)).rerank(QUERY, TEXTS)
    assert [(each.document, each.score) for each in ranking] == [("a leak", pytest.approx(expected))]


@pytest.mark.parametrize("rows", [[("a leak", None), ("tea", None)], [("a leak", 9.0), ("tea", 7.0)]])
def test_without_a_scale_only_the_order_counts(rows: Any) -> None:
    """Thresholds are refused with the reason, in the first call and before the next one, in policies too."""
    assert ranked(CompressorScorer(Rows(rows=rows))) == ["a leak", "tea", "snow", "a memory leak", "Paris"]
    for make in (
        lambda scorer: scorer,
        lambda scorer: Fallback([scorer, FakeScorer()]),
        lambda scorer: Cascade([FakeScorer(), scorer], keep=[5]),
    ):
        scorer = make(CompressorScorer(Rows(rows=rows)))
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="score_threshold means nothing.*only say the order"):
                ranked(scorer, score_threshold=0.5)
        assert scorer.ordinal


def test_what_only_orders_is_remembered_as_such(tmp_path: Path) -> None:
    """A cache that has all scores says so of a scorer that was never asked; an evaluation that goes on, too."""
    given = [(text, None) for text in TEXTS]

    def cached() -> Cached:
        return Cached(
            CompressorScorer(Rows(rows=given), identity="1"), DiskCache(tmp_path / "cache"), cache_timeout=30.0
        )

    first, again = cached(), cached()
    scores = [float(place) for place in range(len(TEXTS))]
    expected = Reranker(first, retrieval_weight=0.5).rerank(QUERY, TEXTS, retrieval_scores=scores)
    ranking = Reranker(again, retrieval_weight=0.5).rerank(QUERY, TEXTS, retrieval_scores=scores)
    assert ranking.usage.cached == len(TEXTS)
    assert [each.index for each in ranking] == [each.index for each in expected]
    with pytest.raises(ConfigurationError, match="score_threshold means nothing"):
        Reranker(cached(), selection=Selection(score_threshold=0.5)).rerank(QUERY, TEXTS)
    documents = {str(at): text for at, text in enumerate(TEXTS)}
    data = Dataset(documents, {"q": QUERY}, {"q": {"0": 1}})
    for known in (0, len(TEXTS)):
        scorer = CompressorScorer(Rows(rows=given), identity="1")
        found = evaluate({"one": scorer}, data, first_stage=lambda *_: list(documents), save_to=tmp_path / "kept")
        assert (found["one"].usage.cached, found["one"].ordinal) == (known, True)


def test_what_is_left_out_comes_last_and_what_comes_twice_counts_once() -> None:
    """Even behind a score of 0."""
    scorer = CompressorScorer(Rows(rows=[("a leak", 0.4), ("a leak", 0.9), ("snow", 0.0)]))
    ranking = Reranker(scorer).rerank(QUERY, TEXTS)
    assert [(each.document, each.score) for each in ranking] == [
        ("a leak", 0.4),
        ("snow", 0.0),
        ("tea", 0.0),
        ("a memory leak", 0.0),
        ("Paris", 0.0),
    ]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("a summary", 0.4)], {}, "rewrites documents cannot be a scorer"),
        ([("a leak", None)], {"scale": "logit"}, "without a score: leave out scale="),
        ([("a leak", 11)], {"scale": (0, 10)}, r"outside \[0, 1\]"),
        ([("a leak", 9), ("tea", "9")], {"scale": (0, 10)}, "returned a str for text 1: a finite number"),
        ([("tea", float("nan")), ("a leak", 0.9)], {}, "returned nan"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_an_error(rows: Any, options: Any, message: str) -> None:
    """It names the scorer."""
    with pytest.raises(InvalidResponseError, match=rf"^langchain:Rows: .*{message}"):
        ranked(CompressorScorer(Rows(rows=rows), **options))


def test_scorers_are_equal_where_object_and_options_are() -> None:
    """And to nothing that is no such scorer."""
    model = SharedWords()
    assert CompressorScorer(model) == CompressorScorer(model)
    assert CompressorScorer(model) != CompressorScorer(model, max_concurrency=2)
    assert CompressorScorer(model) != "langchain:SharedWords"


def test_options_are_checked() -> None:
    """And what is wrapped."""
    with pytest.raises(ConfigurationError, match="give one of probability, logit, cosine, or a pair"):
        CompressorScorer(SharedWords(), scale=(10, 0))
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        CompressorScorer(SharedWords(), max_concurrency=0)
    with pytest.raises(ConfigurationError, match="give a BaseDocumentCompressor or a BaseCrossEncoder"):
        CompressorScorer("cohere")
    with pytest.raises(ConfigurationError, match="give a BaseNodePostprocessor"):
        PostprocessorScorer(SharedWords())


def test_one_thread_at_a_time_unless_more_are_allowed() -> None:
    """Many such classes are not safe to be used by several threads."""
    for allowed in (1, 3):
        model = SharedWords()
        reranker = Reranker(CompressorScorer(model, max_concurrency=allowed))
        reranker.rerank_many([QUERY] * 12, [TEXTS] * 12)
        assert model.most_active <= allowed
        assert allowed == 1 or model.most_active > 1


def test_a_deadline_and_a_fallback_apply() -> None:
    """The thread is left to itself."""

    class Slow(Rows):
        def compress_documents(self, *args: Any, **kwargs: Any) -> Sequence[Document]:
            time.sleep(0.5)
            return super().compress_documents(*args, **kwargs)

    slow = CompressorScorer(Slow(rows=[]))
    with pytest.raises(ScorerTimeoutError):
        Reranker(slow, timeout=0.05).rerank(QUERY, TEXTS)
    ranking = Reranker(Fallback([slow, FakeScorer()], timeout=0.05)).rerank(QUERY, TEXTS)
    assert [attempt.model for attempt in ranking.attempts] == ["langchain:Slow"]


@pytest.mark.parametrize(
    ("status", "kind"), [(429, RateLimitError), (401, AuthenticationError), (None, ScorerError)]
)
def test_a_foreign_exceptions_status_counts(status: int | None, kind: type[ScorerError]) -> None:
    """As fallbacks and breakers expect."""

    class ForeignError(Exception):
        response = type("Response", (), {"status_code": status})()

    class Failing(Rows):
        def compress_documents(self, *args: Any, **kwargs: Any) -> Sequence[Document]:
            raise ForeignError("a secret")

    with pytest.raises(kind) as caught:
        ranked(CompressorScorer(Failing(rows=[])))
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)


def test_a_cache_needs_an_identity() -> None:
    """Two objects of one class may score differently, and nothing says so."""
    with pytest.raises(ConfigurationError, match="langchain:SharedWords cannot be cached: give identity="):
        ranked(Cached(CompressorScorer(SharedWords()), MemoryCache()))
    cached = Cached(CompressorScorer(SharedWords(), identity="words-1"), MemoryCache())
    assert ranked(cached)[:2] == ranked(cached)[:2] == BEST_FIRST
    other = CompressorScorer(SharedWords(), identity="words-2")
    assert other.cache_key() != cached.scorer.cache_key()
    assert other != CompressorScorer(SharedWords(), identity="words-2")
    assert other == other.with_options()


def test_a_real_cross_encoder_reranker(checkpoint: Callable[[Shape], Path]) -> None:
    """langchain-classic's class around our own local scorer as its model ranks as that scorer does."""

    class Ours(BaseCrossEncoder):
        def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
            found = Reranker(load_scorer(f"onnx:{checkpoint('bert-1')}")).rerank(
                text_pairs[0][0], [text for _, text in text_pairs]
            )
            return [value or 0.0 for value in found.scores]

    expected = ranked(load_scorer(f"onnx:{checkpoint('bert-1')}"))
    assert ranked(CompressorScorer(CrossEncoderReranker(model=Ours(), top_n=5))) == expected
    assert ranked(CompressorScorer(Ours())) == expected
    assert ranked(CompressorScorer(CrossEncoderReranker(model=Ours(), top_n=2)))[:2] == expected[:2]


def listwise() -> LLMListwiseRerank:
    """Return langchain-classic's LLMListwiseRerank with a chat model that says an order."""
    call = {"name": "RankDocuments", "args": {"ranked_document_ids": [3, 1, 3]}, "id": "1"}
    return LLMListwiseRerank.from_llm(Scripted(script=[AIMessage("", tool_calls=[call])] * 3), top_n=5)


def test_an_llms_order_inside_a_chain_and_its_runs_inside_ours() -> None:
    """The chat model's run is a descendant of the compressor's, sync and async."""
    runs: list[Run] = []
    retriever = RerankRetriever(
        retriever=RunnableLambda(lambda query: [Document(text) for text in TEXTS]),
        compressor=RerankCompressor(reranker=CompressorScorer(listwise()), top_n=2),
    ).with_listeners(on_end=runs.append)
    assert [document.page_content for document in retriever.invoke(QUERY)] == BEST_FIRST
    assert [document.page_content for document in asyncio.run(retriever.ainvoke(QUERY))] == BEST_FIRST
    for run in runs:
        compressor = next(child for child in run.child_runs if child.name == "RerankCompressor")
        assert "Scripted" in [child.name for child in descendants(compressor)]


def descendants(run: Run) -> list[Run]:
    """Return all runs below a run."""
    return [each for child in run.child_runs for each in (child, *descendants(child))]


def test_a_llamaindex_postprocessor_inside_a_langchain_chain() -> None:
    """With its own async method, on no thread."""
    llm = Grader()
    compressor = RerankCompressor(
        reranker=PostprocessorScorer(LLMRerank(llm=llm, top_n=10), scale=(0, 10)), top_n=5, score_threshold=0.3
    )
    chain = RunnableLambda(lambda query: [Document(text, id=text) for text in TEXTS]) | RunnableLambda(
        lambda documents: compressor.compress_documents(documents, QUERY)
    )
    found = chain.invoke(QUERY)
    assert [(each.id, each.metadata["relevance_score"]) for each in found][:2] == [
        ("a memory leak", pytest.approx(0.5, abs=0.3)),
        ("a leak", pytest.approx(0.4, abs=0.2)),
    ]
    assert set(llm.threads) == {"rerank-core-loop"}


def test_a_langchain_compressor_inside_a_llamaindex_postprocessor() -> None:
    """And the class of a colleague."""
    postprocessor = RerankPostprocessor(
        reranker=CompressorScorer(CrossEncoderReranker(model=SharedWords(), top_n=5)), top_n=2
    )
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"source": "x"})) for text in TEXTS]
    assert [node.text for node in postprocessor.postprocess_nodes(nodes, query_str=QUERY)] == BEST_FIRST
    with pytest.raises(ConfigurationError, match="only say the order"):
        RerankPostprocessor(
            reranker=CompressorScorer(CrossEncoderReranker(model=SharedWords())), score_threshold=0.5
        ).postprocess_nodes(nodes, query_str=QUERY)


def test_the_adapters_take_a_scorer_or_a_policy_for_a_reranker() -> None:
    """With the adapters' own ``top_n`` of 5."""
    texts = [f"text {number}" for number in range(9)]
    for reranker in (FakeScorer(), Fallback([FakeScorer()]), Reranker(FakeScorer(), selection=Selection(top_n=5))):
        compressor = RerankCompressor(reranker=reranker)
        assert len(compressor.compress_documents([Document(text) for text in texts], QUERY)) == 5
        postprocessor = RerankPostprocessor(reranker=reranker, top_n=3)
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        assert len(postprocessor.postprocess_nodes(nodes, query_str=QUERY)) == 3


@pytest.mark.parametrize("given", ["embedded", CrossEncoderReranker(model=SharedWords())])
def test_what_is_no_reranker_is_refused_with_what_to_give(given: Any) -> None:
    """In both adapters."""
    for adapter in (RerankCompressor, RerankPostprocessor):
        with pytest.raises(ValueError, match="reranker is a .*: give a Reranker, a scorer or a policy"):
            adapter(reranker=given)


@pytest.mark.parametrize("model", ["embedded", "onnx:some/model"])
def test_a_rerankers_model_cannot_be_replaced_by_name(model: str) -> None:
    """Not even by the default's, which was ignored."""
    compressor = RerankCompressor(reranker=FakeScorer())
    runnable = compressor.as_runnable().configurable()
    with pytest.raises(ConfigurationError, match="a reranker=, which brings its own model"):
        compressor.with_model(model)
    with pytest.raises(ConfigurationError, match="a reranker=, which brings its own model"):
        runnable.invoke({"query": "a", "documents": []}, {"configurable": {"rerank_model": model}})


def test_the_retriever_takes_any_compressor_or_pipeline() -> None:
    """Which keeps its own options; ours beside it are refused."""
    first = RunnableLambda(lambda query: [Document(text) for text in TEXTS])
    other = CrossEncoderReranker(model=SharedWords(), top_n=2)
    for second in (other, DocumentCompressorPipeline(transformers=[LongContextTail(), other])):
        retriever = RerankRetriever(retriever=first, compressor=second)
        assert [document.page_content for document in retriever.invoke(QUERY)] == BEST_FIRST
        assert [document.page_content for document in asyncio.run(retriever.ainvoke(QUERY))] == BEST_FIRST
    with pytest.raises(ConfigurationError, match="top_n= was given beside a CrossEncoderReranker"):
        RerankRetriever(retriever=first, compressor=other).invoke(QUERY, top_n=1)
    with pytest.raises(ConfigurationError, match="score_threshold= was given beside"):
        RerankRetriever(retriever=first, compressor=other, score_threshold=0.5).invoke(QUERY)


def test_a_postprocessors_span_lies_within_ours() -> None:
    """By the context, which travels to the background loop and to its threads."""
    spans = SimpleSpanHandler()
    dispatcher = get_dispatcher()
    before = list(dispatcher.span_handlers)
    dispatcher.span_handlers = [*before, spans]
    try:
        outer = RerankPostprocessor(reranker=PostprocessorScorer(LongContextReorder()), top_n=2)
        nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
        assert len(outer.postprocess_nodes(nodes, query_str=QUERY)) == 2
    finally:
        dispatcher.span_handlers = before
    names = {span.id_: span for span in spans.completed_spans}
    inner = next(span for name, span in names.items() if name.startswith("LongContextReorder._postprocess_nodes"))
    parent = inner
    while parent.parent_id in names:
        parent = names[parent.parent_id]
    assert parent.id_.startswith("RerankPostprocessor._postprocess_nodes")
