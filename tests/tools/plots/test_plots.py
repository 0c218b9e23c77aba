"""Plots: what they draw, that their labels keep apart, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl
import pytest
from support.scorers import Answers

from rerank_core import ConfigurationError, Ranking, Reranker, Selection, Usage
from rerank_core.testing import FakeScorer
from rerank_tools.evaluation import Dataset, EvaluationResult, evaluate, suggest_threshold
from rerank_tools.plots import (
    plot_precision_recall,
    plot_quality_tradeoff,
    plot_rank_movement,
    plot_score_distribution,
)

mpl.use("Agg")

DOCUMENTS = [f"document about {word} for $5 and a long tail of words" for word in "abcdefghijklmnop"]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the test's figures."""
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def ranked(scores: list[float], selection: Selection = Selection()) -> Ranking[str]:  # noqa: B008 - frozen
    """Rank documents by given scores."""
    return Reranker(Answers(scores), selection=selection).rerank("the query", DOCUMENTS[: len(scores)])


@pytest.fixture(scope="module")
def measured() -> EvaluationResult:
    """Two rerankers on three queries."""
    texts = {str(number): text for number, text in enumerate(DOCUMENTS)}
    queries = {"1": "document about a", "2": "words about c", "3": "tail about e"}
    qrels = {"1": {"0": 1}, "2": {"2": 1, "3": 1}, "3": {"4": 1}}
    return evaluate({"one": FakeScorer(), "two": FakeScorer()}, Dataset(texts, queries, qrels), candidates=16)


def test_movement_has_a_line_for_each_document_and_step() -> None:
    """Two rerankers side by side: ranks, names, and lines that say which way a document went."""
    up = ranked([0.1, 0.2, 0.9])
    ax = plot_rank_movement({"first": up, "second": ranked([0.9, 0.2, 0.1], Selection(top_n=1))})
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 3], [3, 1], [2, 2], [2, 4], [3, 1], [1, 4]]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["first stage", "first", "second"]
    assert {line.get_linestyle() for line in ax.lines} == {"-", "--"}
    assert ax.get_ylabel() == "rank (1 is best)"
    assert ax.get_title()


def test_movement_draws_only_the_best_of_many() -> None:
    """Beyond ``top`` there is one row for all, and a label's dollar sign starts no formula."""
    scores = ranked([number / 20 for number in range(16)])
    ax = plot_rank_movement(scores, top=4, label_fn=lambda found: found.text[-9:])
    assert max(max(line.get_ydata()) for line in ax.lines) == 5
    assert len(ax.lines) == 8
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[-1] == "below 4, or dropped"
    assert labels[0] == "of words  1"
    ax.figure.canvas.draw()


def test_movement_refuses_rankings_of_different_documents() -> None:
    """Nothing to draw, and different numbers of documents, are errors that say the numbers."""
    for rankings in ({}, Ranking("q", "m"), {"a": ranked([0.1]), "b": ranked([0.1, 0.2])}):
        with pytest.raises(ConfigurationError, match="same documents"):
            plot_rank_movement(rankings)
    with pytest.raises(ConfigurationError, match="top"):
        plot_rank_movement(ranked([0.1]), top=0)


def test_scores_are_counted_on_their_side_of_the_cut() -> None:
    """The histogram counts every score once; the line stands at the cut."""
    ax = plot_score_distribution(ranked([0.1, 0.12, 0.5, 0.9], Selection(adaptive_ratio=0.5)))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(texts) == {"kept (2)", "dropped (2)", "cut at 0.450"}
    assert ax.get_xlabel() == "relevance score (0 to 1)"
    assert len(ax.containers[0].patches) == 20
    different = [
        ranked([0.5, 0.1], Selection(adaptive_ratio=0.5)),
        ranked([0.9, 0.1], Selection(adaptive_ratio=0.5)),
    ]
    assert not plot_score_distribution(different).lines
    with pytest.raises(ConfigurationError, match="no document has a score"):
        plot_score_distribution([])


def test_precision_and_recall_over_thresholds(measured: EvaluationResult) -> None:
    """The curve's own numbers, the target, and a line at the suggestion where there is one."""
    suggestion = suggest_threshold(measured, system="one", target_precision=0.01)
    ax = plot_precision_recall(suggestion)
    assert list(ax.lines[0].get_ydata()) == [point.precision for point in suggestion.curve]
    assert list(ax.lines[1].get_ydata()) == [point.recall for point in suggestion.curve]
    assert len(ax.lines) == 4
    assert len(plot_precision_recall(replace(suggestion, threshold=None)).lines) == 3
    with pytest.raises(ConfigurationError, match="no curve"):
        plot_precision_recall(replace(suggestion, curve=()))


def test_the_front_is_what_nothing_beats(measured: EvaluationResult) -> None:
    """Filled: not beaten in quality, latency and cost together; an unknown price has a place by latency only."""
    result = _with_systems(measured, [(0.9, 0.2, 1.0), (0.8, 0.1, 0.5), (0.7, 0.3, 1.0), (0.95, 0.4, None)])
    ax = plot_quality_tradeoff(result)
    filled = [container.lines[0].get_markerfacecolor() != "white" for container in ax.containers]
    assert filled == [True, True, False, True]
    assert "price unknown" in ax.get_legend_handles_labels()[1][-1]
    assert len(plot_quality_tradeoff(result, by="cost").containers) == 3
    for bad in ({"measure": "nDCG"}, {"by": "size"}):
        with pytest.raises(ConfigurationError, match=r"is 'nDCG'|is 'size'"):
            plot_quality_tradeoff(result, **bad)
    with pytest.raises(ConfigurationError, match="known cost"):
        plot_quality_tradeoff(_with_systems(measured, [(0.9, 0.2, None)]), by="cost")


@pytest.mark.parametrize("by", ["latency", "cost"])
def test_the_legend_tells_many_rerankers_apart(measured: EvaluationResult, by: str) -> None:
    """Eight of them: each has an entry with its name, and a colour and marker that no other has."""
    points = [(0.6 + 0.02 * number, 0.05 * 1.3**number, 0.1 * number) for number in range(8)]
    ax = plot_quality_tradeoff(_with_systems(measured, points), by=by)  # type: ignore[arg-type]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sum(label.startswith("provider:a-reranker-v") for label in labels) == 8
    drawn = [container.lines[0] for container in ax.containers]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 8


def _with_systems(result: EvaluationResult, points: list[tuple[float, float, float | None]]) -> EvaluationResult:
    """The evaluation with these rerankers: quality, seconds a query, dollars a query."""
    one = result.systems[1]
    systems = [
        replace(
            one,
            name=f"provider:a-reranker-v{number}-large",
            measures=dict.fromkeys(result.measures, quality),
            intervals=dict.fromkeys(result.measures, (quality - 0.02, quality + 0.02)),
            latency_p50=seconds,
            usage=Usage(cost=None if cost is None else cost * len(one.queries)),
        )
        for number, (quality, seconds, cost) in enumerate(points)
    ]
    return replace(result, systems=(result.baseline, *systems))
