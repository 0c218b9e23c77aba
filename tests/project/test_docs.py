"""The documentation: its examples run and print what it says they print, and its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from rerank_core import errors
from rerank_core.registry import BUILT_IN
from rerank_core.remote.endpoints import ENDPOINTS
from rerank_tools.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^\1```$", re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Example:
    """A block of Python with the output that the page shows below it."""

    name: str
    code: str
    output: str | None


def _examples(path: Path) -> Iterator[Example]:
    text = path.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    for number, block in enumerate(blocks):
        if block["language"] != "python":
            continue
        heading = HEADING.findall(BLOCK.sub("", text[: block.start()]))[-1]
        following = blocks[number + 1] if number + 1 < len(blocks) else None
        shown = following is not None and following["language"] == "text"
        shown = shown and not text[block.end() : following.start()].strip()  # type: ignore[union-attr]
        name = f"{path.name}: {heading}"
        yield Example(name, block["text"], following["text"] if shown else None)  # type: ignore[index]


EXAMPLES = [example for path in PAGES for example in _examples(path)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_python_block_is_found(path: Path) -> None:
    """No example hides from the tests, and what cannot run here (```py) is Python at least."""
    text = path.read_text(encoding="utf-8")
    assert len(list(_examples(path))) == len(re.findall(r"^ *```python", text, re.M))
    for block in BLOCK.finditer(text):
        if block["language"] == "py":
            compile(block["text"], path.name, "exec")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_it_says(example: Example) -> None:
    """An example's output is the block that follows it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.code, example.name, "exec"), {"__name__": "example"})
    assert example.output is not None
    assert printed.getvalue() == example.output


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    """A link inside the repository names a page that is there, and a heading of it."""
    made = ("reference/", "notebooks/", "changelog.md")  # by docs/hooks.py; mkdocs checks these
    for link in LINK.findall(BLOCK.sub("", path.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link) or name.startswith(made):
            continue
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            headings = HEADING.findall(BLOCK.sub("", target.read_text(encoding="utf-8")))
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


def test_the_readme_is_read_in_a_minute() -> None:
    """At most 200 lines."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("name", ["README.md", "docs/choosing-a-model.md"])
def test_the_tables_of_models_name_every_provider(name: str) -> None:
    """The first column has all built-in providers, and no others."""
    rows = re.findall(r"^\| (`[^|]+) \|", (ROOT / name).read_text(encoding="utf-8"), re.M)
    named = {each for row in rows for each in re.findall(r"`([a-z-]+)(?::[^`]*)?`", row)}
    assert named == {*BUILT_IN, *ENDPOINTS}


def test_the_page_of_errors_has_every_class() -> None:
    """Each exception has a row: meaning, causes, what to do."""
    rows = re.findall(
        r"^\| `(\w+)`[^|]*\|(.*)\|$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M
    )
    listed = {name: cells.split("|") for name, cells in rows if name[0].isupper()}
    assert listed.keys() == {name for name in errors.__all__ if name[0].isupper()}
    assert all(len(cells) == 3 and cells[0].strip() and cells[2].strip() for cells in listed.values())


def test_commands_and_their_options_exist() -> None:
    """What a page says to type is a command, with options that it has; all commands are on their page."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = "".join(block["text"] for path in PAGES for block in BLOCK.finditer(path.read_text(encoding="utf-8")))
    for line in re.findall(r"^rerank-bridge (\S.*)$", text, re.M):
        name, *words = shlex.split(line)
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == commands.keys()


def test_the_framework_examples_of_the_readme_are_short() -> None:
    """Each framework's example is at most 8 lines of code."""
    for title in ("LangChain", "LlamaIndex"):
        [example] = [example for example in EXAMPLES if example.name == f"README.md: {title}"]
        assert len([line for line in example.code.splitlines() if line.strip()]) <= 8
