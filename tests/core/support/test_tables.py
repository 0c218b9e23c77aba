"""Tables: one value, four outputs, each escaped for its own reader."""

from __future__ import annotations

import io

from rich.console import Console

from rerank_core._support.tables import Cell, Column, Table

AWKWARD = "a|b <i>c</i> [red]d[/] \\ `e`\nf\x1b[31m"
TABLE = Table(
    title="the title",
    columns=(Column("name"), Column("p50", "p95", "right")),
    rows=[(AWKWARD, Cell(0.5, "0.5 s", "0.75 s")), ("other", None)],
    subtitle="beside it",
    warning="take care",
    note="a note",
)


def test_markdown_escapes_what_would_be_markup() -> None:
    """A bar ends no cell, a tag stays text, and a line break breaks no row."""
    assert TABLE.to_markdown().split("\n") == [
        "**the title** beside it",
        "",
        "take care",
        "",
        "| name | p50 (p95) |",
        "|---|---:|",
        "| a\\|b \\<i>c\\</i> \\[red]d\\[/] \\\\ \\`e\\` f�\\[31m | 0.5 s (0.75 s) |",
        "| other | – |",
        "",
        "a note",
    ]


def test_html_shows_what_is_cut_when_the_pointer_rests_on_it() -> None:
    """Also of a short text, of which only the surroundings of a mark are shown."""
    text = "here " + "and there " * 14
    marked = Table("", (Column("text"),), [(Cell(text, mark=(0, 4)),)]).to_html()
    assert f'title="{text.strip()}"' in marked
    assert "title=" not in Table("", (Column("text"),), [(Cell(text),)]).to_html()


def test_html_holds_every_part() -> None:
    """Markup in a text is escaped."""
    page = TABLE.to_html()
    for part in (
        "the title",
        "beside it",
        "⚠ take care",
        "p50 (p95)",
        "0.5 s (0.75 s)",
        "a note",
    ):
        assert part in page
    assert "a|b &lt;i&gt;c&lt;/i&gt; [red]d[/] \\ `e` f�[31m" in page


def test_a_terminal_shows_details_on_a_second_line() -> None:
    """Of a heading too; brackets are no markup."""
    console = Console(file=io.StringIO(), width=60, color_system=None)
    console.print(TABLE)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split() for line in lines[1:3]] == [["p50"], ["name", "p95"]]
    assert lines[3].startswith("a|b <i>c</i> [red]d[/] \\ `e` f�[31m ")
    assert (lines[3].split()[-2:], lines[4].split()) == (["0.5", "s"], ["0.75", "s"])
    assert [line.strip() for line in (lines[0], *lines[6:])] == ["the title · beside it", "take care", "a note"]


def test_a_data_frame_holds_the_values() -> None:
    """Not the texts that stand for them."""
    frame = TABLE.to_pandas()
    assert list(frame.columns) == ["name", "p50"]
    assert frame["name"].tolist() == [AWKWARD, "other"]
    assert frame["p50"][0] == 0.5
    assert list(Table("", TABLE.columns, ()).to_pandas().columns) == ["name", "p50"]
