"""The README's examples run, and print what it says they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLE = re.compile(
    r"^##+ (?P<title>[^\n]+)\n(?:(?!^##+ ).)*?^```python\n(?P<code>.*?)^```(?P<rest>.*?)(?=^##+ |\Z)", re.M | re.S
)
OUTPUT = re.compile(r"\A\s*^```text\n(.*?)^```", re.M | re.S)
EXAMPLES = {match["title"]: match for match in EXAMPLE.finditer(README.read_text(encoding="utf-8"))}


def test_every_python_block_is_found() -> None:
    """No example hides from the tests."""
    assert len(EXAMPLES) == README.read_text(encoding="utf-8").count("```python\n")


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_prints_what_it_says(title: str) -> None:
    """An example's output is the block that follows it."""
    match = EXAMPLES[title]
    expected = OUTPUT.search(match["rest"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(match["code"], f"README.md: {title}", "exec"), {"__name__": "example"})
    assert expected is not None
    assert printed.getvalue() == expected[1]


@pytest.mark.parametrize("title", ["LangChain", "LlamaIndex"])
def test_the_framework_examples_are_short(title: str) -> None:
    """Each framework's example is at most 12 lines of code."""
    assert len([line for line in EXAMPLES[title]["code"].splitlines() if line.strip()]) <= 12
