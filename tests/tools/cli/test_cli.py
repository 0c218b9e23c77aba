"""The command's answers, in this process: what is written where, and with which exit status."""

from __future__ import annotations

import io
import json
import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_core import Reranker
from rerank_core.vectors import VectorFile
from rerank_tools.cli import main

DOCUMENTS = [
    {"id": 7, "text": "Paris in spring is full of flowers"},
    {"id": 8, "text": "How to find a memory leak in a C program"},
    {"id": 9, "text": "A recipe for onion soup"},
]
QUERY = "debugging leaked memory"


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    """Return a JSONL file of three documents."""
    path = tmp_path / "articles.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    return path


@pytest.fixture(autouse=True, scope="module")
def one_engine() -> Iterator[None]:
    """Keep the model loaded: rerankers of the same one share it while one of them lives."""
    reranker = Reranker("embedded")
    reranker.warm_up()
    yield
    reranker.close()


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


Run = Any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return status, written.out, written.err

    return call


def test_rerank_as_a_table(run: Run, articles: Path) -> None:
    """Rank, score, movement and text, no wider than the terminal, without control codes."""
    status, out, err = run("rerank", "-q", QUERY, "-d", articles, "--top-n", 2)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{QUERY} · embedded · 2 of 3")
    assert lines[1].split() == ["#", "moved", "score", "text"]
    assert lines[2].split()[1:3] == ["▲", "1"]
    assert lines[2].split()[4:] == DOCUMENTS[1]["text"].split()  # type: ignore[attr-defined]
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in out


def test_rerank_as_json_keeps_the_objects(run: Run, articles: Path) -> None:
    """With index, rank and score, and what it took."""
    status, out, _ = run("rerank", "-q", QUERY, "-d", articles, "-o", "json")
    content = json.loads(out)
    assert status == 0
    assert [row["document"] for row in content["results"]] == [
        DOCUMENTS[row["index"]] for row in content["results"]
    ]
    assert [row["rank"] for row in content["results"]] == [1, 2, 3]
    assert content["results"][0]["index"] == 1
    assert content["model"] == "embedded"
    assert content["usage"]["cost"] == 0.0


def test_cuts_and_json_lines(run: Run, articles: Path) -> None:
    """An absolute and a relative threshold leave the best one."""
    for option in (("-t", "0.5"), ("-r", "0.9")):
        _, out, _ = run("rerank", "-q", QUERY, "-d", articles, "-o", "jsonl", *option)
        assert [json.loads(line)["index"] for line in out.splitlines()] == [1]


def test_documents_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a format that is named, with a field that is named."""
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id,body\n1,soup\n2,a memory leak\n"), encoding="utf-8")
    )
    status, out, _ = run("rerank", "-q", QUERY, "-f", "csv", "--text-field", "body", "-o", "jsonl", "-n", "1")
    assert status == 0
    assert json.loads(out)["document"] == {"id": "2", "body": "a memory leak"}


def test_text_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    """Control characters and markup of documents and queries are shown, not obeyed; JSON keeps them."""
    text = "red \x1b[31m [bold]x[/] \u202ebidi"
    path = tmp_path / "a.json"
    path.write_text(json.dumps([text, "lone \ud800 surrogate"]))
    _, out, _ = run("rerank", "-q", "red \x1b[2J", "-d", path)
    assert "\x1b" not in out
    assert "red �[31m [bold]x[/] �bidi" in out
    _, out, _ = run("rerank", "-q", "red", "-d", path, "-o", "json")
    assert {row["document"] for row in json.loads(out)["results"]} == {text, "lone \ud800 surrogate"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["rerank", "-q", "x", "-d", "missing.json"], 1, "missing.json cannot be read: No such file"),
        (["rerank", "-q", " ", "-d", "ok.txt"], 1, "the query is empty"),
        (["rerank", "-q", "x", "-d", "ok.txt", "-m", "cohere:rerank-v3.5"], 1, "set the environment variable"),
        (["rerank", "-d", "ok.txt"], 2, "Missing option '--query' / '-q'; see rerank-bridge rerank --help"),
        (["rerank", "-q", "x", "-d", "ok.txt", "-t", "2"], 2, "Invalid value for '--threshold'"),
        (["rerank", "-q", "x", "-d", "ok.txt", "-f", "xml"], 2, "'xml' is not one of 'auto', 'json'"),
        (["rerank", "-q", "x", "-d", "ok.txt", "-m", "nobody"], 2, "no scorer is called 'nobody'"),
        (["rerank", "-q", "x", "-d", "ok.txt", "--base-url", "http://h"], 2, "takes no option 'base_url'"),
        (["query", "x", "-c", "missing"], 1, "missing does not exist"),
        (["query", "x", "-c", "empty"], 1, "holds nothing to search"),
        (["compare", "-q", "x", "-d", "ok.txt"], 2, "Missing option '--model'"),
        (["evaluate", "missing", "-m", "embedded"], 1, "missing"),
        (["nothing"], 2, "No such command 'nothing'"),
    ],
)
def test_a_failure_is_one_line_that_says_the_fix(
    arguments: list[str], status: int, message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, with nothing on standard output."""
    monkeypatch.chdir(tmp_path)
    Path("ok.txt").write_text("one\n", encoding="utf-8")
    Path("empty").mkdir()
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert err.startswith("rerank-bridge: ")
    assert message in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(run: Run) -> None:
    """Above the line."""
    status, _, err = run("--debug", "rerank", "-q", "x", "-d", "missing.json")
    assert status == 1
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("rerank-bridge: missing.json")


