"""The figures that README and documentation quote are those that a benchmark measured."""

from __future__ import annotations

import re
from pathlib import Path

import figures
import pytest
from benchmarks import bench_all

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`", re.M | re.S)
MEASURED = re.compile(r"\d ?(?:ms|µs|kB|MB|GB|%)(?!\w)|\d times\b|\d (?:per|a) second\b|\b0\.\d{3}\b")
PARTS = figures.read_parts()


@pytest.mark.parametrize("path", figures.pages(), ids=lambda path: path.name)
def test_quotes_are_what_was_measured(path: Path) -> None:
    """`python docs/figures.py` would change nothing."""
    text = path.read_text(encoding="utf-8")
    assert figures.fill(text, PARTS) == text


@pytest.mark.parametrize("path", figures.pages(), ids=lambda path: path.name)
def test_measured_numbers_are_quotes(path: Path) -> None:
    """Times, sizes and qualities in the text stand between the comments that name their figure."""
    prose = figures.QUOTE.sub("", CODE.sub("", path.read_text(encoding="utf-8")))
    assert [line for line in prose.splitlines() if MEASURED.search(line)] == []


def test_the_page_of_benchmarks_follows_from_the_figures() -> None:
    """`python docs/figures.py` would change nothing there either."""
    assert figures.PAGE.read_text(encoding="utf-8") == figures.render(PARTS)


def test_a_figure_that_was_not_measured_is_refused() -> None:
    """An unknown name fails; a known one is shown with its unit, its range, or alone."""
    part = {"figures": {"a.b": {"value": 2.456, "low": 2.3, "high": 2.8, "unit": "times", "digits": 2}}}
    quotes = "".join(f"<!-- figure a.b{form} --><!-- / -->" for form in ("", " range", " number"))
    shown = figures.QUOTE.sub(r"[\3]", figures.fill(quotes, {"a": part}))
    assert shown == "[2.46 times][2.46 times (2.30–2.80)][2.46]"
    with pytest.raises(KeyError, match="no benchmark measured the figure a.c"):
        figures.fill("<!-- figure a.c -->1<!-- / -->", {"a": part})


def test_every_measured_part_is_one_that_can_be_measured_again() -> None:
    """The parts of the file are parts of `make bench-all`, with their titles and commands."""
    assert PARTS.keys() <= bench_all.PARTS.keys()
    for name, part in PARTS.items():
        assert part["title"] == bench_all.PARTS[name].title
        assert part["command"].startswith(f"python tests/benchmarks/{name}.py")
    for name in bench_all.PARTS:
        assert (ROOT / "tests" / "benchmarks" / f"{name}.py").exists()
