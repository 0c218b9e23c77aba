"""Rankings as seen in a notebook and in a terminal: complete, small, and harmless whatever a text holds."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console
from support.scorers import Answers, Endless

from rerank_core import Ranking, Reranker, Selection
from rerank_core.errors import RateLimitError, ScorerUnavailableError
from rerank_core.testing import FakeScorer
from rerank_core.types import Attempt, Passage


class Page(HTMLParser):
    """Collects what a browser would make of a table: tags, attributes and visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.hovers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.hovers += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


def ranked(scores: list[float], documents: list[str], **selection: Any) -> Ranking[str]:
    """Rank documents by given scores."""
    return Reranker(Answers(scores), selection=Selection(**selection)).rerank("the query", documents)


def test_a_table_shows_rank_movement_score_and_the_cut() -> None:
    """Survivors with their movement and a bar each, how many were dropped, and where the selection cut."""
    page = Page(ranked([0.2, 0.9, 0.6], ["one", "two", "three"], adaptive_ratio=0.5)._repr_html_())
    assert page.tags.count("tr") == 3
    assert page.tags.count("meter") == 2
    assert re.search(r"1▲ 10\.900two2▲ 10\.600three", page.text)
    assert "2 of 3 documents" in page.text
    assert "cut at score 0.450" in page.text
    assert not page.hovers


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script> one",
        '"><img src=x onerror=alert(1)> one',
        "' onmouseover='alert(1) one",
        "</td></table><iframe src=//x> one",
        "<!-- &lt;b&gt; one",
    ],
)
def test_markup_in_a_text_a_query_or_a_name_stays_text(text: str) -> None:
    """No tag and no attribute comes from what the caller did not write; the text is shown as it is."""
    ranking = ranked([0.9, 0.1], [text, "two"])
    ranking = replace(ranking, query=text, model=text, attempts=(Attempt(text, RateLimitError("wait")),))
    passage = replace(ranking[0], passage=Passage(0, len(text)))
    page = Page(replace(ranking, documents=(*ranking.documents, passage))._repr_html_())
    harmless = {"div", "bdi", "span", "table", "thead", "tbody", "tr", "th", "td", "mark", "meter"}
    assert set(page.tags) <= harmless
    assert page.attributes == {"style", "scope", "title", "value"}
    assert page.text.count(text) == 5


def test_direction_marks_and_control_characters_are_replaced() -> None:
    """A text can neither turn its neighbours round nor break an output that must be UTF-8."""
    page = ranked([0.9], ["safe\u202egnp.exe\x00\x1b[31m\u2066 \ud800"])._repr_html_()
    assert not set(page) & {"\u202e", "\x00", "\x1b", "\u2066", "\ud800"}
    assert "safe�gnp.exe��[31m� �" in page
    page.encode()


def test_many_and_huge_documents_make_a_small_table() -> None:
    """A thousand documents of 100 kB each: fifty rows, under 150 kB."""
    text = "word " * 20_000
    page = ranked([0.5] * 1000, [f"{number} {text}" for number in range(1000)])._repr_html_()
    assert len(page) < 150_000
    assert "… and 950 more" in page


def test_a_passage_is_marked_between_what_surrounds_it() -> None:
    """Of a long text the passage and its neighbourhood are shown, the passage marked."""
    ranking = ranked([0.9], [f"{'before ' * 50}<the answer>{' after' * 50}"])
    start = ranking[0].text.index("<the")
    passage = replace(ranking[0], passage=Passage(start, start + len("<the answer>")))
    page = replace(ranking, documents=(passage,))._repr_html_()
    assert re.search(r"before <mark [^>]*>&lt;the answer&gt;</mark> after", page)
    assert " …</bdi>" in page
    assert Page(page).hovers == [" ".join(passage.text.split())]


def test_nothing_scored_and_nothing_found_look_right() -> None:
    """A passthrough shows why and no bars; empty rankings say so; a scorer that was asked before is named."""
    passthrough = Reranker(Endless(), timeout=0.01, on_error="passthrough").rerank("q", ["one <b>"])._repr_html_()
    assert "not reranked, first-stage order: ScorerTimeoutError" in passthrough
    assert ">–</td>" in passthrough
    assert "0 of 0 documents" in Reranker(FakeScorer()).rerank("q", [])._repr_html_()
    nothing = ranked([0.1, 0.2], ["one", "two"], score_threshold=0.5)._repr_html_()
    assert "0 of 2 documents" in nothing
    attempts = (Attempt("first", RateLimitError("wait")),)
    ranking = ranked([0.5], ["one"])
    paid = replace(ranking, attempts=attempts, usage=replace(ranking.usage, cost=0.002))._repr_html_()
    assert "after first: RateLimitError" in paid
    assert "$0.002" in paid


def printed(renderable: object) -> str:
    """Return what a terminal of 60 columns shows."""
    console = Console(file=io.StringIO(), width=60, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_a_table() -> None:
    """Long texts are cut, no line is wider than the terminal, and no text is markup."""
    ranking = Reranker(FakeScorer()).rerank("memory leak", ["[red]soup[/]", "a memory leak " * 500])
    lines = printed(ranking).splitlines()
    assert lines[0].startswith("memory leak · fake · 2 of 2")
    assert "…" in printed(ranking)
    assert "[red]soup[/]" in lines[-1]
    assert max(map(len, lines)) <= 60
    assert len(lines) < 12


def test_a_terminal_shows_why_nothing_was_scored() -> None:
    """As a passthrough returns it; of a passage the passage alone."""
    ranking = Reranker(FakeScorer(error=ScorerUnavailableError("no answer")), on_error="passthrough").rerank(
        "x", ["one two three"]
    )
    out = printed(replace(ranking, documents=(replace(ranking[0], passage=Passage(4, 7)),)))
    assert re.search(r"1 +=  +– +two *\n", out)
    assert "not reranked, first-stage order: ScorerUnavailableError:" in out
    assert "fake: no answer" in " ".join(out.split())


def test_to_pandas_has_a_row_for_each_survivor() -> None:
    """Ranks, movement, scores, texts and the caller's own objects, in order; columns even where empty."""
    frame = ranked([0.2, 0.9, 0.6], ["one", "two", "three"], top_n=2).to_pandas()
    assert frame.to_dict("list") == {
        "rank": [1, 2], "moved": [1, 1], "index": [1, 2], "score": [0.9, 0.6],
        "text": ["two", "three"], "passage": ["two", "three"], "document": ["two", "three"],
    }  # fmt: skip
    empty = Reranker(FakeScorer()).rerank("q", []).to_pandas()
    assert list(empty.columns) == list(frame.columns)
    assert empty.empty


def test_without_pandas_the_error_names_the_extra() -> None:
    """MissingExtraError says what to install; the table for notebooks needs nothing."""
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from rerank_core import Ranking\n"
        "assert '0 of 0 documents' in Ranking('q', 'm')._repr_html_()\n"
        "Ranking('q', 'm').to_pandas()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert 'pip install "rerank-bridge[notebook]"' in run.stderr
