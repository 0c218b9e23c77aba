"""Chunks: split on the file's structure, with the lines that they come from."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rerank_tools.corpus import chunk_file
from rerank_tools.corpus.chunks import MAX_CHARS, SUFFIXES


def outline(path: str, content: str, max_chars: int = MAX_CHARS) -> list[tuple[int, int, str, str]]:
    """Return first line, last line, heading and text of each chunk."""
    chunks = chunk_file(path, content, max_chars=max_chars)
    return [(chunk.start_line, chunk.end_line, chunk.heading, chunk.text) for chunk in chunks]


def test_markdown_is_split_at_headings() -> None:
    """ATX and setext ones, nested; a hash in fenced code is none."""
    content = "intro\n\n# One #\n\n```sh\n# no heading\n\nrun\n```\n\n## Two\ntext\nmore\n\nThree\n=====\nend\n"
    assert outline("a.md", content) == [
        (1, 1, "", "intro"),
        (5, 9, "One", "```sh\n# no heading\n\nrun\n```"),
        (12, 13, "One › Two", "text\nmore"),
        (17, 17, "Three", "end"),
    ]


def test_markdown_headings_are_those_of_commonmark() -> None:
    """A rule below a list is none, nor is a hash in a quote, in HTML or in code; a title may have two lines."""
    content = "- a\n- b\n---\n> # c\n\n<div>\n# d\n</div>\n\n1.  x\n\n        # e\n\ntwo\nlines\n===\nend\n"
    assert {heading for _, _, heading, _ in outline("a.md", content)} == {"", "two lines"}


def test_code_is_split_at_blank_lines() -> None:
    """Of any language; small neighbours share a chunk."""
    content = "import os\n\n\ndef f():\n    return 1\n\n\ndef g():\n    return 2\n"
    assert outline("a.py", content, max_chars=40) == [
        (1, 5, "", "import os\n\ndef f():\n    return 1"),
        (8, 9, "", "def g():\n    return 2"),
    ]


def test_a_lone_carriage_return_ends_a_line() -> None:
    """As editors count lines."""
    assert outline("a.txt", "one\rtwo\r\n\r\nthree", max_chars=8) == [(1, 2, "", "one\ntwo"), (4, 4, "", "three")]


def test_a_heading_is_bounded() -> None:
    """It is repeated in every chunk below it."""
    (chunk,) = chunk_file("a.md", f"# {'long ' * 1000}\n\ntext\n")
    assert len(chunk.heading) <= 300


PIECES = (
    *("<", "<a ", "</", "<!", "<![", "<!--", "-->", "<?", ">", '="', "='", "&#9", "&", "<script", "<p>", "<h1>"),
    *(
        "# ",
        "#\n",
        "===\n",
        "---\n",
        "- ",
        "* a\n",
        "> ",
        "```\n",
        "~~~",
        "[a",
        "]: ",
        "1. ",
        "<div>\n",
        "|",
        "`",
        "\\",
    ),
    *(
        "class A:\n",
        "def f():\n",
        "@a\n",
        "(",
        "'",
        '"""',
        "else:\n",
        "\n",
        "\r",
        " ",
        "\t",
        "a",
        "a\n",
        "\n\n",
        ".. ",
        "é",
    ),
)


def cost(path: str, content: str) -> float:
    """Return the seconds that splitting takes this process, whatever else runs."""
    start = time.process_time()
    chunk_file(path, content)
    return time.process_time() - start


@settings(max_examples=15, phases=[Phase.generate])
@given(
    st.sampled_from(["a.txt", "a.md"]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3),
)
def test_splitting_takes_time_in_proportion_to_the_length(path: str, pieces: list[str]) -> None:
    """Sixteen times the text, of any repeated piece, takes far less than the 256 times of quadratic work."""
    piece = "".join(pieces)
    short, long = (piece * (size // len(piece)) for size in (2**13, 2**17))
    assert cost(path, long) < 64 * max(cost(path, short), 0.005)


@pytest.mark.parametrize(
    ("path", "piece", "longest"),
    [
        ("a.html", "<a ", 2**22),
        ("a.html", "<![", 2**22),
        ("a.md", "one two three four five six seven eight nine ten\n\n", 2**22),
        ("a.md", "# a\nb\n", 2**18),
        ("a.md", "[a\n", 2**19),
        ("a.txt", "x", 2**22),
    ],
)
def test_the_largest_file_is_split_without_delay(path: str, piece: str, longest: int) -> None:
    """4 MiB take at most some 32 times what an eighth of that takes; slow formats are tried on less."""
    short, long = (piece * (size // len(piece)) for size in (longest // 8, longest))
    assert cost(path, long) < 32 * max(cost(path, short), 0.02)


def test_long_blocks_are_cut_at_line_ends_and_long_lines_anywhere() -> None:
    """No character is lost, and none is in two chunks."""
    found = outline("a.txt", "one two\nthree\n" + "x" * 25 + "\nend\n\nnext", max_chars=10)
    assert [text for *_, text in found] == ["one two", "three", "x" * 10, "x" * 10, "xxxxx\nend", "next"]
    assert [(start, end) for start, end, *_ in found] == [(1, 1), (2, 2), (3, 3), (3, 3), (3, 4), (6, 6)]


@given(
    st.sampled_from(["a.txt", "a.md", "none"]),
    st.lists(st.sampled_from(["# a", "===", "---", "```", "text", "", "<p>x", "def f():", "  x = 1", "class C:"])),
)
def test_every_chunk_is_bounded_and_in_order(path: str, lines: list[str]) -> None:
    """Whatever stands in the file."""
    content = "\n".join(lines)
    chunks = chunk_file(path, content, max_chars=12)
    assert all(0 < len(chunk.text) <= 12 for chunk in chunks)
    assert all(1 <= chunk.start_line <= chunk.end_line <= max(1, len(lines)) for chunk in chunks)
    assert [chunk.start_line for chunk in chunks] == sorted(chunk.start_line for chunk in chunks)


@pytest.mark.parametrize("module", ["argparse.py", "zipfile.py", "asyncio/tasks.py", "turtle.py"])
def test_chunks_of_real_code_are_the_lines_that_they_name(module: str) -> None:
    """Every line that is not blank is in exactly one chunk, where the file has it."""
    path = Path(sysconfig.get_paths()["stdlib"]) / module
    if not path.exists():  # zipfile is a package from Python 3.12 on
        path = path.with_suffix("") / "__init__.py"
    content = path.read_text(encoding="utf-8")
    lines = content.split("\n")
    chunks = chunk_file(module, content)
    words = [word for chunk in chunks for word in chunk.text.split()]
    assert words == content.split()
    for chunk in chunks:
        assert chunk.text.split("\n")[0].strip() in lines[chunk.start_line - 1]


def test_markup_and_code_are_text() -> None:
    """Their files are indexed, as they are."""
    assert {".txt", ".md", ".rst", ".html", ".py", ".go", ".ts", ".yaml"} <= SUFFIXES
    assert outline("a.html", "<h1>a</h1>\n\n<p>b\n") == [(1, 3, "", "<h1>a</h1>\n\n<p>b")]
