"""The index of a corpus: what it finds, where it is kept, and that it follows the files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import ConfigurationError
from rerank_tools.corpus import CorpusIndex
from rerank_tools.corpus._store import Archive, save

KEPT = Path(".rerank-bridge", "folder.index")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a guide, code and things that are passed over."""
    corpus = tmp_path / "corpus"
    (corpus / "src").mkdir(parents=True)
    (corpus / "guide.md").write_text("# Setup\n\nInstall the package.\n\n## Auth\n\nConfigure the API key.\n")
    (corpus / "src" / "client.py").write_text("def getHttpResponse(url):\n    return open(url)\n")
    (corpus / "picture.png").write_bytes(b"\x89PNG")
    (corpus / "binary.txt").write_bytes(b"key\0key")
    (corpus / ".hidden.md").write_text("key key key")
    (corpus / "node_modules").mkdir()
    (corpus / "node_modules" / "dep.js").write_text("key key key")
    return corpus


def found(index: CorpusIndex, query: str) -> list[str]:
    """Return where the hits are."""
    return [hit.chunk.where for hit in index.search(query)]


def test_it_finds_stemmed_words_and_parts_of_identifiers(folder: Path) -> None:
    """Headings and paths count; a query without a known word finds nothing."""
    index = CorpusIndex.open(folder)
    assert found(index, "How do I configure authentication keys?") == ["guide.md:7"]
    assert found(index, "http responses") == ["src/client.py:1"]
    assert found(index, "installing") == ["guide.md:3"]
    assert found(index, "the of") == found(index, "xylophone") == []
    (hit,) = index.search("auth", k=1)
    assert hit.chunk.heading == "Setup › Auth"
    assert hit.chunk.reading == "Setup › Auth\nConfigure the API key."
    assert hit.score > 0


def test_it_is_kept_in_the_corpus_and_loaded_again(folder: Path) -> None:
    """With the same answers, and a version control system does not see it."""
    first = CorpusIndex.open(folder)
    second = CorpusIndex.open(folder)
    assert (first.built, second.built) == (True, False)
    assert first.kept_at == second.kept_at == folder.resolve() / KEPT
    assert first.search("key") == second.search("key")
    assert len(first) == len(second) == 3
    assert (folder / ".rerank-bridge" / ".gitignore").read_text() == "*\n"


def test_it_follows_the_files(folder: Path) -> None:
    """New, changed, renamed and removed ones; a change that keeps size and date's second, too."""
    CorpusIndex.open(folder)
    guide = folder / "guide.md"
    guide.write_text(guide.read_text().replace("Configure", "Encipher_"))
    index = CorpusIndex.open(folder)
    assert index.built
    assert found(index, "encipher") == ["guide.md:7"]
    (folder / "new.rst").write_text("xylophone\n")
    assert found(CorpusIndex.open(folder), "xylophone") == ["new.rst:1"]
    (folder / "new.rst").rename(folder / "other.rst")
    assert found(CorpusIndex.open(folder), "xylophone") == ["other.rst:1"]
    (folder / "other.rst").unlink()
    assert found(CorpusIndex.open(folder), "xylophone") == []
    assert not CorpusIndex.open(folder).built


def test_a_file_that_was_only_touched_changes_nothing(folder: Path) -> None:
    """Its content decides, as after a checkout."""
    CorpusIndex.open(folder)
    os.utime(folder / "guide.md", (1, 1))
    assert not CorpusIndex.open(folder).built


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip"])
def test_a_damaged_index_is_built_anew(folder: Path, content: bytes) -> None:
    """Whatever is in its place."""
    CorpusIndex.open(folder)
    (folder / KEPT).write_bytes(content)
    assert CorpusIndex.open(folder).built
    assert not CorpusIndex.open(folder).built


def test_an_index_of_another_version_is_built_anew(folder: Path) -> None:
    """Its header says so."""
    CorpusIndex.open(folder)
    save(folder / KEPT, {}, {"version": 0})
    with pytest.raises(ValueError, match="of version 0"):
        Archive(folder / KEPT)
    assert CorpusIndex.open(folder).built


