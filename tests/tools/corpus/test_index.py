"""The index of a corpus: what it finds, where it is kept, and that it follows the files."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripts import run_script

from rerank_core import ConfigurationError
from rerank_tools.corpus import Chunk, CorpusIndex, chunk_file
from rerank_tools.corpus import files as files_module
from rerank_tools.corpus import index as index_module


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that indexes are kept in."""
    monkeypatch.setenv("RERANK_BRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpus"


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
    (hit,) = index.search("auth", candidates=1)
    assert hit.chunk.heading == "Setup › Auth"
    assert hit.chunk.reading == "Setup › Auth\nConfigure the API key."
    assert hit.score > 0


def test_it_is_kept_in_the_users_cache_and_loaded_again(folder: Path, cache: Path) -> None:
    """With the same answers; for this user only, and nothing is written to the corpus."""
    before = sorted(folder.rglob("*"))
    first = CorpusIndex.open(folder)
    second = CorpusIndex.open(folder)
    assert (first.built, second.built) == (True, False)
    assert first.kept_at == second.kept_at
    assert first.kept_at is not None
    assert first.kept_at.parent == cache
    assert first.search("key") == second.search("key")
    assert len(first) == len(second) == 3
    assert sorted(folder.rglob("*")) == before
    if sys.platform != "win32":
        for path in (cache, first.kept_at):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_an_index_in_the_corpus_is_not_believed(folder: Path) -> None:
    """Whoever wrote the folder could have written anything into it."""
    kept_at = CorpusIndex.open(folder).kept_at
    assert kept_at is not None
    kept_at.rename(folder / ".rerank-bridge")
    assert CorpusIndex.open(folder).built


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


def test_files_that_may_change_within_the_clocks_resolution_are_read_again(folder: Path) -> None:
    """A date that is not before the index's own says nothing."""
    later = time.time() + 3600
    os.utime(folder / "guide.md", (later, later))
    assert CorpusIndex.open(folder).built
    assert CorpusIndex.open(folder).built
    os.utime(folder / "guide.md")
    assert CorpusIndex.open(folder).built
    assert not CorpusIndex.open(folder).built


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def cut(path: Path) -> None:
    """Take away the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one byte of a file, and keep its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace(path: Path) -> None:
    """Put an array into a file's place that claims to be of 3 GB."""
    path.write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (800000000,), }".ljust(128)
    )


def link(path: Path) -> None:
    """Put a link into a file's place."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def make_folder(path: Path) -> None:
    """Put a folder into a file's place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [remove, cut, flip, replace, link, make_folder])
def test_a_damaged_index_is_built_anew(folder: Path, cache: Path, harm: Callable[[Path], None]) -> None:
    """Whichever of its files it is, and the answers stay."""
    expected = CorpusIndex.open(folder).search("key")
    names = [path.relative_to(cache) for path in cache.rglob("*") if path.is_file() and path.name != "lock"]
    assert len(names) >= 6
    for name in names:
        harm(cache / name)
        index = CorpusIndex.open(folder)
        assert index.search("key") == expected
        assert index.built or harm is link
        assert CorpusIndex.open(folder).search("key") == expected


def test_a_header_that_was_changed_is_not_believed(folder: Path, cache: Path) -> None:
    """Nor is one of another version."""
    CorpusIndex.open(folder)
    (header,) = cache.rglob("header.json")
    content = json.loads(header.read_text())
    for key in content:
        header.write_text(json.dumps({**content, key: 0}))
        assert CorpusIndex.open(folder).built
        header.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
        assert CorpusIndex.open(folder).built


def test_a_cache_folder_of_others_is_not_used(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that is a link: the index is in memory then."""
    cache.parent.mkdir()
    (cache.parent / "elsewhere").mkdir()
    cache.symlink_to(cache.parent / "elsewhere", target_is_directory=True)
    assert CorpusIndex.open(folder).kept_at is None
    assert list((cache.parent / "elsewhere").iterdir()) == []
    cache.unlink()
    if sys.platform != "win32":
        uid = os.getuid()
        CorpusIndex.open(folder)
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
        index = CorpusIndex.open(folder)
        assert (index.built, index.kept_at) == (True, None)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_a_cache_folder_that_others_may_read_is_made_private(folder: Path, cache: Path) -> None:
    """Before anything is written to it."""
    cache.mkdir(parents=True, mode=0o755)
    CorpusIndex.open(folder)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_an_interrupted_build_leaves_no_wrong_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the header is written; then the index is built anew."""
    CorpusIndex.open(folder)
    (folder / "new.md").write_text("xylophone")

    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "write_atomically", interrupt)
        with pytest.raises(KeyboardInterrupt):
            CorpusIndex.open(folder)
    index = CorpusIndex.open(folder)
    assert index.built
    assert found(index, "xylophone") == ["new.md:1"]


