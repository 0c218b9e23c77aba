"""Evaluations shown, and what is suggested from them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console
from support.collections import collection

from rerank_core import ConfigurationError, Reranker, Scored, Scorer, ScorerUnavailableError, Usage
from rerank_core.testing import FakeScorer
from rerank_tools.evaluation import Dataset, EvaluationResult, evaluate, suggest_candidates, suggest_threshold

DATA = collection()
QUERIES = 40


class Priced(Scorer):
    """A scorer that costs something.

    Args:
        cost: US dollars a call, None for unknown.
    """

    name = "priced"

    def __init__(self, cost: float | None) -> None:
        self.cost = cost

    async def score(self, query, texts):
        """Score longer texts higher."""
        return Scored([len(text) / 1000 for text in texts], Usage(requests=1, cost=self.cost))


class Cells(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


@pytest.fixture(scope="module")
def result() -> EvaluationResult:
    """Return an evaluation of three rerankers with awkward names."""
    systems = {"fake": FakeScorer(), "<script>alert(1)</script>|x": Priced(0.25), "[b]new": Priced(None)}
    return evaluate(systems, DATA, candidates=16)


def test_the_terminal_table_fits_80_columns(result: EvaluationResult) -> None:
    """Every number whole, names as they are."""
    console = Console(width=80, record=True, file=StringIO())
    console.print(result.to_table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert f"{result['fake'].measures['nDCG@10']:.3f}" in text
    for part in ("[b]new", "unknown", "$2.00", "small: 8 queries, BM25's top 16", "Holm-corrected"):
        assert part in text


def test_markdown_has_a_row_a_system(result: EvaluationResult) -> None:
    """Below the title; as many cells in each, bars in names escaped."""
    lines = result.to_table().to_markdown().splitlines()
    assert lines[0] == "**small: 8 queries, BM25's top 16**"
    assert lines[2] == "| system | nDCG@10 | RR | AP | R@10 | P@10 | p50 (p95) | cost |"
    assert [line.replace("\\|", "").count("|") for line in lines[2:8]] == [9] * 6
    assert lines[5].startswith("| fake | ")
    assert f"{result['fake'].measures['RR']:.3f}" in lines[5]


def test_a_data_frame_has_the_numbers(result: EvaluationResult) -> None:
    """Unrounded."""
    frame = result.to_table().to_pandas()
    assert list(frame["system"]) == [system.name for system in result.systems]
    assert list(frame["RR"]) == [system.measures["RR"] for system in result.systems]


def test_html_is_escaped(result: EvaluationResult) -> None:
    """A name is a text, whatever it holds."""
    page = Cells(result.to_table().to_html())
    assert "script" not in page.tags
    assert page.tags.count("tr") == 5
    assert "<script>alert(1)</script>|x" in page.text
    assert result._repr_html_() == result.to_table().to_html()


def test_json_holds_every_number_and_no_text(result: EvaluationResult) -> None:
    """Of each query too."""
    values = json.loads(json.dumps(result.to_dict()))
    assert values == result.to_dict() | {"systems": values["systems"]}
    fake = values["systems"][1]
    assert (fake["name"], fake["models"]) == ("fake", ["fake"])
    assert fake["per_query"]["RR"]["q3"] == result["fake"].per_query["RR"]["q3"]
    assert fake["usage"]["requests"] == 8
    assert values["systems"][2]["usage"]["cost"] == pytest.approx(2.0)
    assert "How to" not in json.dumps(result.to_dict())


def test_an_unknown_system_is_named_with_those_that_there_are(result: EvaluationResult) -> None:
    """By indexing."""
    with pytest.raises(ConfigurationError, match=r"no system is called 'other': there are 'BM25', 'fake'"):
        result["other"]


def judged_scores(score: dict[str, float], relevant: set[str], *, queries: int = QUERIES) -> EvaluationResult:
    """Return an evaluation in which every query has the same documents, scores and judgements."""
    documents = {name: name for name in score}
    asked = {f"q{number}": f"query {number}" for number in range(queries)}
    data = Dataset(documents, asked, {query: dict.fromkeys(relevant, 1) for query in asked})
    scorer = FakeScorer(lambda query, text: score[text])
    return evaluate({"fake": scorer}, data, first_stage=lambda query, candidates: list(documents)[:candidates])


def test_the_threshold_is_the_lowest_that_reaches_the_precision() -> None:
    """Equal scores are kept together or not at all."""
    found = judged_scores({"a": 0.9, "b": 0.7, "c": 0.7, "d": 0.5, "e": 0.3}, {"a", "b", "d"})
    suggestion = suggest_threshold(found, target_precision=0.75)
    assert (suggestion.threshold, suggestion.precision) == (0.5, 0.75)
    assert (suggestion.recall, suggestion.kept) == (1.0, 4.0)
    assert suggestion.precision_interval == (0.75, 0.75)
    assert [point.threshold for point in suggestion.curve] == [0.9, 0.7, 0.5, 0.3]
    assert [point.precision for point in suggestion.curve] == pytest.approx([1.0, 2 / 3, 0.75, 0.6])
    assert [point.recall for point in suggestion.curve] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert suggestion.enough
    assert (suggestion.queries, suggestion.system) == (QUERIES, "fake")
    assert suggest_threshold(found, target_precision=0.9).threshold == 0.9


def test_a_precision_out_of_reach_gives_no_threshold() -> None:
    """The note says what to do instead."""
    suggestion = suggest_threshold(judged_scores({"a": 0.9, "b": 0.8}, {"b"}), target_precision=0.8)
    assert (suggestion.threshold, suggestion.precision, suggestion.kept) == (None, None, None)
    assert not suggestion.enough
    assert "No threshold reaches the target" in suggestion.note


def test_too_little_data_for_a_threshold_is_said() -> None:
    """Few queries, few documents, or a precision that could be anything."""
    suggestion = suggest_threshold(judged_scores({"a": 0.9, "b": 0.8}, {"a"}, queries=3))
    assert suggestion.threshold == 0.9
    assert not suggestion.enough
    assert "Only 3 documents" in suggestion.note
    assert "Only 3 queries" in suggestion.note
    asked = {f"q{number}": f"query {number}" for number in range(QUERIES)}
    scorer = FakeScorer(lambda query, text: {"a": 0.9, "b": 0.1}[text])
    qrels = {query: {"a" if number % 2 else "none": 1} for number, query in enumerate(asked)}
    half = evaluate(
        {"fake": scorer}, Dataset({"a": "a", "b": "b"}, asked, qrels), first_stage=lambda q, k: ["b", "a"]
    )
    wide = suggest_threshold(half, target_precision=0.5)
    assert (wide.threshold, wide.precision) == (0.9, 0.5)
    assert not wide.enough
    assert "known only to lie from" in wide.note


def test_the_depth_is_where_more_candidates_stop_helping() -> None:
    """The relevant document is the seventh candidate, and the reranker finds it."""
    names = [f"d{number}" for number in range(30)]
    scores = {name: 0.5 - number / 100 for number, name in enumerate(names)} | {"d6": 0.9}
    suggestion = suggest_candidates(judged_scores(scores, {"d6"}))
    assert (suggestion.candidates, suggestion.mean, suggestion.measure) == (7, 1.0, "nDCG@10")
    assert [point.candidates for point in suggestion.curve] == [1, 2, 3, 5, 7, 10, 15, 20, 30]
    assert [point.mean for point in suggestion.curve] == [0.0] * 4 + [1.0] * 5
    assert suggestion.curve[0].remaining == 1.0
    assert suggestion.curve[0].remaining_interval == (1.0, 1.0)
    assert suggestion.enough
    assert suggestion.note == ""


def test_candidates_that_mislead_the_reranker_stop_the_depth_sooner() -> None:
    """The best depth is not the greatest one."""
    scores = {"a": 0.8, "b": 0.5, "c": 0.4, "d": 0.95, "e": 0.96}
    suggestion = suggest_candidates(judged_scores(scores, {"a"}), measure="RR")
    assert (suggestion.candidates, suggestion.mean) == (1, 1.0)
    assert suggestion.curve[-1].mean == pytest.approx(1 / 3)
    assert suggestion.curve[-1].remaining == 0.0


def test_a_depth_that_still_helps_at_its_end_is_said() -> None:
    """More than was measured would be a guess."""
    scores = {f"d{number}": 0.1 + number / 10 for number in range(5)}
    suggestion = suggest_candidates(judged_scores(scores, {"d4"}))
    assert suggestion.candidates == 5
    assert not suggestion.enough
    assert "evaluate with more, if there are" in suggestion.note


def test_too_little_data_for_a_depth_is_said() -> None:
    """Few queries, an uncertain gain, or a reranker whose scores depend on the depth."""
    suggestion = suggest_candidates(evaluate({"fake": FakeScorer()}, DATA, candidates=16), tolerance=0.2)
    assert not suggestion.enough
    assert "Only 8 queries" in suggestion.note
    listwise = FakeScorer()
    listwise.listwise = True
    assert "by each other" in suggest_candidates(evaluate({"fake": listwise}, DATA, candidates=4)).note


def test_an_uncertain_gain_is_said() -> None:
    """The mean gain is within the tolerance, its interval is not."""
    asked = {f"q{number}": f"query {number}" for number in range(QUERIES)}
    qrels = {query: {"b" if number == 0 else "a": 1} for number, query in enumerate(asked)}
    scorer = FakeScorer(lambda query, text: 0.9 if (text == "b") == (query == "query 0") else 0.1)
    documents = {name: name for name in "abc"}
    found = evaluate(
        {"fake": scorer}, Dataset(documents, asked, qrels), first_stage=lambda query, candidates: list(documents)
    )
    suggestion = suggest_candidates(found, tolerance=0.026)
    assert suggestion.candidates == 1
    assert not suggestion.enough
    assert "may still add up to" in suggestion.note


def test_a_system_is_chosen_by_name_where_there_are_several(result: EvaluationResult) -> None:
    """There is no guessing."""
    assert suggest_candidates(result, system="fake").system == "fake"
    with pytest.raises(ConfigurationError, match="results are of 3 rerankers .'fake'.*: give system="):
        suggest_threshold(result)
    with pytest.raises(ConfigurationError, match="'BM25', the first stage"):
        suggest_threshold(result, system="BM25")
    with pytest.raises(ConfigurationError, match="results are of 0 rerankers"):
        suggest_candidates(evaluate({}, DATA))


def test_bad_options_of_a_suggestion_are_named(result: EvaluationResult) -> None:
    """With their value and limits."""
    with pytest.raises(ConfigurationError, match="target_precision is 0"):
        suggest_threshold(result, target_precision=0, system="fake")
    with pytest.raises(ConfigurationError, match="tolerance is -1"):
        suggest_candidates(result, tolerance=-1, system="fake")
    with pytest.raises(ConfigurationError, match="'x' is no measure"):
        suggest_candidates(result, measure="x", system="fake")


def test_nothing_scored_suggests_nothing() -> None:
    """Nor does a query that failed count."""
    down = Reranker(FakeScorer(error=ScorerUnavailableError("down")), on_error="passthrough")
    with pytest.raises(ConfigurationError, match="fake scored no candidate"):
        suggest_threshold(evaluate({"fake": down}, DATA))