class _Interrupted(dict[str, object]):
    """Arrays whose reader is interrupted by Ctrl-C after the first one."""

    def items(self) -> Iterator[tuple[str, object]]:  # type: ignore[override]
        yield "rows", [1, 2, 3]
        raise KeyboardInterrupt


def test_an_interrupted_build_leaves_the_old_index_and_nothing_else(folder: Path) -> None:
    """A file is replaced as a whole."""
    CorpusIndex.open(folder)
    before = (folder / KEPT).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save(folder / KEPT, _Interrupted(), {})
    assert (folder / KEPT).read_bytes() == before
    assert sorted(os.listdir(folder / ".rerank-bridge")) == [".gitignore", "folder.index"]


def test_processes_that_build_at_once_do_not_disturb_each_other(folder: Path) -> None:
    """Each has its answer, and one index is left."""
    answers = run_script(
        """
        import subprocess, sys
        build = "import sys; from rerank_tools.corpus import CorpusIndex as C; print(len(C.open(sys.argv[1])))"
        command = [sys.executable, "-c", build, sys.argv[1]]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        print([process.communicate()[0].strip() for process in processes])
        """,
        str(folder),
    )
    assert answers.strip() == "['3', '3', '3']"
    assert sorted(os.listdir(folder / ".rerank-bridge")) == [".gitignore", "folder.index"]
    assert not CorpusIndex.open(folder).built


def test_where_the_corpus_cannot_be_written_the_cache_folder_keeps_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the hidden folder would be, which holds for every user; then memory."""
    (folder / ".rerank-bridge").write_text("in the way")
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("HOME", str(tmp_path))
    index = CorpusIndex.open(folder)
    assert index.kept_at is not None
    assert tmp_path in index.kept_at.parents
    assert not CorpusIndex.open(folder).built
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "in the way"))
    monkeypatch.setenv("HOME", str(tmp_path / "in the way"))
    unkept = CorpusIndex.open(folder)
    assert unkept.kept_at is None
    assert found(unkept, "auth") == ["guide.md:7"]


def test_nothing_is_written_where_nothing_shall_be_kept(folder: Path) -> None:
    """An index in memory."""
    assert CorpusIndex.open(folder, keep=False).kept_at is None
    assert not (folder / ".rerank-bridge").exists()


def test_a_file_of_records(tmp_path: Path) -> None:
    """A record is a chunk, with its line; another text field is another index."""
    path = tmp_path / "faq.csv"
    path.write_text("question,text\nhow to log in,use the form\nhow to leave,\nhow to pay,by card\n")
    assert found(CorpusIndex.open(path), "card") == ["faq.csv:4"]
    index = CorpusIndex.open(path, text_field="question")
    assert index.built
    assert found(index, "leaving") == ["faq.csv:3"]
    assert (tmp_path / ".rerank-bridge" / "faq.csv.index").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "does not exist: give a folder"),
        ("a.png", b"", "of no known kind: give a folder"),
        ("a.jsonl", b'{"text": 1}', "a.jsonl, line 1: field 'text' holds a number"),
        ("a.md", b"\xff", "is not text in UTF-8"),
        ("a.md", b"\n", "holds nothing to search"),
    ],
)
def test_a_corpus_that_cannot_be_used(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    """The message says what to give."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        CorpusIndex.open(tmp_path / name)


def test_an_empty_folder_and_a_wrong_k(tmp_path: Path, folder: Path) -> None:
    """Both are said."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds nothing to search"):
        CorpusIndex.open(tmp_path / "empty")
    with pytest.raises(ConfigurationError, match="k is 0"):
        CorpusIndex.open(folder, keep=False).search("key", k=0)


def test_links_and_very_large_files_are_passed_over(folder: Path) -> None:
    """A link may lead out of the folder, or in a circle."""
    (folder / "link.md").symlink_to(folder / "guide.md")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    (folder / "large.txt").write_bytes(b"key " * 2**20 + b"!")
    assert found(CorpusIndex.open(folder), "key") == ["guide.md:7"]