def test_indexes_of_folders_that_are_gone_are_removed(folder: Path, cache: Path, tmp_path: Path) -> None:
    """So that the cache does not grow for ever."""
    CorpusIndex.open(folder)
    folder.rename(tmp_path / "moved")
    CorpusIndex.open(tmp_path / "moved")
    assert len(list(cache.iterdir())) == 1


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
    assert not CorpusIndex.open(folder).built


def test_where_the_cache_folder_cannot_be_written_the_index_is_in_memory(folder: Path, cache: Path) -> None:
    """A file stands in its place, which holds for every user."""
    cache.parent.write_text("in the way")
    index = CorpusIndex.open(folder)
    assert index.kept_at is None
    assert found(index, "auth") == ["guide.md:7"]


def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named with the reason; the index is not built anew each time because of it."""
    (folder / "a\x1b[31m.md").write_text("red")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "odd.html").write_text("<![ <a <a <a")

    def split(path: str, content: str) -> list[Chunk]:
        if path == "odd.html":
            raise RuntimeError("too odd")
        return chunk_file(path, content)

    monkeypatch.setattr(files_module, "chunk_file", split)
    index = CorpusIndex.open(folder)
    assert found(index, "auth") == ["guide.md:7"]
    assert sorted(index.skipped) == ["a\x1b[31m.md", "binary.txt", "latin.txt", "odd.html"]
    assert index.skipped["a\x1b[31m.md"] == "has control characters in its path: rename it"
    assert "UTF-8" in index.skipped["latin.txt"]
    assert index.skipped["odd.html"] == "cannot be split: RuntimeError"
    again = CorpusIndex.open(folder)
    assert not again.built
    assert again.skipped == index.skipped


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_a_file_without_permission_is_read_once_it_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which changes neither its size nor the date of its content."""

    def refuse(path: Path, **options: bool) -> bytes:
        if path.name == "guide.md":
            raise PermissionError(13, "Permission denied")
        return read(path, **options)

    read = files_module._read_regular_file
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "_read_regular_file", refuse)
        assert CorpusIndex.open(folder).skipped["guide.md"] == "cannot be read: Permission denied"
        assert not CorpusIndex.open(folder).built
    (folder / "guide.md").chmod(0o600)
    index = CorpusIndex.open(folder)
    assert found(index, "auth") == ["guide.md:7"]
    assert "guide.md" not in index.skipped


def test_ignored_files_are_not_found_unless_that_is_asked_for(folder: Path) -> None:
    """Also where an index is there already."""
    (folder / "secret.md").write_text("xylophone")
    assert found(CorpusIndex.open(folder), "xylophone") == ["secret.md:1"]
    (folder / ".gitignore").write_text("secret.md\n")
    assert found(CorpusIndex.open(folder), "xylophone") == []
    assert found(CorpusIndex.open(folder, use_ignore_files=False), "xylophone") == ["secret.md:1"]


def test_a_file_of_records(tmp_path: Path) -> None:
    """A record is a chunk, with its line; another text field is another index."""
    path = tmp_path / "faq.csv"
    path.write_text("question,text\nhow to log in,use the form\nhow to leave,\nhow to pay,by card\n")
    assert found(CorpusIndex.open(path), "card") == ["faq.csv:4"]
    index = CorpusIndex.open(path, text_field="question")
    assert index.built
    assert found(index, "leaving") == ["faq.csv:3"]
    assert not CorpusIndex.open(path).built


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


def test_an_empty_folder_and_a_wrong_number(tmp_path: Path, folder: Path) -> None:
    """Both are said."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds nothing to search"):
        CorpusIndex.open(tmp_path / "empty")
    with pytest.raises(ConfigurationError, match="candidates is 0"):
        CorpusIndex.open(folder).search("key", candidates=0)


def test_links_and_very_large_files_are_passed_over(folder: Path) -> None:
    """A link may lead out of the folder, or in a circle."""
    (folder / "link.md").symlink_to(folder / "guide.md")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    (folder / "large.txt").write_bytes(b"key " * 2**20 + b"!")
    assert found(CorpusIndex.open(folder), "key") == ["guide.md:7"]