def test_a_defect_is_one_line_too(run: Run, articles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output that cannot take text stands for anything that nobody thought of."""
    monkeypatch.setattr(sys, "stdout", io.BytesIO())
    status, _, err = run("rerank", "-q", QUERY, "-d", articles)
    assert status == 1
    assert err.startswith("rerank-bridge: TypeError: ")
    assert "--debug" in err


class _Interrupting(io.BytesIO):
    """Standard input at which somebody presses Ctrl-C."""

    def read(self, size: int | None = -1) -> bytes:
        signal.raise_signal(signal.SIGINT)
        return b""


def test_ctrl_c_is_exit_status_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, no traceback."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(_Interrupting(), encoding="utf-8"))
    assert run("rerank", "-q", "x") == (130, "", "rerank-bridge: interrupted\n")


def test_the_package_can_be_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the command is not on the path."""
    monkeypatch.setattr(sys, "argv", ["rerank-bridge", "--version"])
    monkeypatch.delitem(sys.modules, "rerank_tools.cli.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("rerank_tools.cli", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("rerank-bridge ")


def test_without_the_extra_it_says_which_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in the place of a module stands for one that is not installed."""
    monkeypatch.setitem(sys.modules, "typer", None)
    status, out, err = run("models")
    assert (status, out) == (1, "")
    assert 'pip install "rerank-bridge[cli]"' in err


def test_query_reranks_what_bm25_finds(run: Run, tmp_path: Path) -> None:
    """File and line, both scores and both ranks; timings and notes are not among the results."""
    (tmp_path / "guide.md").write_text(
        "# Keys\n\nkeys keys keys are made of brass\n\n# Auth\n\nSet the API keys.\n"
    )
    arguments = ("query", "How do I set API keys?", "--corpus", tmp_path)
    status, out, err = run(*arguments, "-o", "json")
    content = json.loads(out)
    assert status == 0
    assert "indexed 2 chunks (files: 1)" in err
    assert [(row["path"], row["start_line"]) for row in content["results"]] == [("guide.md", 7), ("guide.md", 3)]
    assert content["results"][0]["heading"] == "Auth"
    assert sorted(row["first_stage_rank"] for row in content["results"]) == [1, 2]
    assert content["results"][0]["score"] > content["results"][1]["score"]
    assert set(content["seconds"]) == {"index", "first_stage", "rerank"}
    status, out, err = run(*arguments, "--top-n", 1)
    assert "guide.md:7" in out
    assert "2 chunks, 2 candidates, embedded; seconds: index" in err
    assert "indexed" not in err


def test_query_without_reranking(run: Run, tmp_path: Path) -> None:
    """BM25's order, cut at top-n, as JSON lines and as a table; nothing found is said."""
    (tmp_path / "a.txt").write_text("one key\n")
    (tmp_path / "b.txt").write_text("a key, a key\n")
    _, out, _ = run("query", "key", "-c", tmp_path, "--no-rerank", "-o", "jsonl", "-n", 1)
    (row,) = map(json.loads, out.splitlines())
    assert (row["path"], row["rank"], row["score"]) == ("b.txt", 1, None)
    status, out, _ = run("query", "key", "-c", tmp_path, "--no-rerank")
    assert status == 0
    assert out.splitlines()[0].split() == ["#", "BM25", "where"]
    status, out, err = run("query", "xylophone", "-c", tmp_path)
    assert (status, out) == (0, "")
    assert "nothing was found" in err


def test_query_leaves_out_what_is_ignored_and_names_what_it_cannot_read(run: Run, tmp_path: Path) -> None:
    """On one line each, and --no-ignore searches the rest."""
    (tmp_path / ".gitignore").write_text("secret.txt\n")
    for name, content in (
        ("secret.txt", b"a key\n"),
        ("a.txt", b"another key\n"),
        ("latin.txt", b"key caf\xe9\n"),
    ):
        (tmp_path / name).write_bytes(content)
    status, out, err = run("query", "key", "-c", tmp_path, "--no-rerank", "-o", "jsonl")
    assert status == 0
    assert [json.loads(line)["path"] for line in out.splitlines()] == ["a.txt"]
    assert [line for line in err.splitlines() if "latin.txt" in line] == [
        "rerank-bridge: skipped latin.txt: not text in UTF-8 (byte 0xe9 at offset 7): convert it"
    ]
    _, out, _ = run("query", "key", "-c", tmp_path, "--no-rerank", "--no-ignore", "-o", "jsonl")
    assert sorted(json.loads(line)["path"] for line in out.splitlines()) == ["a.txt", "secret.txt"]


def test_compare_shows_ranks_side_by_side(run: Run, articles: Path) -> None:
    """A model that fails is reported, the others are shown, and the exit status is 1."""
    arguments = ("compare", "-q", QUERY, "-d", articles, "-n", 2, "-m", "embedded")
    status, out, err = run(*arguments, "-m", "cohere:rerank-v3.5")
    assert status == 1
    assert err.startswith("rerank-bridge: cohere:rerank-v3.5 failed: ")
    assert "no key" in err
    assert "same in top 2" in out
    status, out, err = run(*arguments, "-o", "json")
    content = json.loads(out)
    assert (status, err) == (0, "")
    assert content["models"][0]["overlap"] == 1.0
    assert content["documents"][0]["ranks"] == {"embedded": 1}
    assert content["documents"][0]["document"] == DOCUMENTS[1]
    _, out, _ = run(*arguments, "-o", "jsonl")
    assert [json.loads(line) for line in out.splitlines()] == content["documents"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a data set of two queries and four documents, in BEIR layout."""
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    texts = {
        "d1": "memory of a trip to Paris",
        "d2": DOCUMENTS[1]["text"],
        "d3": "onion soup",
        "d4": "a soup kitchen",
    }
    rows = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    queries = {"q1": "debugging leaked memory", "q2": "how to cook onion soup"}
    rows = [json.dumps({"_id": name, "text": text}) for name, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\nq2\td3\t1\n")
    return folder


def test_evaluate_measures_models(run: Run, dataset: Path, tmp_path: Path) -> None:
    """As a table and as JSON, with run files, and answers that are not asked for again."""
    arguments = ("evaluate", dataset, "-m", "embedded", "--save-to", tmp_path / "kept")
    status, out, err = run(*arguments, "-o", "json", "--measure", "nDCG@2", "--runs", tmp_path / "runs")
    assert status == 0
    systems = json.loads(out)["systems"]
    assert [system["name"] for system in systems] == ["BM25", "embedded"]
    assert systems[1]["measures"]["nDCG@2"] == 1.0
    assert err.count("\n") == len(list((tmp_path / "runs").iterdir())) == 2
    status, out, _ = run(*arguments)
    assert status == 0
    assert "embedded" in out
    status, out, _ = run(*arguments, "-o", "markdown")
    assert out.startswith("**")


def test_models_says_which_keys_are_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no key."""
    monkeypatch.setenv("COHERE_API_KEY", "a-secret-key")
    _, out, _ = run("models", "-o", "json")
    known = {model["name"]: model for model in json.loads(out)}
    assert known["cohere:rerank-v3.5"]["has_key"]
    assert known["cohere:rerank-v3.5"]["price"]["per_1k_search_units"] == 2.0
    assert not known["voyage:rerank-2.5"]["has_key"]
    assert known["voyage:rerank-2.5"]["instructions"]
    assert known["jina:jina-reranker-v3"]["listwise"]
    assert "cohere:rerank-english-v2.0" not in known  # it was retired
    assert "secret" not in out
    status, out, _ = run("models")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["cohere:rerank-v3.5"][-1] == "set"
    assert rows["embedded"] == ["256", "free", "logit", "no", "none", "needed"]
    assert rows["voyage:rerank-2.5"] == ["32,000", "$0.05/1M", "prob.", "yes", "missing"]


def test_version_and_help(run: Run) -> None:
    """Each command's help has an example."""
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith("rerank-bridge ")
    for command in ("rerank", "query", "compare", "evaluate", "models"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert f"rerank-bridge {command}" in out


def test_nothing_given_shows_the_help(run: Run) -> None:
    """As a wrong call."""
    status, out, err = run()
    assert status == 2
    assert "Usage: rerank-bridge" in out + err


def test_batch_plans_runs_and_goes_on(run: Run, tmp_path: Path) -> None:
    """The plan is a result; a run tells how it ended, and its exit status is 1 until every row has a result."""
    good = json.dumps({"query": QUERY, "documents": [document["text"] for document in DOCUMENTS]})
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_text(f"{good}\n{{}}\n")
    status, out, err = run("batch", source, output, "--dry-run")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "rows        2: 0 finished, 1 left, 1 that cannot be read",
        "candidates  3 left to score",
        "cost        estimate $0.00, at most $0.00, so far $0.00",
    ]
    assert not output.exists()
    status, out, err = run("batch", source, output, "--top-n", 2)
    assert (status, out) == (1, "")
    assert "1 of 2 rows finished, 1 of them in this run, 1 failed" in err
    assert "1 rows failed: see" in err
    row = json.loads((output / "rows" / "part-00000.jsonl").read_text())
    assert row["indices"][0] == 1
    assert len(row["indices"]) == 2
    status, out, _ = run("batch", source, output, "--top-n", 2, "-o", "json")
    report = json.loads(out)
    assert (status, report["resumed"], report["failed"], report["output"]) == (1, 1, 1, str(output))
    status, _, err = run("batch", source, output, "--top-n", 3)
    assert status == 1
    assert "begun with another selection" in err
    assert run("batch", source, output, "--engine", "spark")[0] == 2
    assert run("batch", source, output, "--top-n", 2, "--dry-run", "-o", "jsonl")[1].startswith('{"rows": 2')


def test_batch_stops_at_the_cap(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cent nothing is sent; on a terminal there is a bar."""
    monkeypatch.setenv("CO_API_KEY", "any")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"query": QUERY, "documents": ["text"]}) + "\n")
    arguments = ("batch", source, tmp_path / "out", "-m", "cohere:rerank-v3.5", "--max-cost", "0.0001")
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert "0/1" in err
    assert "run again with a higher cap to go on" in err
    status, out, _ = run(*arguments[:5], "--dry-run")
    assert "estimate $0.002, at most $0.002" in out
    unknown = run("batch", source, tmp_path / "other", "-m", "http:http://127.0.0.1:9", "--dry-run")
    assert "estimate unknown" in unknown[1]


def test_precompute_fills_a_vector_file(run: Run, articles: Path, tmp_path: Path) -> None:
    """Once; and a model that stores nothing is refused."""
    command = ("precompute", articles, "--vectors", tmp_path / "a")
    assert run(*command) == (0, "", "rerank-bridge: 3 documents encoded, 0 were stored already\n")
    assert run(*command) == (0, "", "rerank-bridge: 0 documents encoded, 3 were stored already\n")
    status, _, err = run(*command, "--model", "cohere:rerank-v3.5")
    assert status == 2
    assert "vectors" in err
    asked = ("rerank", "-q", QUERY, "-d", articles, "--vectors", tmp_path / "a", "-o", "json")
    assert json.loads(run(*asked)[1])["usage"]["stored"] == 3
    searched = ("query", "memory leak", "-c", articles, "--vectors", tmp_path / "b")
    assert run(*searched)[0] == 0
    assert VectorFile(tmp_path / "b").stats().documents > 0
