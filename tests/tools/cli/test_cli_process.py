"""The installed command in a process of its own: pipes, signals, locale and terminals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

COMMAND = str(Path(sys.executable).parent / "rerank-bridge")


def started(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the command, its streams connected."""
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    """As ``| head -1`` does after the first line, here before a megabyte of others."""
    (tmp_path / "many.txt").write_text(("word " * 200 + "\n") * 1000)
    process = started(
        "query", "word", "-c", str(tmp_path), "--no-rerank", "-n", "1000", "--candidates", "1000", "-o", "jsonl"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.close()
    first = process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(30) == 0
    assert first.startswith(b'{"rank": 1')
    assert errors.count("\n") == 1  # that it built an index
    assert "indexed" in errors


def test_ctrl_c_ends_it_with_130(tmp_path: Path) -> None:
    """While it waits for documents; one line, no traceback."""
    process = started("rerank", "-q", "x")
    assert process.stdin is not None
    # More than a pipe holds: when this returns, the command is reading.
    process.stdin.write(b"one\n" * 2**18)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"")
    assert errors == b"rerank-bridge: interrupted\n"


def test_utf_8_whatever_the_locale_and_no_colours_in_a_pipe() -> None:
    """Even in the C locale, where Python would write ASCII."""
    process = started(
        "rerank", "-q", "Käse", "-o", "table", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    )
    out, errors = process.communicate("Käse aus Gouda – 奶酪\n".encode(), timeout=30)
    assert (process.returncode, errors) == (0, b"")
    assert "Käse aus Gouda – 奶酪" in out.decode()
    assert b"\x1b" not in out


def test_a_binary_file_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    """With the installed command, not only in this process."""
    (tmp_path / "a.jsonl").write_bytes(bytes(range(256)))
    process = started("rerank", "-q", "x", "-d", str(tmp_path / "a.jsonl"))
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert errors.decode().count("\n") == 1
    assert "is not text in UTF-8" in errors.decode()


def test_serve_answers_until_it_is_told_to_end() -> None:
    """It says where it listens, and ends by Ctrl-C."""
    process = started("serve", "--port", "0")
    assert process.stderr is not None
    warning = process.stderr.readline().decode()
    lines = (line.decode() for line in iter(process.stderr.readline, b""))
    address = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    body = {"query": "memory leak", "documents": ["Paris", "finding leaks"], "top_n": 1}
    answer = httpx.post(f"{address}/v2/rerank", json=body)
    assert [result["index"] for result in answer.json()["results"]] == [1]
    assert httpx.post(f"{address}/v2/rerank", json=body, headers={"Host": "evil.example"}).status_code == 400
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert "for development and tests" in warning


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_nothing_reaches_the_terminal_that_controls_it(tmp_path: Path) -> None:
    """Escapes and C1 controls of documents, file names and errors are replaced there; a file keeps the bytes."""
    evil = "red \x1b[31m\x9b31m\x07 \u202eleak"
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps({"text": evil}, ensure_ascii=False) + "\n")
    commands = [
        ["rerank", "-q", evil, "-d", str(path)],
        ["rerank", "-q", "leak", "-d", str(path), "-o", "jsonl"],
        ["rerank", "-q", "leak", "-d", str(tmp_path / evil)],
        ["--debug", "rerank", "-q", "leak", "-d", str(tmp_path / evil)],
        ["rerank", "-q", "leak", "-m", f"nobody{evil}"],
        ["models"],
    ]
    for command in commands:
        written = written_to_terminal(command)
        assert written
        for unsafe in ("\x1b[31m", "\x9b", "\x07", "\u202e"):
            assert unsafe not in written, command
    process = started(*commands[1])
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["document"] == {"text": evil}
    assert "\x9b".encode() in out


def written_to_terminal(command: list[str]) -> str:
    """Return what the command writes to both streams when they are a terminal."""
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen([COMMAND, *command], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while piece := os.read(ours, 65536):
                written += piece
        process.wait(30)
    os.close(ours)
    return written.decode("utf-8")
