"""Chunks: split on the file's structure, with the lines that they come from."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rerank_tools.corpus import chunk_file
from rerank_tools.corpus.blocks import split_python
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


def test_restructured_text_is_split_at_underlined_titles() -> None:
    """Levels are the order of first use, an overline makes another level, and a table's border is no title."""
    content = "=====\nGuide\n=====\n\nhello\n\nKeys\n----\n\nset it\n\na b\n== ==\n1 2\n\nMore\n----\nend\n"
    assert outline("a.rst", content) == [
        (5, 5, "Guide", "hello"),
        (10, 14, "Guide › Keys", "set it\n\na b\n== ==\n1 2"),
        (18, 18, "Guide › More", "end"),
    ]


def test_markdown_headings_are_those_of_commonmark() -> None:
    """A rule below a list is none, nor is a hash in a quote, in HTML or in code; a title may have two lines."""
    content = "- a\n- b\n---\n> # c\n\n<div>\n# d\n</div>\n\n1.  x\n\n        # e\n\ntwo\nlines\n===\nend\n"
    assert {heading for _, _, heading, _ in outline("a.md", content)} == {"", "two lines"}


def test_two_lines_above_a_short_rule_are_text() -> None:
    """Neither a title nor lost."""
    assert outline("a.rst", "one\ntwo\n---\n") == [(1, 3, "", "one\ntwo\n---")]


def test_html_is_its_visible_text() -> None:
    """Without tags, scripts and styles, references resolved, with the source's lines."""
    content = (
        "<title>T</title>\n<style>p {}</style>\n<h1>Big <em>one</em></h1>\n<p>a &lt;b&gt;\nc</p>\n"
        "<script>alert('x')</script><h2>Small</h2><ul><li>x<li>y</ul>"
    )
    assert outline("a.html", content) == [
        (1, 1, "", "T"),
        (4, 5, "Big one", "a <b> c"),
        (6, 6, "Big one › Small", "x\ny"),
    ]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("<p>a<![b]c>d<![", ["a d"]),
        ("<p>a < b <!-- c <p> --> d &lt; e &#999999999999999999999; f", ["a < b d < e � f"]),
        ("<p title='>'>a</p title=\">\">b<a <a <a", ["a", "b"]),
        ("<script>if (a </b> c) '<p>'</script>d<style>", ["d"]),
        ("<p>a<!doctype x><?php y ?>b</ >c</p", ["a b c"]),
        ("a<!-- never closed <p>b", ["a"]),
    ],
)
def test_html_is_read_as_browsers_read_it(content: str, texts: list[str]) -> None:
    """Whatever is wrong with it."""
    assert [text for chunk in chunk_file("a.html", content) for text in chunk.text.split("\n")] == texts


def test_python_is_split_at_functions_and_members_of_classes() -> None:
    """Comments and decorators stay with what follows them."""
    methods = "\n".join(
        f"    # about {i}\n    @property\n    def m{i}(self):\n        return {i}\n" for i in range(6)
    )
    content = f"import os\n\n\n# what f does\ndef f():\n    return 1\n\n\nclass C:\n    '''Doc.'''\n\n{methods}"
    found = outline("a.py", content, max_chars=80)
    assert found[0] == (1, 6, "", "import os\n\n# what f does\ndef f():\n    return 1")
    assert found[1] == (9, 10, "class C", "class C:\n    '''Doc.'''")
    assert {heading for _, _, heading, _ in found[2:]} == {"class C"}
    assert found[-1][3].lstrip().startswith("# about 5")


def test_python_that_does_not_parse_is_split_all_the_same() -> None:
    """An older version's, or a template."""
    assert outline("a.py", "print 'x'\n\n\nprint 'y'\n", max_chars=10) == [
        (1, 1, "", "print 'x'"),
        (4, 4, "", "print 'y'"),
    ]


def test_a_decorator_of_several_lines_stays_with_its_function() -> None:
    """So does what stands in brackets with its statement, and a branch with its condition."""
    statements = [
        "a = [\n    1,\n]",
        "# why\n@d(\n    2,\n)\ndef f():\n    # no\n# no\n    x",
        "if a:\n    b\nelse:\n    c",
    ]
    blocks = split_python("\n".join(statements))
    assert [block.text for block in blocks] == statements


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
    st.sampled_from(["a.txt", "a.md", "a.rst", "a.py", "a.html"]),
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
        ("a.html", "<a b='", 2**22),
        ("a.html", "&#9", 2**22),
        ("a.md", "one two three four five six seven eight nine ten\n\n", 2**22),
        ("a.md", "# a\nb\n", 2**19),
        ("a.md", "[a\n", 2**19),
        ("a.rst", "a\n==\n", 2**22),
        ("a.py", "class A:\n", 2**22),
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
    st.sampled_from(["a.txt", "a.md", "a.rst", "a.py", "a.html", "a.js", "none"]),
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


def test_every_kind_of_text_has_its_splitter() -> None:
    """Plain text and code share one."""
    assert {".txt", ".md", ".rst", ".html", ".py", ".go", ".ts", ".yaml"} <= set(SUFFIXES)
    assert SUFFIXES[".txt"] is SUFFIXES[".go"]
    assert len(set(SUFFIXES.values())) == 5
