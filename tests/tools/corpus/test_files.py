"""The files of a corpus: which ones count, as ripgrep decides, and what happens to those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rerank_core import ConfigurationError
from rerank_tools.corpus.files import Corpus


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "work" / "repo"
    folder.mkdir(parents=True)
    return folder


def write(root: Path, files: dict[str, str]) -> None:
    """Write files by path."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")


def names(root: Path, *, use_ignore_files: bool = True) -> list[str]:
    """Return the files that count."""
    return list(Corpus(root, use_ignore_files=use_ignore_files).files())


def test_ignored_files_do_not_count(root: Path) -> None:
    """By .gitignore and .ignore, in any folder; the option switches that off."""
    write(
        root,
        {
            ".gitignore": "secret.md\n/build/\n*.log\n!kept.log\n# comment\n",
            "secret.md": "x",
            "build/a.md": "x",
            "a/build/b.md": "x",
            "a/secret.md": "x",
            "a/x.log": "x",
            "a/kept.log": "x",
            "a/.gitignore": "deep.md",
            "a/b/deep.md": "x",
            "deep.md": "x",
            ".ignore": "drafts",
            "drafts/d.md": "x",
        },
    )
    assert names(root) == ["a/build/b.md", "a/kept.log", "deep.md"]
    assert len(names(root, use_ignore_files=False)) == 9


def test_the_nearest_rule_and_the_ignore_file_win(root: Path) -> None:
    """Deeper folders come first, and in one folder .ignore."""
    write(
        root,
        {
            ".gitignore": "*.md\n",
            "a/.gitignore": "!*.md\n",
            "a/one.md": "x",
            "two.md": "x",
            "b/.gitignore": "three.md\n",
            "b/.ignore": "!three.md\n",
            "b/three.md": "x",
            "b/four.md": "x",
        },
    )
    assert names(root) == ["a/one.md", "b/three.md"]


def test_folders_above_count_up_to_the_repository(root: Path) -> None:
    """Above it, and without one, none does."""
    write(
        root,
        {
            ".git/HEAD": "",
            ".gitignore": "top.md\n/docs/anchored.md\n",
            ".ignore": "ignored.md\n",
            "docs/top.md": "x",
            "docs/anchored.md": "x",
            "docs/outside.md": "x",
            "docs/ignored.md": "x",
            "docs/kept.md": "x",
        },
    )
    write(root.parent, {".gitignore": "outside.md\n", ".ignore": "outside.md\n"})
    assert names(root / "docs") == ["kept.md", "outside.md"]
    (root / ".git" / "HEAD").unlink()
    (root / ".git").rmdir()
    assert len(names(root / "docs")) == 5


def test_a_folder_that_is_named_is_searched_though_it_is_ignored(root: Path) -> None:
    """Naming it says enough; the other rules hold in it all the same."""
    files = {"build/a.md": "x", "build/b.md": "", "build/secret.md": "", "build/.gitignore": "b.md"}
    write(root, {".git/HEAD": "", ".gitignore": "build/\nsecret.md\n", **files})
    assert names(root / "build") == ["a.md"]
    (root / ".gitignore").write_text("*\n")
    assert names(root / "build") == ["a.md", "secret.md"]


def test_a_rule_that_is_no_pattern_is_passed_over(root: Path) -> None:
    """As git does; bytes that are no text, too."""
    (root / ".gitignore").write_bytes(b"[z-a]\n!\nx\\\n\xff\xfe\n[[:alpha:]]\n*.log\r\n")
    write(root, {"a.md": "x", "b.log": "x"})
    assert names(root) == ["a.md"]


def test_a_pattern_of_many_stars_hides_more_than_it_says_instead_of_taking_hours(root: Path) -> None:
    """Beyond the fourth star; a negated one counts for nothing."""
    name = f"{'a' * 150}.md"
    write(root, {name: "x", "b.md": "x", ".gitignore": f"{'*a' * 20}*b\n!{'*a' * 20}*\n"})
    assert names(root) == ["b.md"]


def test_an_ignore_file_that_cannot_be_read_is_passed_over(root: Path) -> None:
    """A folder or a link to nowhere."""
    (root / ".gitignore").mkdir()
    (root / ".ignore").symlink_to("nowhere")
    write(root, {"a.md": "x"})
    assert names(root) == ["a.md"]


def test_a_very_deep_folder_is_walked(root: Path) -> None:
    """Deeper than Python calls functions in each other."""
    here = os.getcwd()
    os.chdir(root)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Path("a.md").write_text("x", encoding="utf-8")
        assert names(root) == [f"{'d/' * 1200}a.md"]
        Path("a.md").unlink()
        for _ in range(1200):  # or pytest could not remove its folder
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("latin.txt", b"caf\xe9", "not text in UTF-8"),
        ("wide.txt", b"\xff\xfea\0", "UTF-16"),
        ("binary.txt", b"key\0key", "binary"),
    ],
)
def test_a_file_that_is_no_text_is_a_problem_of_its_own(
    name: str, content: bytes, problem: str, root: Path
) -> None:
    """It says what to do."""
    (root / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=problem):
        Corpus(root).read(name)


def test_a_link_is_not_followed(root: Path) -> None:
    """Nor is one that took a file's place after the folder was read."""
    (root.parent / "outside.md").write_text("secret")
    (root / "a.md").symlink_to(root.parent / "outside.md")
    assert names(root) == []
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Corpus(root).read("a.md")
