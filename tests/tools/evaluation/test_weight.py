"""What weight of a first stage's scores is suggested, from evaluations of real scorers."""

from __future__ import annotations

import random

import pytest

from rerank_core import ConfigurationError, Reranker
from rerank_core.testing import FakeScorer
from rerank_tools.evaluation import Dataset, EvaluationResult, evaluate, suggest_retrieval_weight

NAMES = [f"d{number}" for number in range(10)]


class Noisy(FakeScorer):
    """A scorer that knows what is relevant, but not well.

    Args:
        noise: how far a score may be from the truth.
    """

    def __init__(self, noise: float) -> None:
        super().__init__(name=f"noisy-{noise}")
        self.noise = noise

    async def score(self, query, texts):
        """Return 0.5 or 0.3, and noise."""
        scored = await super().score(query, texts)
        scores = []
        for text in texts:
            truth = 0.5 if f"answer to {query}" in text else 0.3
            scores.append(truth + self.noise * random.Random(query + text).random())
        return type(scored)(scores, usage=scored.usage)


def evaluate_with(noise: float, first_stage_noise: float, queries: int = 40) -> EvaluationResult:
    """Return an evaluation in which both stages find what is relevant, with errors of their own."""
    questions = {f"q{number}": f"question {number}." for number in range(queries)}
    documents = {
        f"{query}-{name}": f"{'answer to ' + text if name == 'd3' else 'no answer'} in {query}-{name}"
        for query, text in questions.items()
        for name in NAMES
    }
    scores = {
        query: {
            f"{query}-{name}": (1.0 if name == "d3" else 0.0)
            + first_stage_noise * random.Random(f"first {query}-{name}").random()
            for name in NAMES
        }
        for query in questions
    }
    data = Dataset(documents, questions, {query: {f"{query}-d3": 1} for query in questions})
    return evaluate({"noisy": Reranker(Noisy(noise))}, data, candidates=10, first_stage=scores, measures=["RR"])


def test_the_suggested_weight_gives_what_reranking_with_it_gives() -> None:
    """Two stages whose errors differ are better together; the curve's means are those of an evaluation."""
    found = evaluate_with(noise=0.4, first_stage_noise=2.0)
    suggestion = suggest_retrieval_weight(found)
    assert (suggestion.system, suggestion.measure, suggestion.queries) == ("noisy", "RR", 40)
    assert 0.0 < suggestion.weight < 1.0
    assert suggestion.gain_interval is not None
    assert 0.0 < suggestion.gain_interval[0] <= suggestion.gain <= suggestion.gain_interval[1]
    by_weight = {point.weight: point for point in suggestion.curve}
    assert list(by_weight) == sorted(by_weight)
    assert (min(by_weight), max(by_weight)) == (0.0, 1.0)
    best = by_weight[suggestion.weight]
    assert best.mean == max(point.mean for point in suggestion.curve)
    assert by_weight[0.0].mean == pytest.approx(found["noisy"].measures["RR"])
    assert by_weight[1.0].mean == pytest.approx(found.baseline.measures["RR"])
    assert best.gain == pytest.approx(best.mean - by_weight[0.0].mean)


def test_no_weight_is_suggested_where_none_is_sure_to_help() -> None:
    """A reranker that is always right gains nothing, and the note says so."""
    suggestion = suggest_retrieval_weight(evaluate_with(noise=0.0, first_stage_noise=2.0))
    assert (suggestion.weight, suggestion.gain, suggestion.enough) == (0.0, 0.0, False)
    assert "No weight is sure to help" in suggestion.note


def test_one_query_has_no_interval_and_nothing_scored_is_an_error() -> None:
    """An interval needs two queries; an evaluation of the first stage alone has no reranker to weigh."""
    suggestion = suggest_retrieval_weight(evaluate_with(noise=0.4, first_stage_noise=2.0, queries=1))
    assert (suggestion.weight, suggestion.gain_interval) == (0.0, None)
    documents = {"a": "one", "b": "two"}
    alone = evaluate({}, Dataset(documents, {"q": "one"}, {"q": {"a": 1}}), candidates=2)
    with pytest.raises(ConfigurationError):
        suggest_retrieval_weight(alone)


def test_blank_documents_are_left_out_of_the_mixture_as_in_a_call() -> None:
    """Their 0.0 would move the scores of all others."""
    documents = {"blank": " ", **{name: f"text {name}" for name in NAMES}}
    relevance = {text: 0.5 + 0.04 * place for place, text in enumerate(documents.values())}
    run = {"q": {name: float(-place) for place, name in enumerate(documents)}}
    data = Dataset(documents, {"q": "which?"}, {"q": {"d4": 1}})
    scorer = FakeScorer(lambda query, text: relevance[text])
    suggestion = suggest_retrieval_weight(evaluate({"fake": scorer}, data, first_stage=run, measures=["RR"]))
    for weight in (0.3, 0.45, 0.5):
        called = Reranker(scorer, retrieval_weight=weight)
        found = evaluate({"fake": called}, data, first_stage=run, measures=["RR"])["fake"].measures["RR"]
        assert {point.weight: point.mean for point in suggestion.curve}[weight] == pytest.approx(found)
