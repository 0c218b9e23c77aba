"""Evaluation: measures, comparisons, first stages, and going on after an interruption."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import bm25s
import ir_measures
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, nDCG
from support.collections import collection, write_beir
from support.scripts import run_script

from rerank_core import (
    ConfigurationError,
    MissingExtraError,
    Reranker,
    ScorerError,
    ScorerUnavailableError,
    Selection,
    load_scorer,
)
from rerank_core.policies import Cascade
from rerank_core.testing import FakeScorer
from rerank_tools.evaluation import Dataset, evaluate
from rerank_tools.evaluation.measures import correct_p_values, make_decreasing, mean_interval, paired_p_value

DATA = collection()
ALL = {query: {key: -float(rank) for rank, key in enumerate(DATA.documents)} for query in DATA.queries}


class FailsAfter(FakeScorer):
    """A scorer that breaks down after some calls.

    Args:
        calls_left: answers before that.
    """

    options_without_effect_on_scores = frozenset({"calls_left"})

    def __init__(self, calls_left: int) -> None:
        super().__init__(name="fake")
        self.left = calls_left

    async def score(self, query, texts):
        """Answer or fail."""
        self.left -= 1
        if self.left < 0:
            raise ScorerUnavailableError("fake is down: wait")
        return await super().score(query, texts)


@pytest.mark.parametrize("layout", ["memory", "BEIR"])
def test_measures_agree_with_ir_measures_run_by_hand_on_the_saved_runs(tmp_path: Path, layout: str) -> None:
    """Means and single queries, of the first stage and of a real reranker."""
    folder = write_beir(DATA, tmp_path / "small")
    result = evaluate(["embedded"], DATA if layout == "memory" else folder, candidates=20)
    paths = result.save_runs(tmp_path / "runs")
    assert list(paths) == ["BM25", "embedded"]
    qrels = [
        ir_measures.Qrel(query, key, grade) for query, found in DATA.qrels.items() for key, grade in found.items()
    ]
    for system in result.systems:
        run = list(ir_measures.read_trec_run(str(paths[system.name])))
        by_hand = ir_measures.calc([nDCG @ 10, RR, AP], qrels, run)
        assert {str(key): value for key, value in by_hand.aggregated.items()} == pytest.approx(
            {name: system.measures[name] for name in ("nDCG@10", "RR", "AP")}
        )
        for metric in by_hand.per_query:
            assert system.per_query[str(metric.measure)][metric.query_id] == pytest.approx(metric.value)
    assert result["embedded"].measures["RR"] == 1.0
    assert (result.dataset, len(result.qrels), result.measures[1:3]) == ("small", 8, ("RR", "AP"))


def test_bm25_is_that_of_bm25s() -> None:
    """The same scores as one call for all queries gives, what matches nothing left out; equal ones in order."""
    result = evaluate({}, DATA, candidates=12)
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(list(DATA.documents.values()), **options), show_progress=False)
    found, scores = index.retrieve(
        bm25s.tokenize(list(DATA.queries.values()), **options), k=12, show_progress=False
    )
    ids = list(DATA.documents)
    for row, answer in enumerate(result.baseline.queries.values()):
        assert answer.scores == tuple(score for score in scores[row] if score > 0.0)
        expected = {ids[position]: score for position, score in zip(found[row], scores[row], strict=True)}
        given = dict(zip(answer.candidates, answer.scores, strict=True))
        assert all(given[key] == score for key, score in expected.items() if key in given)
        assert list(answer.ranked) == sorted(given, key=lambda key: (-given[key], ids.index(key)))
    assert result.rerankers == ()
    assert result.baseline.p_values == {}
    assert result.baseline.latency_p95 is not None


def test_a_candidate_that_the_selection_drops_is_not_in_the_ranking() -> None:
    """What the user would see is measured; every score is kept all the same."""
    one = Reranker(FakeScorer(), selection=Selection(top_n=1))
    result = evaluate({"one": one, "all": FakeScorer()}, DATA, measures=["P@3", "R@20"])
    answer = result["one"].queries["q3"]
    assert len(answer.ranked) == 1
    assert len(answer.scores) == len(answer.candidates) > 1
    assert result["one"].measures["R@20"] < result["all"].measures["R@20"]
    assert result["one"].run["q3"] == {answer.ranked[0]: pytest.approx(answer.ranked_scores[0])}


def test_equal_scores_keep_the_first_stages_order_in_every_measure() -> None:
    """Tools order equal scores by document id, unless the run says otherwise."""
    result = evaluate({"same": FakeScorer(lambda query, text: 0.5)}, DATA)
    assert result["same"].per_query == result.baseline.per_query
    assert set(result["same"].p_values.values()) == {1.0}


@given(st.lists(st.floats(0, 1), max_size=30))
def test_scores_of_a_run_fall_strictly_in_single_precision(scores: list[float]) -> None:
    """In the order given, hardly changed, and the same when applied again."""
    ordered = sorted(scores, reverse=True)
    falling = make_decreasing(ordered)
    singles = [struct.unpack("f", struct.pack("f", value))[0] for value in falling]
    assert singles == falling
    assert all(one > other for one, other in pairwise(falling))
    assert falling == pytest.approx(ordered, abs=1e-5)
    assert make_decreasing(falling) == falling


def test_intervals_hold_the_mean_and_repeat(tmp_path: Path) -> None:
    """They are drawn at random, from a fixed seed."""
    first = evaluate({"fake": FakeScorer()}, DATA)
    second = evaluate({"fake": FakeScorer()}, DATA)
    for system, again in zip(first.systems, second.systems, strict=True):
        assert system.intervals == again.intervals
        assert system.p_values == again.p_values
        for measure, interval in system.intervals.items():
            assert interval is not None
            assert interval[0] <= system.measures[measure] <= interval[1]


def test_p_values_are_exact_for_few_queries() -> None:
    """Of the 8 ways to swap three pairs, two give a mean difference as large."""
    assert paired_p_value([0.5, 0.6, 0.7], [0.4, 0.4, 0.4]) == pytest.approx(2 / 8)
    assert paired_p_value([0.5], [0.4]) is None
    assert mean_interval([0.5]) is None


def test_p_values_are_corrected_for_the_number_of_rerankers() -> None:
    """By Holm's method, which never puts a smaller one above a larger one, nor any above 1."""
    assert correct_p_values({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": pytest.approx(0.03), "b": 0.06, "c": 0.06}
    assert correct_p_values({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    alone = evaluate({"a": FakeScorer()}, DATA, measures=["RR"], first_stage=ALL)["a"].p_values["RR"]
    both = evaluate({"a": FakeScorer(), "b": FakeScorer()}, DATA, measures=["RR"], first_stage=ALL)["a"]
    assert alone is not None
    assert both.p_values["RR"] == pytest.approx(2 * alone)


def test_one_query_is_measured_without_interval_and_test() -> None:
    """There is nothing to resample."""
    data = Dataset(DATA.documents, DATA.queries, {"q0": DATA.qrels["q0"]})
    result = evaluate({"fake": FakeScorer()}, data)
    assert set(result["fake"].intervals.values()) == {None}
    assert set(result["fake"].p_values.values()) == {None}
    assert len(result["fake"].queries) == 1


def test_latency_and_usage_are_those_of_the_calls() -> None:
    """One call a query, seconds as they passed."""
    result = evaluate({"fake": FakeScorer(latency=0.01)}, DATA, candidates=5)
    system = result["fake"]
    assert system.latency_p50 is not None
    assert system.latency_p95 is not None
    assert 0.01 <= system.latency_p50 <= system.latency_p95
    assert system.usage.requests == 8
    assert system.usage.documents == sum(len(answer.candidates) for answer in system.queries.values())
    assert system.usage.cost == 0.0
    assert not system.listwise
    cascade = Cascade([FakeScorer(), FakeScorer()], keep=[3])
    assert evaluate([cascade], DATA, candidates=5)[cascade.name].listwise


def test_a_second_evaluation_sends_nothing(tmp_path: Path) -> None:
    """And finds the same; nothing was timed or paid for, so it tells of neither."""
    scorer = FakeScorer()
    first = evaluate({"fake": scorer}, DATA, save_to=tmp_path)["fake"]
    second = evaluate({"fake": scorer}, DATA, save_to=tmp_path, measures=[*first.measures][::-1])["fake"]
    assert scorer.calls == 8
    assert second.measures == first.measures
    assert second.run == first.run
    assert (first.usage.requests, first.usage.cached) == (8, 0)
    assert (second.usage.requests, second.usage.cached) == (0, first.usage.documents)
    assert first.latency_p50 is not None
    assert (second.latency_p50, {answer.seconds for answer in second.queries.values()}) == (None, {None})
    assert not any(b"How to" in path.read_bytes() for path in tmp_path.iterdir())


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was answered is kept, and what is asked now is timed; a damaged file is begun anew."""
    with pytest.raises(ScorerUnavailableError):
        evaluate({"fake": FailsAfter(3)}, DATA, save_to=tmp_path)
    scorer = FailsAfter(5)
    found = evaluate({"fake": scorer}, DATA, save_to=tmp_path)["fake"]
    assert scorer.left == 0
    assert found.latency_p50 is not None
    assert [answer.seconds is None for answer in found.queries.values()] == [True] * 3 + [False] * 5
    evaluate({"fake": scorer}, DATA, save_to=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:3000])
    scorer.left = 8
    assert evaluate({"fake": scorer}, DATA, save_to=tmp_path)["fake"].measures == found.measures
    assert scorer.left == 0


class CountsLoads(FakeScorer):
    """A scorer that counts how often it was made ready."""

    loads = 0

    async def warm_up(self):
        """Count."""
        CountsLoads.loads += 1


@pytest.mark.parametrize("listwise", [False, True])
def test_no_model_is_loaded_for_scores_that_are_kept(tmp_path: Path, listwise: bool) -> None:
    """Only the first query that needs the model makes it ready; blank and repeated documents need none."""
    documents = {**DATA.documents, "blank": " ", "again": next(iter(DATA.documents.values()))}
    data = replace(DATA, documents=documents)
    scorer = CountsLoads(name="fake")
    scorer.listwise = listwise
    CountsLoads.loads = 0
    for number, loads in ((3, 1), (3, 1), (4, 2)):
        found = {query: dict.fromkeys(documents, 1.0) for query in list(data.judged)[:number]}
        evaluate({"fake": scorer}, data, save_to=tmp_path, first_stage=found)
        assert CountsLoads.loads == loads


def test_a_reranker_counts_what_its_evaluation_consumed(tmp_path: Path) -> None:
    """Whether scores are kept or not; what is found again is counted as cached."""
    for save_to, again in ((None, 0), (tmp_path, 0), (tmp_path, 1)):
        reranker = Reranker(FakeScorer())
        evaluate({"fake": reranker}, DATA, save_to=save_to)
        assert (reranker.total_usage.documents > 0, reranker.total_usage.cached > 0) == (not again, bool(again))


def test_rerankers_with_names_like_each_other_pay_for_themselves(tmp_path: Path) -> None:
    """Scores of one are none of the other's, whose cost and seconds would be lost."""
    found = evaluate(dict.fromkeys(["a b", "a-b", "A b"], FakeScorer()), DATA, save_to=tmp_path)
    assert {system.usage.cached for system in found.rerankers} == {0}
    assert all(system.latency_p50 is not None for system in found.rerankers)


def test_only_what_changed_is_asked_again(tmp_path: Path) -> None:
    """A query's or a document's text, a new candidate, or an option of the scorer; no option of the call."""

    def ask(reranker: FakeScorer | Reranker, data: Dataset = DATA, candidates: int = 8) -> int:
        found = evaluate({"fake": reranker}, data, save_to=tmp_path, first_stage=ALL, candidates=candidates)
        return found["fake"].usage.documents

    scorer = FakeScorer()
    assert ask(scorer) == 64
    assert ask(scorer, replace(DATA, queries={**DATA.queries, "q1": "another question"})) == 8
    assert ask(scorer, candidates=9) == 8
    assert ask(scorer, replace(DATA, documents={**DATA.documents, "d00": "rewritten"})) == 8
    assert ask(Reranker(scorer, selection=Selection(top_n=2), retrieval_weight=0.5, timeout=9.0)) == 0
    assert ask(FakeScorer(scale="logit")) == 64
    assert ask(FakeScorer(scale="logit")) == 0


def test_options_of_scorers_inside_a_policy_count_as_options(tmp_path: Path) -> None:
    """What a policy is made of decides its scores."""
    for keep, length in ((2, 64), (3, 64), (2, 128)):
        scorers = [FakeScorer(), load_scorer("embedded", max_length=length)]
        for is_known in (False, True):
            result = evaluate(
                {"c": Cascade(scorers, keep=[keep])}, DATA, save_to=tmp_path, first_stage=ALL, candidates=4
            )
            assert (result["c"].usage.cached > 0) is is_known
            assert result["c"].listwise


def test_a_scorer_whose_options_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """Another process could not know whether its answers are those of the same options."""
    scorer = FakeScorer(lambda query, text: 0.5)
    with pytest.raises(ConfigurationError, match="'relevance'.*cache_key"):
        evaluate({"fake": scorer}, DATA, save_to=tmp_path)
    assert scorer.calls == 0


def test_a_failure_passed_through_is_reported_and_asked_again(tmp_path: Path) -> None:
    """The first stage's order is measured, as the user would see it."""
    reranker = Reranker(FailsAfter(6), on_error="passthrough")
    result = evaluate({"fake": reranker}, DATA, save_to=tmp_path)
    assert result["fake"].failures == {"q6": "ScorerUnavailableError", "q7": "ScorerUnavailableError"}
    assert result["fake"].queries["q7"].ranked == result.baseline.queries["q7"].ranked
    assert result["fake"].queries["q7"].scores[0] is None
    assert result["fake"].per_query["RR"]["q7"] == result.baseline.per_query["RR"]["q7"]
    assert "2 calls failed" in result.to_table().to_markdown()
    scorer = FailsAfter(2)
    assert evaluate({"fake": Reranker(scorer)}, DATA, save_to=tmp_path)["fake"].failures == {}
    assert scorer.left == 0


@pytest.mark.parametrize("kind", ["file", "mapping", "function", "scored function"])
def test_a_first_stage_may_be_a_run_or_a_function(kind: str, tmp_path: Path) -> None:
    """All give the same candidates in the same order; only functions take time."""
    run = {
        query: {f"d{row}{column}": 9.0 - column for column in range(8)} for row, query in enumerate(DATA.queries)
    }
    by_text = {text: run[query] for query, text in DATA.queries.items()}
    path = tmp_path / "mine.run"
    lines = [f"{query} Q0 {key} 1 {score} tag\n" for query, found in run.items() for key, score in found.items()]
    path.write_text("".join(lines), encoding="utf-8")

    def search(text: str, candidates: int) -> list[str]:
        return list(by_text[text])[:candidates]

    first_stage = {"file": path, "mapping": run, "function": search, "scored function": lambda q, k: by_text[q]}[
        kind
    ]
    result = evaluate({"fake": FakeScorer()}, DATA, first_stage=first_stage, candidates=3)
    assert [answer.candidates[:3] for answer in result.baseline.queries.values()] == [
        (f"d{row}0", f"d{row}1", f"d{row}2") for row in range(8)
    ]
    assert all(len(answer.candidates) == 3 for answer in result["fake"].queries.values())
    expected = {"file": "mine", "mapping": "first stage", "function": "search", "scored function": "first stage"}
    assert result.first_stage == expected[kind]
    assert (result.baseline.latency_p50 is None) is (kind in ("file", "mapping"))


def test_a_query_without_candidates_is_not_sent_and_counts_as_nothing_found() -> None:
    """In the mean, and not in the latency."""
    scorer = FakeScorer()
    result = evaluate({"fake": scorer}, DATA, first_stage={"q0": {"d00": 1.0}}, measures=["R@5"])
    assert scorer.calls == 1
    assert result["fake"].measures["R@5"] == pytest.approx(1 / 3 / 8)
    assert result["fake"].queries["q1"].seconds is None


def test_queries_without_a_relevant_document_are_neither_sent_nor_measured() -> None:
    """Nothing could be found for them."""
    data = replace(DATA, qrels={**DATA.qrels, "q1": {"d11": 0}, "q2": {}})
    assert list(evaluate({"fake": FakeScorer()}, data)["fake"].queries) == ["q0", "q3", "q4", "q5", "q6", "q7"]


def test_progress_is_shown_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """A step a call; the output stream stays free."""
    evaluate({"a": FakeScorer(), "b": FakeScorer()}, DATA, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "16/16" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerankers": "embedded"}, "rerankers is a str"),
        ({"rerankers": ["no-such-scorer"]}, "no scorer is called 'no-such-scorer'"),
        ({"rerankers": [FakeScorer(), FakeScorer()]}, "called 'fake': give each a name"),
        ({"rerankers": {"": FakeScorer()}}, "called '': give each a name"),
        ({"rerankers": {"BM25": FakeScorer()}}, "as the first stage is"),
        ({"rerankers": {"x": 3}}, "scorer is a int"),
        ({"top_n": 0}, "top_n is 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"measures": []}, "measures is empty"),
        ({"measures": ["RR", "MRR"]}, "names one twice"),
        ({"measures": "RR"}, "single string"),
        ({"measures": ["nDGC@10"]}, "'nDGC@10' is no measure"),
        ({"measures": ["nDCG@ten"]}, "'nDCG@ten' is no measure"),
        ({"measures": [10]}, "10 is no measure"),
        ({"first_stage": "no/such/file"}, "first_stage is 'no/such/file'"),
        ({"first_stage": 3}, "first_stage is a int"),
        ({"first_stage": {"q0": {"zz": 1.0}}}, "found document 'zz'"),
        ({"first_stage": lambda query, candidates: ["zz"]}, "found document 'zz'"),
        ({"first_stage": {"other": {"d00": 1.0}}}, "ranks no document for any judged query of small"),
    ],
)
def test_bad_options_are_named_before_anything_is_sent(options: dict[str, object], message: str) -> None:
    """With the value and the fix."""
    scorer = FakeScorer()
    with pytest.raises(ConfigurationError, match=message):
        evaluate(**{"rerankers": {"fake": scorer}, "dataset": DATA, **options})  # type: ignore[arg-type]
    assert scorer.calls == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "file").touch()
    scorer = FakeScorer()
    with pytest.raises(ConfigurationError, match="save_to=.*cannot be used"):
        evaluate({"fake": scorer}, DATA, save_to=tmp_path / "file" / "below")
    assert scorer.calls == 0


def test_documents_without_words_are_nothing_for_bm25() -> None:
    """It says so itself instead of an index error."""
    with pytest.raises(ConfigurationError, match="found no word"):
        evaluate({}, Dataset({"d": "…"}, {"q": "what"}, {"q": {"d": 1}}))


def test_an_unknown_error_of_a_scorer_ends_the_evaluation() -> None:
    """As it ends a call."""
    with pytest.raises(ScorerError, match="fake: failed with KeyError"):
        evaluate({"fake": FakeScorer(error=KeyError("x"))}, DATA)


@pytest.mark.parametrize("package", ["ir_measures", "scipy", "bm25s", "Stemmer"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once."""
    monkeypatch.setitem(sys.modules, package, None)
    scorer = FakeScorer()
    with pytest.raises(MissingExtraError, match=rf'{package}.*pip install "rerank-bridge\[eval\]"'):
        evaluate({"fake": scorer}, DATA)
    assert scorer.calls == 0


def test_importing_the_evaluation_loads_none_of_its_packages() -> None:
    """They wait for the first evaluation."""
    heavy = {"bm25s", "ir_measures", "numpy", "rich", "scipy", "tqdm"}
    loaded = run_script(
        "import sys, rerank_tools.evaluation; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert heavy & set(loaded.split()) == set()
